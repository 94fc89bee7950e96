"""The registry: lookup, loading, in-process components, errors that help."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from speechloom.errors import (
    BackendUnavailable,
    PluginLoadError,
    PluginNotFound,
    UsageError,
    WeightsError,
)
from speechloom.mel import RTVC_SYNTHESIZER, TACOTRON2
from speechloom.registry import Registry, Status, default_registry
from speechloom.spec import CodecFacts, ComponentSpec, FrontendFacts, VocoderFacts
from speechloom.values import Phones


def frontend_spec(id="letters"):
    return ComponentSpec(
        id=id,
        implementation="somewhere:Letters",
        facts=FrontendFacts(
            alphabet="letters", phones=("pau", "a"), pause="pau", languages=("en",)
        ),
        summary="Letters",
        license="MIT",
    )


class Letters:
    weights: dict[str, str] = {}

    def __init__(self, spec, device="cpu"):
        self.spec = spec
        self.device = device

    @classmethod
    def from_pretrained(cls, spec, *, device="cpu"):
        return cls(spec, device)

    @classmethod
    def from_random(cls, spec, *, seed=0):
        return cls(spec)

    def phonemize(self, text, *, lexicon=None):
        return [Phones(tuple(text), "letters")]


def empty():
    return Registry((), {})


def test_a_component_is_built_once_per_device(plugins):
    plugins.add("letters")
    registry = plugins.registry()
    first = registry.load("frontend", "letters")
    assert registry.load("frontend", "speechloom-letters:letters") is first
    other = registry.load("frontend", "letters", device="meta")
    assert other is not first
    assert (first.device, other.device) == ("cpu", "meta")
    assert registry.get("frontend", "letters").status is Status.loaded


def test_nothing_is_imported_before_it_is_loaded(plugins):
    module = plugins.add("letters")
    registry = plugins.registry()
    assert registry.records()
    assert f"{module}.frontend" not in sys.modules
    registry.load("frontend", "letters")
    assert f"{module}.frontend" in sys.modules


def test_threads_build_it_once(plugins):
    plugins.add(
        "letters",
        implementation="""
        import time
        class LettersFrontend:
            weights = {}
            built = []
            def __init__(self, spec):
                self.spec = spec
            @classmethod
            def from_pretrained(cls, spec, *, device="cpu"):
                time.sleep(0.02)
                cls.built.append(1)
                return cls(spec)
            from_random = from_pretrained
            def phonemize(self, text, *, lexicon=None):
                return []
        """,
    )
    registry = plugins.registry()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(registry.load("frontend", "letters")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(component) for component in found}) == 1
    assert type(found[0]).built == [1]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("lettres", "did you mean 'letters'"),
        ("Letters", "did you mean 'letters'"),
        ("speechloom-leters:letters", "did you mean 'speechloom-letters:letters'"),
        ("quite-other", "installed are letters"),
        ("starter-frontend", "pip install speechloom-starter"),
    ],
)
def test_an_unknown_id_gets_a_hint(plugins, asked, said):
    plugins.add("letters")
    with pytest.raises(PluginNotFound) as caught:
        plugins.registry().get("frontend", asked)
    assert said in str(caught.value)
    assert caught.value.plugin == f"frontend/{asked}"


def test_an_id_of_another_kind_is_said_to_be_one(plugins):
    plugins.add("letters")
    with pytest.raises(PluginNotFound, match="'letters' is a frontend, not a codec"):
        plugins.registry().get("codec", "letters")
    with pytest.raises(PluginNotFound, match="not an aligner"):
        plugins.registry().load("aligner", "letters")


def test_no_component_of_a_kind_at_all():
    with pytest.raises(PluginNotFound, match="no codec is installed"):
        empty().get("codec", "dac-x")


@pytest.mark.parametrize("call", ["records", "specs", "get"])
def test_an_unknown_kind_lists_the_kinds(call):
    arguments = ("codecs", "x") if call == "get" else ("codecs",)
    with pytest.raises(UsageError, match="tokenizer, codec, generator"):
        getattr(empty(), call)(*arguments)


@pytest.mark.parametrize(
    ("implementation", "said"),
    [
        ("raise OSError('libtorchaudio.so')", "OSError: libtorchaudio.so"),
        ("import speechloom_letters.gone", "speechloom_letters.gone"),
        ("x = 1", "which is not a class"),
        ("LettersFrontend = 3", "which is not a class"),
        ("class LettersFrontend:\n    pass", "lacks from_pretrained, from_random, phonemize"),
    ],
)
def test_an_implementation_that_cannot_be_used(plugins, implementation, said):
    plugins.add("letters", implementation=implementation)
    with pytest.raises(PluginLoadError) as caught:
        plugins.registry().load("frontend", "letters")
    assert said in str(caught.value)
    assert "speechloom-letters" in str(caught.value)
    if "Error" in said:
        assert isinstance(caught.value.__cause__, OSError)


def test_a_package_that_is_missing_after_all_gives_the_install_hint(plugins):
    plugins.add("letters", implementation="import nobody_has_this.thing")
    with pytest.raises(BackendUnavailable, match="pip install nobody_has_this") as caught:
        plugins.registry().load("frontend", "letters")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        ("RuntimeError('no memory')", PluginLoadError),
        ("WeightsError('damaged')", WeightsError),
        ("ModuleNotFoundError('No module named zz', name='zz')", BackendUnavailable),
    ],
)
def test_failures_while_building(plugins, raised, error):
    plugins.add(
        "letters",
        implementation=f"""
        from speechloom.errors import WeightsError
        class LettersFrontend:
            @classmethod
            def from_pretrained(cls, spec, *, device="cpu"):
                raise {raised}
            from_random = phonemize = from_pretrained
        """,
    )
    registry = plugins.registry()
    with pytest.raises(error):
        registry.load("frontend", "letters")
    assert registry.get("frontend", "letters").status is Status.available


def test_an_instance_without_weights_is_refused(plugins):
    plugins.add(
        "letters",
        implementation="""
        class LettersFrontend:
            @classmethod
            def from_pretrained(cls, spec, *, device="cpu"):
                return cls()
            from_random = phonemize = from_pretrained
        """,
    )
    with pytest.raises(PluginLoadError, match="lacks spec and weights"):
        plugins.registry().load("frontend", "letters")


def test_an_instance_can_be_registered():
    registry = empty()
    letters = Letters(frontend_spec())
    registry.register(letters)
    assert registry.load("frontend", "letters") is letters
    assert registry.load("frontend", "letters", device="meta") is letters
    record = registry.get("frontend", "in-process:letters")
    assert record.status is Status.loaded
    assert record.distribution is None
    assert "test_registry.py:" in record.origin
    assert registry.specs("frontend") == (letters.spec,)


def test_a_class_can_be_registered_and_again():
    registry = empty()
    registry.register(Letters, spec=frontend_spec())
    first = registry.load("frontend", "letters", device="meta")
    assert first.device == "meta"
    registry.register(Letters, spec=frontend_spec())
    assert registry.load("frontend", "letters", device="meta") is not first


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (None, "has no spec"),
        (
            ComponentSpec(
                id="x",
                implementation="a:B",
                facts=CodecFacts(
                    codes="x", sample_rate=8000, frame_rate=50, codebooks=1, codebook_size=2
                ),
                summary="s",
                license="MIT",
            ),
            "cannot be the codec 'x': it lacks decode, encode",
        ),
    ],
)
def test_what_cannot_be_registered(spec, said):
    with pytest.raises(UsageError, match=said):
        empty().register(Letters, spec=spec)


def test_a_registered_component_goes_before_an_installed_one(plugins):
    plugins.add("letters")
    plugins.add("broken", init="raise OSError('no')")
    registry = plugins.registry()
    installed = registry.load("frontend", "letters")
    mine = Letters(frontend_spec())
    registry.register(mine)
    assert registry.load("frontend", "letters") is mine
    assert registry.load("frontend", "speechloom-letters:letters") is installed
    hidden = registry.get("frontend", "speechloom-letters:letters")
    assert hidden.status is Status.shadowed
    assert "registered in this process" in hidden.error
    assert len(registry.specs("frontend")) == 1


def test_override_lasts_as_long_as_its_block(plugins):
    plugins.add("letters")
    registry = plugins.registry()
    before = registry.load("frontend", "letters")
    mine, other = Letters(frontend_spec()), Letters(frontend_spec("other"))
    with registry.override(mine, other):
        assert registry.load("frontend", "letters") is mine
        assert registry.load("frontend", "other") is other
        with registry.override(Letters(frontend_spec())):
            assert registry.load("frontend", "letters") is not mine
        assert registry.load("frontend", "letters") is mine
    assert registry.load("frontend", "letters") is before
    with pytest.raises(PluginNotFound):
        registry.get("frontend", "other")


def test_override_is_undone_after_an_error_and_keeps_what_was_registered():
    registry = empty()
    mine = Letters(frontend_spec())
    registry.register(mine)

    def fail():
        with registry.override(Letters(frontend_spec())):
            registry.register(Letters(frontend_spec("kept")))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert registry.load("frontend", "letters") is mine
    assert registry.get("frontend", "kept")


def test_override_checks_before_it_changes_anything():
    registry = empty()
    with pytest.raises(UsageError, match="has no spec"), registry.override(Letters):
        pass
    assert registry.records() == ()


def test_the_default_registry_is_one():
    assert default_registry() is default_registry()


def test_records_are_sorted_and_filtered(plugins):
    for id in ("b", "a"):
        plugins.add(id)
    registry = plugins.registry()
    assert [record.id for record in registry.records("frontend")] == ["a", "b"]
    assert registry.records("codec") == ()


def test_importing_and_listing_imports_no_torch():
    code = (
        "import sys, speechloom; from speechloom.registry import default_registry; "
        "default_registry().records(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class Humming:
    """A vocoder that can be built for any mel."""

    weights: dict[str, str] = {}

    def __init__(self, spec):
        self.spec = spec

    @classmethod
    def from_pretrained(cls, spec, *, device="cpu"):
        return cls(spec)

    @classmethod
    def from_random(cls, spec, *, seed=0):
        return cls(spec)

    def render(self, features):
        return []


def humming_spec():
    mel = RTVC_SYNTHESIZER
    return ComponentSpec(
        id="humming",
        implementation="somewhere:Humming",
        facts=VocoderFacts(
            features=mel.kind,
            size=mel.bands,
            sample_rate=mel.rate,
            frame_rate=mel.frame_rate,
            any_mel=True,
        ),
        summary="Hums",
        license="MIT",
    )


@pytest.mark.parametrize("given", [Humming(humming_spec()), Humming])
def test_a_component_is_built_once_for_each_kind_of_features(given):
    registry = empty()
    registry.register(given, spec=humming_spec())
    announced = registry.load("vocoder", "humming")
    other = humming_spec().facts.playing(f"features:{TACOTRON2.kind}")
    built = registry.load("vocoder", "humming", facts=other)
    assert announced.spec.facts.sample_rate == 16000
    assert built.spec.facts.sample_rate == 22050
    assert registry.load("vocoder", "humming", facts=other) is built
    assert registry.load("vocoder", "humming") is announced
