from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from speechloom import testing
from speechloom.errors import AudioError, PluginNotFound, TextError, UsageError
from speechloom.protocols import (
    Aligner,
    Codec,
    Frontend,
    Generator,
    SpeakerEncoder,
    Tokenizer,
    Vocoder,
)
from speechloom.records import Status
from speechloom.registry import Registry
from speechloom.spec import KINDS, ComponentSpec
from speechloom.testing import (
    AlignerConformance,
    CodecConformance,
    ConformanceError,
    FrontendConformance,
    GeneratorConformance,
    Inputs,
    SpeakerEncoderConformance,
    TokenizerConformance,
    VocoderConformance,
    check_plugin,
    iter_checks,
    parametrize_with_checks,
)
from speechloom.testing.checks import Check, NotApplicable, Subject, checks_of
from speechloom.testing.checks.learning import LEARNER_CHECKS
from speechloom.testing.fake_specs import CODEC, FRONTEND, PHONES, TOKENIZER
from speechloom.testing.fakes import (
    FakeAligner,
    FakeCodec,
    FakeFeatureGenerator,
    FakeFrontend,
    FakeGenerator,
    FakeSpeakerEncoder,
    FakeTextGenerator,
    FakeTokenizer,
    FakeVocoder,
)
from speechloom.testing.inputs import made_audio
from speechloom.testing.isolation import blocked_network
from speechloom.testing.temporary import TemporaryPlugins, fake_distribution
from speechloom.testing.tensors import assert_close, poisoned_empty
from speechloom.values import Audio, Canvas, Codes, Features, Phones, Tokens, Voice

INPUTS = Inputs(symbols={"letters": PHONES}, long_seconds=20.0)
FAKES = Registry(entry_points=tuple(fake_distribution().entry_points), environ={})


# The fakes pass every check. The annotations let mypy prove the protocols.


class WithLetters:
    @pytest.fixture
    def inputs(self) -> Inputs:
        return INPUTS


class TestFakeTokenizer(WithLetters, TokenizerConformance):
    @pytest.fixture
    def component(self) -> Tokenizer:
        return FakeTokenizer()


class TestFakeCodec(WithLetters, CodecConformance):
    @pytest.fixture
    def component(self) -> Codec:
        return FakeCodec()


class TestFakeGenerator(WithLetters, GeneratorConformance):
    @pytest.fixture
    def component(self) -> Generator:
        return FakeGenerator()


class TestFakeTextGenerator(WithLetters, GeneratorConformance):
    @pytest.fixture
    def component(self) -> Generator:
        return FakeTextGenerator()


class TestFakeFeatureGenerator(WithLetters, GeneratorConformance):
    @pytest.fixture
    def component(self) -> Generator:
        return FakeFeatureGenerator()


class TestFakeVocoder(WithLetters, VocoderConformance):
    @pytest.fixture
    def component(self) -> Vocoder:
        return FakeVocoder()


class TestFakeSpeakerEncoder(WithLetters, SpeakerEncoderConformance):
    @pytest.fixture
    def component(self) -> SpeakerEncoder:
        return FakeSpeakerEncoder()


class TestFakeAligner(WithLetters, AlignerConformance):
    @pytest.fixture
    def component(self) -> Aligner:
        return FakeAligner()


class TestFakeFrontend(WithLetters, FrontendConformance):
    @pytest.fixture
    def component(self) -> Frontend:
        return FakeFrontend()


@parametrize_with_checks(FRONTEND, registry=FAKES)
def test_the_same_checks_as_a_parameter(check: Any) -> None:
    check()


# Components with one fault each, and the check that must find it.


