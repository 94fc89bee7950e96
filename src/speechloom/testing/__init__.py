"""The conformance kit: prove that a component does what it claims, and refuses the rest.

Three ways to run the same checks::

    check_plugin(SPEC)                       # all of them; raises ConformanceError
    @parametrize_with_checks(SPEC)           # one pytest test each
    class TestMine(CodecConformance): ...    # the same, on a component that a fixture makes

and one for what can be trained::

    check_learner("mine", made_examples(tmp_path), settings={"size": "tiny"})

A component is built with ``from_random``, so that neither weights nor network are needed. A check
that does not apply is skipped and says why. The names of the checks are public:

before all others
    ``can_be_built`` (only in the results of `check_plugin`)
every component
    ``follows_protocol`` ``spec_survives_json`` ``spec_is_complete`` ``implementation_is_named``
    ``spec_import_is_light`` ``weights_are_hashed`` ``built_alike_from_one_seed``
    ``leaves_random_state_alone`` ``repeats_itself`` ``leaves_arguments_alone``
    ``keeps_no_gradients`` ``works_in_inference_mode`` ``runs_on_cpu_by_default``
    ``uses_no_network`` ``runs_in_threads`` ``memory_is_flat``
tokenizers and codecs
    ``encodes_to_its_layout`` ``frame_counts_are_exact`` ``takes_any_sample_rate``
    ``takes_stereo`` ``takes_silence`` ``never_sees_bad_audio`` ``takes_very_long_audio``
    ``encodes_a_batch_like_a_loop``
tokenizers
    ``encodes_windows_like_the_whole``
codecs and vocoders
    ``plays_exact_lengths`` ``plays_a_batch_like_a_loop`` ``plays_windows_like_the_whole``
    ``plays_very_long_input`` ``refuses_foreign_frames``
codecs
    ``comes_back_as_long_as_it_was`` ``silence_stays_finite``
generators
    ``fills_every_claimed_canvas`` ``keeps_what_is_known`` ``leaves_a_full_canvas_as_it_is``
    ``fills_a_batch_like_singles`` ``fills_one_frame`` ``fills_a_long_canvas``
    ``same_seed_same_result`` ``other_seed_other_result`` ``refuses_unclaimed_tasks``
    ``refuses_unclaimed_content`` ``refuses_unclaimed_voices`` ``refuses_foreign_canvases``
    ``gives_durations`` ``durations_follow_the_rate``
front ends
    ``speaks_its_phones`` ``leaves_nothing_out`` ``takes_phones_directly``
    ``lexicon_goes_first`` ``refuses_what_cannot_be_said``
speaker encoders
    ``gives_voices`` ``embeds_a_batch_like_a_loop`` ``embeds_very_long_audio``
    ``refuses_too_little_speech`` ``refuses_recordings_where_it_takes_none``
    ``knows_its_named_voices``
aligners
    ``spans_are_in_order`` ``refuses_what_cannot_be_aligned`` ``aligns_very_long_audio``
learners
    ``implementation_is_named`` ``spec_import_is_light`` ``settings_refuse_unknown_keys``
    ``built_alike_from_one_seed`` ``phases_share_the_weights`` ``cache_key_stays``
    ``prepares_tensors`` ``prepares_alike`` ``collates_alike`` ``losses_are_scalars``
    ``takes_a_batch_of_one`` ``every_weight_learns`` ``repeats_its_losses``
    ``learns_in_bfloat16`` ``validation_changes_nothing`` ``resumes_exactly``
    ``uses_no_network`` ``exports_components`` ``exports_alike``

`speechloom.testing.fakes` has a tiny fake of every protocol, `speechloom.testing.tensors` what
tests of kernels need, and `speechloom.testing.pytest_plugin` the fixtures that pytest finds by
itself. Names are imported when they are used: this module alone loads neither torch nor pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechloom.testing.conformance import (
        AlignerConformance,
        CodecConformance,
        FrontendConformance,
        GeneratorConformance,
        SpeakerEncoderConformance,
        TokenizerConformance,
        VocoderConformance,
    )
    from speechloom.testing.inputs import Inputs
    from speechloom.testing.kit import (
        BoundCheck,
        CheckResult,
        ConformanceError,
        check_plugin,
        iter_checks,
        parametrize_with_checks,
    )
    from speechloom.testing.learners import check_learner, made_examples

__all__ = [
    "AlignerConformance",
    "BoundCheck",
    "CheckResult",
    "CodecConformance",
    "ConformanceError",
    "FrontendConformance",
    "GeneratorConformance",
    "Inputs",
    "SpeakerEncoderConformance",
    "TokenizerConformance",
    "VocoderConformance",
    "check_learner",
    "check_plugin",
    "iter_checks",
    "made_examples",
    "parametrize_with_checks",
]

_MODULES = {"Inputs": "inputs", "check_learner": "learners", "made_examples": "learners"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "conformance" if name.endswith("Conformance") else _MODULES.get(name, "kit")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
