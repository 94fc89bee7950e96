"""The router: chains from facts alone, and refusals that say which facts disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom.chain import ROLES, Chain, Role
from speechloom.errors import RoutingError, UsageError
from speechloom.mel import RTVC_SYNTHESIZER, TACOTRON2, MelSpec
from speechloom.router import find_chain
from speechloom.spec import (
    TASKS,
    AlignerFacts,
    CodecFacts,
    ComponentSpec,
    FrontendFacts,
    GeneratorFacts,
    Kind,
    SpeakerEncoderFacts,
    Task,
    TokenizerFacts,
    VocoderFacts,
)
from speechloom.testing.fake_specs import (
    ALIGNER,
    CODEC,
    FAKE_SPECS,
    FEATURE_GENERATOR,
    FRONTEND,
    GENERATOR,
    SPEAKER_ENCODER,
    TEXT_GENERATOR,
    TOKENIZER,
    VOCODER,
)


class Pool:
    """Specs by kind, in the order of their ids, as the registry gives them."""

    def __init__(self, specs: Sequence[ComponentSpec]) -> None:
        self._specs = sorted(specs, key=lambda spec: spec.id)

    def __call__(self, kind: Kind) -> tuple[ComponentSpec, ...]:
        return tuple(spec for spec in self._specs if spec.kind == kind)


def without(*gone: ComponentSpec) -> Pool:
    return Pool([spec for spec in FAKE_SPECS if spec not in gone])


def swapped(*new: ComponentSpec) -> Pool:
    """The fakes, with some replaced by their id."""
    ids = {spec.id for spec in new}
    return Pool([*(spec for spec in FAKE_SPECS if spec.id not in ids), *new])


def changed(spec: ComponentSpec, *, id: str | None = None, **facts: Any) -> ComponentSpec:
    """A spec with other facts, checked as new ones are."""
    data = spec.facts.model_dump() | facts
    return spec.model_copy(update={"id": id or spec.id, "facts": type(spec.facts)(**data)})


def ids(chain: Chain) -> dict[str, str]:
    return {role: spec.id for role, spec in chain.parts.items()}


def refusal(task: Task, pool: Pool, **options: Any) -> RoutingError:
    with pytest.raises(RoutingError) as caught:
        find_chain(task, pool, **options)
    return caught.value


CODES_CHAIN = {
    "generator": "fake-generator",
    "codec": "fake-codec",
    "speaker_encoder": "fake-speaker-encoder",
}
TEXT_PARTS = {"content_generator": "fake-text-generator", "frontend": "fake-frontend"}


# Chains -----------------------------------------------------------------------------------


def test_synthesize_takes_the_shortest_chain() -> None:
    chain = find_chain("synthesize", Pool(FAKE_SPECS))
    assert ids(chain) == {
        "frontend": "fake-frontend",
        "generator": "fake-feature-generator",
        "vocoder": "fake-vocoder",
    }


def test_synthesize_over_codes_when_the_generator_is_asked_for() -> None:
    chain = find_chain(
        "synthesize", Pool(FAKE_SPECS), wanted={"content_generator": "fake-text-generator"}
    )
    assert ids(chain) == {**CODES_CHAIN, **TEXT_PARTS}


def test_synthesize_with_a_voice_takes_a_generator_that_has_one() -> None:
    chain = find_chain("synthesize", Pool(FAKE_SPECS), has_voice=True)
    assert ids(chain) == {**CODES_CHAIN, **TEXT_PARTS}


def test_edit_by_text_needs_an_aligner_and_a_tokenizer() -> None:
    chain = find_chain("edit", Pool(FAKE_SPECS))
    expected = {
        **CODES_CHAIN, **TEXT_PARTS, "aligner": "fake-aligner", "tokenizer": "fake-tokenizer"
    }  # fmt: skip
    assert ids(chain) == expected


def test_edit_by_spans_needs_no_aligner() -> None:
    chain = find_chain("edit", without(ALIGNER), has_spans=True)
    assert "aligner" not in chain
    assert chain.spec("tokenizer") == TOKENIZER


def test_continue_with_and_without_text() -> None:
    with_text = find_chain("continue", Pool(FAKE_SPECS))
    assert ids(with_text) == {**CODES_CHAIN, **TEXT_PARTS, "tokenizer": "fake-tokenizer"}
    assert ids(find_chain("continue", Pool(FAKE_SPECS), has_text=False)) == CODES_CHAIN


def test_convert_takes_its_content_from_the_recording() -> None:
    chain = find_chain("convert", Pool(FAKE_SPECS), has_text=False, has_voice=True)
    assert ids(chain) == {**CODES_CHAIN, "tokenizer": "fake-tokenizer"}


def test_a_transcript_is_used_by_a_generator_that_could_do_without() -> None:
    both = changed(
        FEATURE_GENERATOR,
        tasks=("synthesize", "convert"),
        content=("phones:letters", "tokens:fake-units"),
    )
    wanted: dict[Role, str] = {"generator": both.id}
    told = find_chain("convert", swapped(both), wanted=wanted)
    heard = find_chain("convert", swapped(both), wanted=wanted, has_text=False)
    assert "aligner" in told
    assert "tokenizer" not in told
    assert "tokenizer" in heard
    assert "aligner" not in heard
    # Nothing finds the words in the recording: it is read after all.
    unaligned = Pool([spec for spec in swapped(both)._specs if spec.kind != "aligner"])
    assert "tokenizer" in find_chain("convert", unaligned, wanted=wanted)


def test_links_stand_in_the_order_of_the_data() -> None:
    chain = find_chain("edit", Pool(FAKE_SPECS))
    roles = [link.role for link in chain.links]
    assert roles == [role for role in ROLES if role in chain]
    for link in chain.links:
        assert link.spec is chain.spec(link.role)


def test_describe_names_every_part_and_to_json_is_plain() -> None:
    import json

    chain = find_chain("edit", Pool(FAKE_SPECS))
    table = str(chain)
    assert table.startswith("edit:\n")
    for role, spec in chain.parts.items():
        assert any(role in line and spec.id in line for line in table.splitlines())
    data = json.loads(json.dumps(chain.to_json()))
    assert [row["id"] for row in data["links"]] == [link.spec.id for link in chain.links]


def test_spec_of_a_role_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        find_chain("synthesize", Pool(FAKE_SPECS)).spec("codec")


def test_ties_go_to_the_first_id_whatever_the_order_of_the_pool() -> None:
    twin = changed(CODEC, id="a-codec")
    for specs in ([*FAKE_SPECS, twin], [twin, *reversed(FAKE_SPECS)]):
        pool = Pool(specs)
        chains = [find_chain("convert", pool, has_voice=True) for _ in range(3)]
        assert {chain.spec("codec").id for chain in chains} == {"a-codec"}


def test_a_chain_with_no_bridge_is_preferred() -> None:
    slow = changed(TOKENIZER, id="a-tokenizer", frame_rate=25)
    chain = find_chain("convert", swapped(slow), has_voice=True)
    assert chain.spec("tokenizer") == TOKENIZER
    assert chain.bridges == ()


def test_weights_at_hand_go_before_weights_to_fetch(tmp_path: Path) -> None:
    there = tmp_path / "weights"
    there.mkdir()
    for checkpoint, chosen in (
        ("someone/on-a-hub", CODEC.id),
        (str(tmp_path / "missing"), CODEC.id),
        (str(there), "a-codec"),
        ("package:some_voice/weights", "a-codec"),
        (0, CODEC.id),  # what only the component understands harms nobody's search
        ({"weights": str(there)}, CODEC.id),
    ):
        first = changed(CODEC, id="a-codec").model_copy(
            update={"options": {"checkpoint": checkpoint}}
        )
        chain = find_chain("convert", Pool([*FAKE_SPECS, first]), has_voice=True)
        assert chain.spec("codec").id == chosen


def test_another_frame_rate_of_the_units_is_bridged_and_said() -> None:
    chain = find_chain("convert", swapped(changed(TOKENIZER, frame_rate=25)), has_voice=True)
    (bridge,) = chain.bridges
    assert "25 Hz -> 50 Hz" in bridge
    assert bridge in chain.describe()
    assert chain.to_json()["bridges"] == [bridge]


def test_a_content_generator_at_another_rate_is_bridged() -> None:
    fast = changed(TEXT_GENERATOR, frame_rate=Fraction(44_100, 512))
    chain = find_chain("synthesize", swapped(fast), has_voice=True)
    assert "86.1328 Hz -> 50 Hz" in chain.bridges[0]


# Policy -----------------------------------------------------------------------------------


def test_the_policy_gets_the_preferred_order_and_may_turn_it_round() -> None:
    seen: list[list[Chain]] = []

    def last_first(chains: list[Chain]) -> list[Chain]:
        seen.append(list(chains))
        return chains[::-1]

    chain = find_chain("synthesize", Pool(FAKE_SPECS), policy=last_first)
    assert chain.spec("generator") == GENERATOR
    assert seen[0][0].spec("generator") == FEATURE_GENERATOR
    assert [len(c.parts) for c in seen[0]] == sorted(len(c.parts) for c in seen[0])


@pytest.mark.parametrize("answer", [None, []])
def test_a_policy_with_no_answer_changes_nothing(answer: list[Chain] | None) -> None:
    chain = find_chain("synthesize", Pool(FAKE_SPECS), policy=lambda chains: answer)
    assert chain == find_chain("synthesize", Pool(FAKE_SPECS))


def test_a_policy_is_not_asked_about_nothing() -> None:
    def fail(chains: list[Chain]) -> list[Chain]:
        raise AssertionError("asked with no chain")

    refusal("synthesize", Pool([]), policy=fail)


# Refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["sing", "", "Synthesize", "continue_"])
def test_no_such_task(task: Any) -> None:
    with pytest.raises(UsageError, match="synthesize, edit, continue, convert"):
        find_chain(task, Pool(FAKE_SPECS))


@pytest.mark.parametrize("task", TASKS)
def test_nothing_installed(task: Task) -> None:
    error = refusal(task, Pool([]))
    assert "no generator is installed" in str(error)
    assert error.reasons


CODES = "codes:fake-codes"


def test_another_codec_names_both_and_what_would_fit() -> None:
    other = changed(CODEC, id="other-codec", codes="other")
    error = refusal(
        "convert", swapped(other), has_voice=True, wanted={"codec": "other-codec"}
    )  # fmt: skip
    text = str(error)
    assert "fake-generator gives codes:fake-codes" in text
    assert "other-codec plays codes:other" in text
    assert "codec fake-codec would fit" in text


def test_another_codec_and_nothing_that_fits() -> None:
    error = refusal("convert", swapped(changed(CODEC, codes="other")), has_voice=True)
    assert "codes:fake-codes" in str(error)
    assert "codes:other" in str(error)
    assert "would fit" not in str(error)


@pytest.mark.parametrize(
    ("facts", "name", "mine", "theirs"),
    [
        ({"frame_rate": 75}, "frame rate", "50", "75"),
        ({"codebooks": 4}, "codebooks", "8", "4"),
        ({"codebook_size": 1024}, "ids per codebook", "256", "1024"),
    ],
)
def test_a_codec_of_the_same_name_and_another_layout(
    facts: Mapping[str, int], name: str, mine: str, theirs: str
) -> None:
    error = refusal("convert", swapped(changed(CODEC, **facts)), has_voice=True)
    assert f"{name}: generator fake-generator has {mine}, but codec fake-codec has {theirs}" in (
        str(error)
    )


def test_frame_rates_that_print_alike_are_still_different() -> None:
    exact = Fraction(44_100, 512)
    near = exact + Fraction(1, 10**9)
    pool = swapped(changed(GENERATOR, frame_rate=exact), changed(CODEC, frame_rate=near))
    assert "frame rate" in str(refusal("convert", pool, has_voice=True))


def test_no_codec_installed() -> None:
    assert "no codec is installed" in str(refusal("convert", without(CODEC), has_voice=True))


def test_no_vocoder_installed() -> None:
    pool = Pool([FEATURE_GENERATOR, FRONTEND])
    assert "no vocoder is installed" in str(refusal("synthesize", pool))


def mel_generator(mel: MelSpec) -> ComponentSpec:
    facts = {"gives": f"features:{mel.kind}", "frame_rate": mel.frame_rate}
    return FEATURE_GENERATOR.model_copy(
        update={"facts": FEATURE_GENERATOR.facts.model_copy(update=facts)}
    )


def mel_vocoder(id_: str, mel: MelSpec, *, any_mel: bool) -> ComponentSpec:
    facts = VocoderFacts(
        features=mel.kind,
        size=mel.bands,
        sample_rate=mel.rate,
        frame_rate=mel.frame_rate,
        any_mel=any_mel,
    )
    return VOCODER.model_copy(update={"id": id_, "facts": facts})


def test_a_vocoder_for_any_mel_is_fitted_to_the_generators() -> None:
    fallback = mel_vocoder("any", RTVC_SYNTHESIZER, any_mel=True)
    pool = swapped(mel_generator(TACOTRON2), fallback)
    chain = find_chain("synthesize", pool, wanted={"generator": FEATURE_GENERATOR.id})
    facts = chain.spec("vocoder").facts
    assert isinstance(facts, VocoderFacts)
    assert (facts.features, facts.sample_rate) == (TACOTRON2.kind, 22050)
    assert facts.frame_rate == TACOTRON2.frame_rate
    assert "22050 Hz" in chain.describe()


def test_a_vocoder_made_for_the_mel_goes_before_the_fallback() -> None:
    fallback = mel_vocoder("any", RTVC_SYNTHESIZER, any_mel=True)
    own = mel_vocoder("made-for-it", TACOTRON2, any_mel=False)
    pool = swapped(mel_generator(TACOTRON2), fallback, own)
    wanted: dict[Role, str] = {"generator": FEATURE_GENERATOR.id}
    assert find_chain("synthesize", pool, wanted=wanted).spec("vocoder").id == "made-for-it"
    wanted["vocoder"] = "any"
    assert find_chain("synthesize", pool, wanted=wanted).spec("vocoder").id == "any"


def test_a_vocoder_for_any_mel_plays_nothing_else() -> None:
    pool = Pool(
        [
            *(spec for spec in FAKE_SPECS if spec.kind not in ("generator", "vocoder")),
            FEATURE_GENERATOR,
            mel_vocoder("any", RTVC_SYNTHESIZER, any_mel=True),
        ]
    )
    assert "vocoder any takes features:mel-" in str(refusal("synthesize", pool))


def test_a_vocoder_of_other_features_or_another_rate() -> None:
    pool = Pool([FEATURE_GENERATOR, FRONTEND, changed(VOCODER, features="mel")])
    text = str(refusal("synthesize", pool))
    assert "features:fake-blocks at 50 Hz" in text
    assert "features:mel" in text
    pool = Pool([FEATURE_GENERATOR, FRONTEND, changed(VOCODER, frame_rate=80)])
    assert "80 Hz" in str(refusal("synthesize", pool))


def test_another_vocabulary_of_the_tokenizer() -> None:
    error = refusal("convert", swapped(changed(TOKENIZER, vocabulary="km100")), has_voice=True)
    assert "takes tokens:fake-units" in str(error)
    assert "tokenizer fake-tokenizer gives tokens:km100" in str(error)


@pytest.mark.parametrize("task", ["edit", "continue", "convert"])
def test_no_tokenizer_installed(task: Task) -> None:
    error = refusal(task, without(TOKENIZER), has_voice=True)
    assert "tokens:fake-units" in str(error)
    assert "no tokenizer" in str(error)
    assert "no generator is installed" not in str(error)


def test_the_tokenizer_beside_a_content_generator_must_run_at_its_rate() -> None:
    error = refusal("edit", swapped(changed(TOKENIZER, frame_rate=25)))
    assert "at 50 Hz" in str(error)
    assert "at 25 Hz" in str(error)


def test_another_alphabet_of_the_aligner() -> None:
    error = refusal("edit", swapped(changed(ALIGNER, alphabet="ipa")))
    assert "phones:letters" in str(error)
    assert "aligner fake-aligner takes phones:ipa" in str(error)


def test_no_aligner_offers_spans() -> None:
    assert "give the spans in seconds" in str(refusal("edit", without(ALIGNER)))


def test_another_alphabet_of_the_front_end() -> None:
    other = changed(FRONTEND, alphabet="ipa")
    error = refusal("synthesize", swapped(other))
    assert "phones:letters" in str(error)
    assert "front end fake-frontend gives phones:ipa" in str(error)


def test_no_front_end_installed() -> None:
    assert "no front end is installed" in str(refusal("synthesize", without(FRONTEND)))


def test_another_kind_of_voice() -> None:
    other = changed(SPEAKER_ENCODER, voice="xvector")
    error = refusal("convert", swapped(other), has_voice=True)
    assert "takes voice fake-voice" in str(error)
    assert "fake-speaker-encoder gives xvector" in str(error)


def test_a_voice_asked_of_a_generator_that_takes_none() -> None:
    pool = Pool([FEATURE_GENERATOR, VOCODER, FRONTEND])
    assert "takes no voice" in str(refusal("synthesize", pool, has_voice=True))


def test_a_required_voice_with_no_encoder() -> None:
    pool = Pool(
        [changed(GENERATOR, voice_required=True), CODEC, TEXT_GENERATOR, FRONTEND, TOKENIZER]
    )
    assert "no speaker encoder gives it" in str(refusal("synthesize", pool))


def test_an_optional_voice_with_no_encoder_is_left_out() -> None:
    pool = without(SPEAKER_ENCODER)
    assert "speaker_encoder" not in find_chain("edit", pool)


def test_a_content_generator_whose_required_voice_nobody_gives() -> None:
    picky = changed(TEXT_GENERATOR, voice="prosody", voice_size=3, voice_required=True)
    error = refusal("edit", swapped(picky))
    assert "needs voice prosody" in str(error)
    assert "fake-voice" in str(error)


def test_a_task_that_is_not_claimed() -> None:
    error = refusal("edit", Pool([FEATURE_GENERATOR, VOCODER, FRONTEND]))
    assert "fake-feature-generator does synthesize, not edit" in str(error)


def test_a_token_generator_in_the_place_of_the_generator() -> None:
    error = refusal("synthesize", Pool(FAKE_SPECS), wanted={"generator": "fake-text-generator"})
    assert "tokens:fake-units, which nothing plays" in str(error)
    assert "content_generator" in str(error)


def test_a_content_generator_that_gives_something_else() -> None:
    other = changed(TEXT_GENERATOR, id="other-text", gives="tokens:other")
    error = refusal(
        "synthesize", swapped(other), wanted={"content_generator": "other-text"}, has_voice=True
    )
    assert "takes tokens:fake-units, but other-text gives tokens:other" in str(error)


def test_features_cannot_be_edited_nor_continued() -> None:
    every = changed(FEATURE_GENERATOR, tasks=TASKS)
    for task in ("edit", "continue"):
        error = refusal(task, Pool([every, VOCODER, FRONTEND, ALIGNER]))
        assert "cannot be brought into" in str(error)


def test_audio_cannot_be_edited() -> None:
    whole = changed(FEATURE_GENERATOR, tasks=TASKS, gives="audio", sample_rate=22_050)
    error = refusal("edit", Pool([whole, FRONTEND, ALIGNER]))
    assert "cannot keep what is known" in str(error)
    assert ids(find_chain("synthesize", Pool([whole, FRONTEND]))) == {
        "generator": "fake-feature-generator",
        "frontend": "fake-frontend",
    }


def test_continue_without_text_must_be_claimed() -> None:
    error = refusal("continue", swapped(changed(GENERATOR, free_tasks=())), has_text=False)
    assert "fake-generator cannot continue without text" in str(error)


@pytest.mark.parametrize(
    ("role", "wrong", "right"),
    [
        ("codec", "fake-codek", "fake-codec"),
        ("generator", "fake-generater", "fake-generator"),
        ("tokenizer", "faketokenizer", "fake-tokenizer"),
        ("frontend", "fake-front-end", "fake-frontend"),
        ("aligner", "fake-alinger", "fake-aligner"),
        ("speaker_encoder", "fake-speaker-enc", "fake-speaker-encoder"),
    ],
)
def test_an_unknown_id_gets_the_closest_one(role: Role, wrong: str, right: str) -> None:
    error = refusal("edit", Pool(FAKE_SPECS), wanted={role: wrong})
    assert wrong in str(error)
    assert f"did you mean {right}?" in str(error)


def test_an_unknown_id_that_is_close_to_nothing_gets_the_list() -> None:
    error = refusal("convert", Pool(FAKE_SPECS), wanted={"codec": "zzz"}, has_voice=True)
    assert "installed: fake-codec" in str(error)
    assert "did you mean" not in str(error)


@pytest.mark.parametrize(
    ("task", "role", "id_", "options"),
    [
        ("synthesize", "aligner", "fake-aligner", {}),
        ("synthesize", "tokenizer", "fake-tokenizer", {}),
        ("synthesize", "codec", "fake-codec", {"wanted": {"vocoder": "fake-vocoder"}}),
        ("edit", "vocoder", "fake-vocoder", {}),
        ("edit", "aligner", "fake-aligner", {"has_spans": True}),
        ("continue", "aligner", "fake-aligner", {}),
        ("continue", "frontend", "fake-frontend", {"has_text": False}),
        ("continue", "tokenizer", "fake-tokenizer", {"has_text": False}),
        ("convert", "frontend", "fake-frontend", {"has_voice": True}),
        ("convert", "content_generator", "fake-text-generator", {"has_voice": True}),
    ],
)
def test_a_wanted_part_with_no_place_is_never_dropped(
    task: Task, role: Role, id_: str, options: dict[str, Any]
) -> None:
    wanted = {**options.pop("wanted", {}), role: id_}
    error = refusal(task, Pool(FAKE_SPECS), wanted=wanted, **options)
    assert any(role in reason and id_ in reason for reason in error.reasons)


def test_long_lists_of_reasons_are_counted() -> None:
    pool = Pool([changed(CODEC, id=f"codec{i}", codes=f"c{i}") for i in range(9)] + [GENERATOR])
    error = refusal("convert", pool)
    assert len(error.reasons) == 9
    assert "and 5 more reasons" in str(error)


def test_reasons_are_told_once() -> None:
    error = refusal("edit", swapped(changed(CODEC, codes="other")))
    assert len(set(error.reasons)) == len(error.reasons)


# Any set of specs -------------------------------------------------------------------------

NAMES = st.sampled_from(["x", "y"])
RATES = st.sampled_from([Fraction(25), Fraction(50), Fraction(44_100, 512)])
KINDS_OF_CONTENT = st.sampled_from(["phones:x", "phones:y", "tokens:x", "tokens:y"])
SOME_TASKS = st.lists(st.sampled_from(TASKS), min_size=1, max_size=4, unique=True)


@st.composite
def generator_facts(draw: st.DrawFn) -> GeneratorFacts:
    gives = draw(st.sampled_from(["tokens:x", "tokens:y", "codes:x", "codes:y", "features:x"]))
    voice = draw(st.none() | NAMES)
    return GeneratorFacts(
        tasks=tuple(draw(SOME_TASKS)),
        content=tuple(draw(st.lists(KINDS_OF_CONTENT, max_size=3, unique=True))),
        gives=gives,
        frame_rate=draw(RATES),
        codebooks=1 if gives.startswith("tokens") else draw(st.sampled_from([4, 8])),
        codebook_size=draw(st.sampled_from([64, 128])),
        free_tasks=draw(st.sampled_from([(), ("continue",)])),
        voice=voice,
        voice_required=voice is not None and draw(st.booleans()),
    )


FACTS = st.one_of(
    generator_facts(),
    generator_facts(),
    st.builds(
        TokenizerFacts, vocabulary=NAMES, vocabulary_size=st.just(64), sample_rate=st.just(16_000),
        frame_rate=RATES,
    ),
    st.builds(
        CodecFacts, codes=NAMES, sample_rate=st.just(16_000), frame_rate=RATES,
        codebooks=st.sampled_from([4, 8]), codebook_size=st.sampled_from([64, 128]),
    ),
    st.builds(
        VocoderFacts, features=NAMES, size=st.just(4), sample_rate=st.just(16_000),
        frame_rate=RATES,
    ),
    st.builds(
        FrontendFacts, alphabet=NAMES, phones=st.just(("_", "a")), pause=st.just("_"),
        languages=st.just(("en",)),
    ),
    st.builds(
        SpeakerEncoderFacts, voice=NAMES, size=st.just(4), sample_rate=st.just(16_000)
    ),
    st.builds(
        AlignerFacts, alphabet=NAMES, sample_rate=st.just(16_000), frame_rate=RATES,
        languages=st.just(("en",)),
    ),
)  # fmt: skip


@st.composite
def pools(draw: st.DrawFn) -> list[ComponentSpec]:
    facts = draw(st.lists(FACTS, max_size=14))
    return [
        ComponentSpec(
            id=f"part{i}", implementation="a.b:C", facts=one, summary="random", license="MIT"
        )
        for i, one in enumerate(facts)
    ]


@settings(max_examples=200, deadline=None)
@given(
    specs=pools(),
    task=st.sampled_from(TASKS),
    has_text=st.booleans(),
    has_spans=st.booleans(),
    has_voice=st.booleans(),
    wish=st.none() | st.tuples(st.sampled_from(sorted(ROLES)), st.integers(0, 13)),
)
def test_any_specs_give_a_chain_that_fits_or_a_reason(
    specs: list[ComponentSpec],
    task: Task,
    has_text: bool,
    has_spans: bool,
    has_voice: bool,
    wish: tuple[Role, int] | None,
) -> None:
    wanted: dict[Role, str] = {} if wish is None else {wish[0]: f"part{wish[1]}"}
    options: dict[str, Any] = {
        "wanted": wanted, "has_text": has_text, "has_spans": has_spans, "has_voice": has_voice
    }  # fmt: skip
    chain = chain_or_refusal(task, Pool(specs), options)
    if isinstance(chain, RoutingError):
        assert chain.reasons
        assert all(reason in str(chain) for reason in chain.reasons[:4])
        return
    check_chain(chain, has_text=has_text, has_spans=has_spans, has_voice=has_voice)
    assert all(chain.spec(role).id == id_ for role, id_ in wanted.items())
    assert chain == find_chain(task, Pool(specs[::-1]), **options)
    chain.describe()


def chain_or_refusal(task: Task, pool: Pool, options: dict[str, Any]) -> Chain | RoutingError:
    try:
        return find_chain(task, pool, **options)
    except RoutingError as error:
        return error


def check_chain(chain: Chain, *, has_text: bool, has_spans: bool, has_voice: bool) -> None:
    """Every two neighbours agree, and nothing that the task needs is missing."""
    facts: dict[str, Any] = {role: spec.facts for role, spec in chain.parts.items()}
    for role, spec in chain.parts.items():
        assert spec.kind == ROLES[role]
    generator = facts["generator"]
    assert chain.task in generator.tasks
    if "codec" in chain:
        codec = facts["codec"]
        assert (generator.gives, generator.frame_rate) == (codec.takes, codec.frame_rate)
        assert generator.codebooks == codec.codebooks
        assert generator.codebook_size == codec.codebook_size
    else:
        assert generator.gives == facts["vocoder"].takes
        assert generator.frame_rate == facts["vocoder"].frame_rate
        assert chain.task in ("synthesize", "convert")
    if "speaker_encoder" in chain:
        assert facts["speaker_encoder"].voice == generator.voice
    else:
        assert not generator.voice_required
        assert not has_voice
    speaker = facts.get("content_generator", generator)
    if "content_generator" in chain:
        assert speaker.gives in generator.content
        assert chain.task in speaker.tasks
        assert bool(chain.bridges) == (speaker.frame_rate != generator.frame_rate)
    if chain.task == "convert":
        assert facts["tokenizer"].gives in generator.content
        assert "frontend" not in chain
        assert bool(chain.bridges) == (facts["tokenizer"].frame_rate != generator.frame_rate)
    elif has_text:
        assert facts["frontend"].gives in speaker.content
        assert ("aligner" in chain) == (chain.task == "edit" and not has_spans)
        if "aligner" in chain:
            assert facts["aligner"].alphabet == facts["frontend"].alphabet
    else:
        assert chain.task in generator.free_tasks