class DropsLastFrame(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        tokens = super().encode(audio)
        return replace(tokens, ids=tokens.ids[:, :-1], lengths=tokens.lengths - 1)


class LooksAtTheBatch(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        loudest = max(float(np.abs(one.samples).max()) for one in audio) or 1.0
        return super().encode([replace(one, samples=one.samples / loudest) for one in audio])


class HidesItsContext(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        tokens = super().encode(audio)
        return replace(tokens, ids=torch.cumsum(tokens.ids, dim=1) % 128)


class TakesOneChannel(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        return super().encode([replace(one, samples=one.samples[:1]) for one in audio])


class UsesGlobalRandomness(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        random.random()
        return super().encode(audio)


class SeedsTorch(FakeTokenizer):
    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> SeedsTorch:
        torch.manual_seed(seed)
        return cls(spec)


class DependsOnGlobalRandomness(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        tokens = super().encode(audio)
        state = np.random.get_state()
        shift = int(np.random.randint(64))
        np.random.set_state(state)
        return replace(tokens, ids=(tokens.ids + shift) % 128)


class BuiltByChance(FakeTokenizer):
    def __init__(self, spec: ComponentSpec | None = None) -> None:
        super().__init__(spec)
        state = np.random.get_state()
        self.shift = int(np.random.randint(64))
        np.random.set_state(state)

    def encode(self, audio: Sequence[Audio]) -> Tokens:
        tokens = super().encode(audio)
        return replace(tokens, ids=(tokens.ids + self.shift) % 128)


class KeepsResults(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        tokens = super().encode(audio)
        self.kept = [*getattr(self, "kept", []), tokens]
        return tokens


class CallsHome(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        try:
            socket.create_connection(("localhost", 9), timeout=1).close()
        except OSError:
            pass
        return super().encode(audio)


class WritesToItsInput(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        for one in audio:
            one.samples[:, 0] = 0.5
        return super().encode(audio)


class NotThreadSafe(FakeTokenizer):
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        self.calls = getattr(self, "calls", 0) + 1
        tokens = super().encode(audio)
        return replace(tokens, ids=(tokens.ids + (self.calls > 2)) % 128)


class LivesElsewhere(FakeTokenizer):
    def __init__(self, spec: ComponentSpec | None = None) -> None:
        super().__init__(spec)
        self.weight = torch.empty(1, device="meta")


class HasOddWeights(FakeTokenizer):
    @property
    def weights(self) -> Mapping[str, str]:
        return {"model.safetensors": "not a hash"}


class ForgetsAMethod:
    spec = CODEC
    weights: Mapping[str, str] = {}


class PlaysOneSampleMore(FakeCodec):
    def decode(self, codes: Codes) -> list[Audio]:
        return [
            Audio(np.pad(one.samples, ((0, 0), (0, 1))), one.sample_rate)
            for one in super().decode(codes)
        ]


class DecodesAnything(FakeCodec):
    def decode(self, codes: Codes) -> list[Audio]:
        ids = codes.ids[:, :8]
        return super().decode(replace(codes, ids=ids, codec="fake-codes"))


class NormalisesTheWhole(FakeCodec):
    def decode(self, codes: Codes) -> list[Audio]:
        played = super().decode(codes)
        return [replace(one, samples=one.samples - one.samples.mean()) for one in played]


class DividesByLoudness(FakeCodec):
    def decode(self, codes: Codes) -> list[Audio]:
        with np.errstate(all="ignore"):
            return [
                Audio(one.samples / np.abs(one.samples).max(), one.sample_rate)
                for one in super().decode(codes)
            ]


class OverwritesThePrompt(FakeGenerator):
    def fill(self, canvas: Canvas) -> Codes:
        return super().fill(replace(canvas, known=torch.zeros_like(canvas.known)))


class DrawsByRow(FakeGenerator):
    def fill(self, canvas: Canvas) -> Codes:
        return super().fill(replace(canvas, seeds=canvas.seeds + torch.arange(canvas.batch)))


class IgnoresTheSeed(FakeGenerator):
    def fill(self, canvas: Canvas) -> Codes:
        return super().fill(replace(canvas, seeds=torch.zeros_like(canvas.seeds)))


class IgnoresTheItem(FakeGenerator):
    def fill(self, canvas: Canvas) -> Codes:
        return super().fill(replace(canvas, items=torch.zeros_like(canvas.items)))


class LeavesPadding(FakeGenerator):
    def fill(self, canvas: Canvas) -> Codes:
        codes = super().fill(canvas)
        frames = torch.arange(codes.ids.shape[-1])
        outside = frames >= codes.lengths[:, None, None]
        return replace(codes, ids=torch.where(outside, 1, codes.ids))


class TakesAnyCanvas(FakeTextGenerator):
    def fill(self, canvas: Canvas) -> Tokens:
        content = torch.zeros_like(canvas.ids[:, 0]) if canvas.content is None else canvas.content
        return super().fill(
            replace(
                canvas,
                task="synthesize",
                gives="tokens:fake-units",
                content=content,
                content_kind="phones:letters",
                voices=None,
            )
        )


class RefusesBadly(FakeTextGenerator):
    def fill(self, canvas: Canvas) -> Tokens:
        if canvas.task == "convert":
            raise NotImplementedError("convert")
        return super().fill(canvas)


class IgnoresTheRate(FakeTextGenerator):
    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        return super().durations(phones, voices=voices, seed=seed)


class LeavesPhonesOut(FakeTextGenerator):
    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        return [
            [0, *one[1:]] for one in super().durations(phones, rate=rate, voices=voices, seed=seed)
        ]


class ForgetsTheSeed(FakeTextGenerator):
    calls = 0

    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        self.calls += seed > 0
        return [[4 + self.calls] * len(one) for one in super().durations(phones)]


class KeepsGradients(FakeFeatureGenerator):
    def fill(self, canvas: Canvas) -> Features:
        features = super().fill(canvas)
        return replace(features, values=features.values.clone().requires_grad_())


class FailsInInferenceMode(FakeFeatureGenerator):
    def fill(self, canvas: Canvas) -> Features:
        features = super().fill(canvas)
        if torch.is_inference_mode_enabled():
            return replace(features, values=features.values + 1)
        return features


class SkipsWords(FakeFrontend):
    def phonemize(
        self, text: str, *, lexicon: Mapping[str, Sequence[str]] | None = None
    ) -> list[Phones]:
        return [
            replace(
                one,
                words=one.words[:1],
                word_spans=one.word_spans[:1],
                source_spans=one.source_spans[:1],
            )
            for one in super().phonemize(text, lexicon=lexicon)
        ]


class IgnoresTheLexicon(FakeFrontend):
    def phonemize(
        self, text: str, *, lexicon: Mapping[str, Sequence[str]] | None = None
    ) -> list[Phones]:
        return super().phonemize(text)


class SaysNothing(FakeFrontend):
    def phonemize(
        self, text: str, *, lexicon: Mapping[str, Sequence[str]] | None = None
    ) -> list[Phones]:
        try:
            return super().phonemize(text, lexicon=lexicon)
        except TextError:
            return []


class EmbedsSilence(FakeSpeakerEncoder):
    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        try:
            return super().embed(audio)
        except AudioError:
            return [self.named("ann") for _ in audio]


class HidesItsVoices(FakeSpeakerEncoder):
    def named(self, name: str) -> Voice:
        if name not in ("ann", "bob"):
            raise UsageError("no such voice")
        return super().named(name)


class AlignsBackwards(FakeAligner):
    def align(self, audio: Audio, phones: Sequence[Phones]) -> list[list[tuple[float, float]]]:
        return [one[::-1] for one in super().align(audio, phones)]


FAULTS: list[tuple[type[Any], str, str]] = [
    (DropsLastFrame, "frame_counts_are_exact", "frames instead of"),
    (DropsLastFrame, "takes_any_sample_rate", "frames instead of"),
    (LooksAtTheBatch, "encodes_a_batch_like_a_loop", "of a batch and alone"),
    (HidesItsContext, "encodes_windows_like_the_whole", "a window and the whole"),
    (TakesOneChannel, "takes_stereo", "stereo and the mean"),
    (UsesGlobalRandomness, "leaves_random_state_alone", "a call changed"),
    (SeedsTorch, "leaves_random_state_alone", "`from_random` changed"),
    (DependsOnGlobalRandomness, "repeats_itself", "the same call twice"),
    (BuiltByChance, "built_alike_from_one_seed", "two components of one seed"),
    (KeepsResults, "memory_is_flat", "stay alive after 20 calls"),
    (CallsHome, "uses_no_network", "tried to connect: socket"),
    (WritesToItsInput, "leaves_arguments_alone", "before and after"),
    (NotThreadSafe, "runs_in_threads", "in two threads"),
    (LivesElsewhere, "runs_on_cpu_by_default", "meta"),
    (HasOddWeights, "weights_are_hashed", "no sha256"),
    (ForgetsAMethod, "follows_protocol", "decode, encode, from_pretrained, from_random"),
    (DropsLastFrame, "implementation_is_named", "DropsLastFrame"),
    (PlaysOneSampleMore, "plays_exact_lengths", "1 frames give 321, not 320"),
    (PlaysOneSampleMore, "plays_very_long_input", "give"),
    (DecodesAnything, "refuses_foreign_frames", "codes of another codec must be refused"),
    (NormalisesTheWhole, "plays_windows_like_the_whole", "a window and the whole"),
    (OverwritesThePrompt, "keeps_what_is_known", "known positions were changed in edit"),
    (OverwritesThePrompt, "leaves_a_full_canvas_as_it_is", "a full canvas is changed"),
    (DrawsByRow, "fills_a_batch_like_singles", "item 1 of a batch"),
    (IgnoresTheSeed, "other_seed_other_result", "three different seeds"),
    (IgnoresTheItem, "other_seed_other_result", "three different item numbers"),
    (LeavesPadding, "fills_every_claimed_canvas", "padding is not 0"),
    (TakesAnyCanvas, "refuses_unclaimed_tasks", "the task convert must be refused"),
    (TakesAnyCanvas, "refuses_unclaimed_content", "not-an-alphabet to synthesize must be"),
    (TakesAnyCanvas, "refuses_unclaimed_voices", "a voice must be refused"),
    (TakesAnyCanvas, "refuses_foreign_canvases", "another codec must be refused"),
    (RefusesBadly, "refuses_unclaimed_tasks", "but raises NotImplementedError"),
    (IgnoresTheRate, "durations_follow_the_rate", "rates 0.5, 1 and 2 last 96, 96 and 96"),
    (LeavesPhonesOut, "gives_durations", "at least 1"),
    (ForgetsTheSeed, "gives_durations", "the same seed gave other durations"),
    (KeepsGradients, "keeps_no_gradients", "requires grad"),
    (FailsInInferenceMode, "works_in_inference_mode", "inference_mode"),
    (SkipsWords, "leaves_nothing_out", "left out of"),
    (IgnoresTheLexicon, "lexicon_goes_first", "but the lexicon says"),
    (SaysNothing, "refuses_what_cannot_be_said", "must be refused with TextError"),
    (EmbedsSilence, "refuses_too_little_speech", "silence must be refused"),
    (HidesItsVoices, "knows_its_named_voices", "does not name ann, bob"),
    (AlignsBackwards, "spans_are_in_order", "after"),
]


def named(component: Any, name: str) -> Check:
    return next(check for check in checks_of(component.spec.kind) if check.name == name)


@pytest.mark.parametrize(
    ("faulty", "name", "message"), FAULTS, ids=lambda v: getattr(v, "__name__", None)
)
def test_a_fault_is_found(faulty: type[Any], name: str, message: str) -> None:
    component = faulty()
    with pytest.raises(AssertionError, match=message):
        named(component, name)(Subject(component, INPUTS))


def test_nan_out_of_silence_is_found() -> None:
    component = DividesByLoudness()
    with pytest.raises(AudioError, match="NaN"):
        named(component, "silence_stays_finite")(Subject(component, INPUTS))


def test_a_lie_about_the_sizes_is_found() -> None:
    facts = FakeGenerator.default_spec.facts.model_copy(update={"voice_size": None})
    spec = FakeGenerator.default_spec.model_copy(update={"facts": facts, "license": ""})
    with pytest.raises(AssertionError, match="license"):
        named(FakeGenerator(spec), "spec_is_complete")(Subject(FakeGenerator(spec)))
    spec = spec.model_copy(update={"license": "MIT"})
    with pytest.raises(AssertionError, match="voice_size"):
        named(FakeGenerator(spec), "spec_is_complete")(Subject(FakeGenerator(spec)))


def test_a_claimed_limit_must_be_kept() -> None:
    facts = CODEC.facts.model_copy(update={"max_seconds": 2.0})
    component = FakeCodec(CODEC.model_copy(update={"facts": facts}))
    with pytest.raises(AssertionError, match="3.0 s of audio must be refused"):
        named(component, "takes_very_long_audio")(Subject(component, INPUTS))


def test_a_spec_module_that_imports_torch_is_found(tmp_plugin: TemporaryPlugins) -> None:
    source = f"import torch\nfrom {FakeCodec.__module__} import CODEC as SPEC\n"
    tmp_plugin("acme-heavy", source=source)
    registry = tmp_plugin.registry()
    results = check_plugin("codec/fake-codec", registry=registry, inputs=INPUTS, on_fail="return")
    failed = {result.name: result.detail for result in results if result.status == "failed"}
    assert list(failed) == ["spec_import_is_light"]
    assert "torch" in failed["spec_import_is_light"]


# check_plugin and its relatives.


def test_check_names_are_documented_and_have_summaries() -> None:
    documented = (testing.__doc__ or "").split("``")[1::2]
    checks = [*(check for kind in KINDS for check in checks_of(kind)), *LEARNER_CHECKS]
    for check in checks:
        assert check.name in documented, f"{check.name} is not in the docstring"
        assert check.summary.endswith(".")
    everything = {check.name for check in checks} | {"can_be_built"}
    listed = [name for name in documented if name.replace("_", "").isalnum() and "_" in name]
    assert set(listed) - {"from_random"} == everything


@pytest.mark.parametrize("target", [FRONTEND, "frontend/fake-frontend", FakeFrontend()])
def test_a_component_is_checked_by_spec_by_name_and_itself(target: Any) -> None:
    results = check_plugin(target, registry=FAKES)
    assert {result.status for result in results} == {"passed"}
    names = [result.name for result in results]
    assert names == ["can_be_built", *(check.name for check in checks_of("frontend"))]


def test_failures_are_raised_together_with_the_plugin() -> None:
    with pytest.raises(ConformanceError, match="leaves_nothing_out: left out of") as caught:
        check_plugin(SkipsWords(), registry=FAKES)
    assert caught.value.plugin == "frontend/fake-frontend"
    failed = [result.name for result in caught.value.results if result.status == "failed"]
    assert failed == ["implementation_is_named", "leaves_nothing_out"]
    assert isinstance(caught.value, AssertionError)


def test_expected_failures_are_accepted_and_must_stay_true() -> None:
    reasons = {
        "leaves_nothing_out": "says one word only",
        "implementation_is_named": "made for this test",
    }
    results = check_plugin(SkipsWords(), registry=FAKES, expected_failures=reasons)
    expected = [result for result in results if result.status == "expected"]
    assert [result.name for result in expected] == [
        "implementation_is_named",
        "leaves_nothing_out",
    ]
    assert expected[1].detail.startswith("says one word only (left out of")
    with pytest.raises(ConformanceError, match="but passes: remove it"):
        check_plugin(FakeFrontend(), registry=FAKES, expected_failures=reasons)


def test_expected_failures_must_exist() -> None:
    with pytest.raises(UsageError, match="no_such_check, but the checks are follows_protocol"):
        check_plugin(FRONTEND, registry=FAKES, expected_failures={"no_such_check": "?"})
    with pytest.raises(UsageError, match="no_such_check"):
        parametrize_with_checks(FRONTEND, registry=FAKES, expected_failures={"no_such_check": "?"})
    with pytest.raises(UsageError, match="no_such_check"):

        class Mine(CodecConformance):
            expected_failures = {"no_such_check": "?"}


def test_what_cannot_be_built_is_a_result() -> None:
    spec = CODEC.model_copy(update={"implementation": "speechloom.testing.fakes:NoSuchCodec"})
    results = check_plugin(spec, registry=FAKES, on_fail="return")
    assert [(result.name, result.status) for result in results] == [("can_be_built", "failed")]
    assert "NoSuchCodec" in results[0].detail
    with pytest.raises(ConformanceError, match="NoSuchCodec"):
        check_plugin(spec, registry=FAKES)


def test_unknown_targets_are_refused() -> None:
    with pytest.raises(PluginNotFound, match="fake-codex"):
        check_plugin("codec/fake-codex", registry=FAKES)
    with pytest.raises(UsageError, match="kind/id"):
        check_plugin("fake-codec", registry=FAKES)
    with pytest.raises(UsageError, match="no kind 'codex'"):
        check_plugin("codex/fake-codec", registry=FAKES)


def test_checks_are_iterated_without_building_anything() -> None:
    spec = CODEC.model_copy(update={"implementation": "speechloom.testing.fakes:NoSuchCodec"})
    checks = list(iter_checks(spec, registry=FAKES))
    assert [check.name for check in checks] == [check.name for check in checks_of("codec")]


def test_pytest_parameters_skip_what_does_not_apply() -> None:
    mark = parametrize_with_checks(FakeGenerator(), registry=FAKES).mark
    (tasks,) = (p.values[0] for p in mark.args[1] if p.id == "refuses_unclaimed_tasks")
    with pytest.raises(pytest.skip.Exception, match="claims all tasks"):
        tasks()


def test_pytest_parameters_carry_strict_xfails() -> None:
    reasons = {"takes_silence": "it sings"}
    mark = parametrize_with_checks(CODEC, registry=FAKES, expected_failures=reasons).mark
    marked = {p.id: p.marks for p in mark.args[1] if p.marks}
    assert list(marked) == ["takes_silence"]
    assert marked["takes_silence"][0].kwargs == {"reason": "it sings", "strict": True}


class Expecting(FrontendConformance):
    expected_failures = {"leaves_nothing_out": "says one word only"}


def test_mixins_treat_expected_failures_strictly() -> None:
    check = named(FakeFrontend(), "leaves_nothing_out")
    with pytest.raises(pytest.xfail.Exception, match="says one word only"):
        Expecting().run(check, SkipsWords(), INPUTS)
    with pytest.raises(pytest.fail.Exception, match="but passes: remove it"):
        Expecting().run(check, FakeFrontend(), INPUTS)
    with pytest.raises(AssertionError, match="this is a codec"):
        Expecting().run(check, FakeCodec(), INPUTS)


def test_an_alphabet_that_nobody_knows_is_skipped_with_advice() -> None:
    component = FakeAligner()
    with pytest.raises(NotApplicable, match=r"Inputs\(symbols"):
        named(component, "spans_are_in_order")(Subject(component))


# Fixtures.


def test_the_isolated_registry_is_empty(isolated_registry: Registry) -> None:
    assert isolated_registry.records() == ()


def test_the_fake_registry_loads_every_fake(fake_registry: Registry) -> None:
    records = fake_registry.records()
    assert {record.kind for record in records} == set(KINDS)
    assert {record.status for record in records} == {Status.available}
    for record in records:
        assert fake_registry.load(record.kind, record.id).spec == record.spec


def test_temporary_plugins_come_in_every_state(tmp_plugin: TemporaryPlugins) -> None:
    tmp_plugin("acme-good")
    tmp_plugin("acme-one", spec=TOKENIZER)
    tmp_plugin("acme-two", spec=TOKENIZER)
    tmp_plugin.broken("acme-broken")
    tmp_plugin.missing("acme-missing")
    tmp_plugin.newer_api("acme-newer")
    found = {r.full_id: r.status for r in tmp_plugin.registry().records()}
    assert found == {
        "acme-good:fake-codec": Status.available,
        "acme-one:fake-tokenizer": Status.shadowed,
        "acme-two:fake-tokenizer": Status.shadowed,
        "acme-broken:acme-broken": Status.broken,
        "acme-missing:acme-missing": Status.missing_dependency,
        "acme-newer:acme-newer": Status.incompatible,
    }


def test_temporary_plugins_leave_no_modules(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    plugins = TemporaryPlugins(tmp_path)
    plugins("acme-gone")
    plugins.registry().records()
    assert "acme_gone_spec" in sys.modules
    plugins.forget_modules()
    assert "acme_gone_spec" not in sys.modules


def test_the_network_is_blocked(no_network: list[str]) -> None:
    with pytest.raises(OSError, match="network is blocked"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="getaddrinfo"):
        socket.getaddrinfo("example.org", 80)
    assert len(no_network) == 2
    no_network.clear()  # what was tried on purpose is no fault of this test


def test_the_network_comes_back_and_local_sockets_stay() -> None:
    connect = socket.socket.connect
    with blocked_network() as attempts:
        left, right = socket.socketpair()
        with left, right:
            left.sendall(b"x")
            assert right.recv(1) == b"x"
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            pytest.raises(OSError, match="sendto"),
        ):
            udp.sendto(b"x", ("127.0.0.1", 9))
    assert len(attempts) == 1
    assert socket.socket.connect is connect


def test_the_pytest_plugin_imports_nothing_heavy() -> None:
    code = "import sys, speechloom.testing.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert not {"torch", "soundfile", "soxr", "scipy", "hypothesis"} & imported
    assert {name for name in imported if name.startswith("speechloom.testing")} == {
        "speechloom.testing",
        "speechloom.testing.pytest_plugin",
    }


# Tensors.


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.int64, torch.uint8, torch.bool]
)
def test_poison_is_never_right(dtype: torch.dtype) -> None:
    poisoned = poisoned_empty((2, 3), dtype=dtype)
    assert (poisoned.shape, poisoned.dtype) == ((2, 3), dtype)
    if dtype.is_floating_point or dtype.is_complex:
        assert bool(torch.isnan(poisoned).all())
    else:
        assert bool((poisoned != 0).all())


def test_close_means_close_to_what_low_precision_gives() -> None:
    expected = torch.linspace(0, 1, 100)
    low = expected.bfloat16().float()
    assert_close(low, expected, low_precision=low)
    with pytest.raises(AssertionError):
        assert_close(low, expected)
    with pytest.raises(AssertionError):
        assert_close(expected + 0.1, expected, low_precision=low)
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([1]), torch.tensor([2]), low_precision=torch.tensor([5]))
    with pytest.raises(AssertionError):
        assert_close(low, expected.double(), low_precision=low)


# Known answers of the fakes.


def test_the_fake_codec_keeps_low_sound_and_silence() -> None:
    seconds = np.arange(16_000) / 16_000
    tone = Audio((0.5 * np.sin(2 * np.pi * 20 * seconds)).astype(np.float32), 16_000)
    back = FakeCodec().decode(FakeCodec().encode([tone]))[0]
    assert np.abs(back.samples - tone.samples)[:, 40:-40].max() < 0.03
    silence = Audio(np.zeros((1, 700), np.float32), 16_000)
    assert not FakeCodec().decode(FakeCodec().encode([silence]))[0].samples.any()


def test_the_fake_front_end_knows_where_words_stand() -> None:
    text = "Héllo, [[a b]] 42! It’s\nme"
    first, second = FakeFrontend().phonemize(text, lexicon={"me": ["m", "i"]})
    assert "".join(first.symbols) == "_hello_abfourtwo_"
    assert "".join(second.symbols) == "_itsmi_"
    assert first.words == ("Héllo", "[[a b]]", "4", "2")
    assert [text[a:b] for a, b in second.source_spans] == ["It’s", "me"]


@pytest.mark.parametrize("text", ["привет", "5 €", "🙂 yes", "[[a é]]"])
def test_the_fake_front_end_refuses_what_it_cannot_spell(text: str) -> None:
    with pytest.raises(TextError):
        FakeFrontend().phonemize(text)


def test_fake_speech_is_aligned_exactly_by_the_fake_aligner() -> None:
    phones = FakeFrontend().phonemize("one two. three")
    durations = FakeTextGenerator().durations(phones, rate=0.5)
    frames = sum(map(sum, durations))
    spans = FakeAligner().align(made_audio(frames * 320), phones)
    lengths = [[round((b - a) * 50) for a, b in one] for one in spans]
    assert lengths == durations


def test_fake_voices_tell_low_from_high() -> None:
    seconds = np.arange(16_000) / 16_000
    low, high = (
        Audio(np.sin(2 * np.pi * f * seconds).astype(np.float32), 16_000) for f in (90, 200)
    )
    voices = FakeSpeakerEncoder().embed([low, low.slice(0, 8_000), high])
    first, same, other = (voice.vector for voice in voices)
    assert np.abs(first - same).max() < 0.1 < np.abs(first - other).max()


@pytest.fixture(autouse=True)
def _no_torch_seeds() -> Iterator[None]:
    """Tests with faults that seed torch must not reach the others."""
    with torch.random.fork_rng():
        yield
