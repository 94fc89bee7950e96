"""SpeechSEC between any tokenizer and any codec, before anybody has trained it.

`untrained` builds a whole pipeline of tiny random networks with the facts of the real ones: rates,
codebooks, vocabularies. What it says is noise, but everything around it is as it will be: the
chain that the router takes, lengths, seams, formats. Once generators for the pair are trained and
installed, ``Pipeline(parts={"codec": pair.codec})`` is the same pipeline with weights.
"""

from __future__ import annotations

from typing import Any

from speechloom.compatibility import Composition, generator_between
from speechloom.hooks import Hooks
from speechloom.loading import implementation
from speechloom.pipeline import Pipeline
from speechloom.registry import Registry, default_registry
from speechloom.spec import ComponentSpec, FrontendFacts, Kind, TokenizerFacts
from speechloom_speechsec.checkpoint import THIRDS
from speechloom_speechsec.generator import SpeechSECGenerator
from speechloom_speechsec.text_generator import SpeechSECTextGenerator

__all__ = ["untrained"]


def untrained(
    pair: Composition,
    *,
    frontend: str | None = None,
    aligner: str | None = None,
    voice: str | None = None,
    registry: Registry | None = None,
    seed: int = 0,
) -> Pipeline:
    """A pipeline of tiny random networks for a pair of tokenizer and codec.

    Args:
        pair: such as those of `speechloom.compatibility.SPEECHSEC_PAIRS`, or of your own.
        frontend: id of the front end for text; without it there is no synthesis, and continuations
            and edits have no words.
        aligner: id of the aligner that finds what an edit changes.
        voice: id of the speaker encoder; without it nothing is converted.
        registry: where the specs come from; the installed ones by default.
        seed: of all weights.

    Raises:
        PluginError: one of them is not installed.
    """
    installed = registry or default_registry()
    wanted: dict[Kind, str | None] = {
        "tokenizer": pair.tokenizer,
        "codec": pair.codec,
        "frontend": frontend,
        "aligner": aligner,
        "speaker_encoder": voice,
    }
    made = Registry(entry_points=(), environ={})
    specs: dict[Kind, ComponentSpec] = {}
    for kind, id_ in wanted.items():
        if id_ is not None:
            specs[kind] = _register_random(made, installed, kind, id_, seed)
    for generator in _generators(specs):
        cls = SpeechSECTextGenerator if "phones" in generator.options else SpeechSECGenerator
        made.register(cls.from_random(generator, seed=seed))
    return Pipeline(registry=made, hooks=Hooks(entry_points=(), environ={}))


def _register_random(
    made: Registry, installed: Registry, kind: Kind, id_: str, seed: int
) -> ComponentSpec:
    """Build a component of an installed spec with random weights, and add it."""
    record = installed.get(kind, id_)
    assert record.spec is not None, f"{record.label} is usable"
    component: Any = implementation(record, record.spec).from_random(record.spec, seed=seed)
    made.register(component)
    return record.spec


def _generators(specs: dict[Kind, ComponentSpec]) -> list[ComponentSpec]:
    """From units to codes, and with a front end from text to units."""
    tokenizer, codec = specs["tokenizer"], specs["codec"]
    assert isinstance(tokenizer.facts, TokenizerFacts)
    voice = specs.get("speaker_encoder")
    found = [
        generator_between(
            tokenizer,
            codec,
            id="untrained-units-to-codes",
            implementation="speechloom_speechsec.generator:SpeechSECGenerator",
            voice=voice,
            options={"content_vocab": tokenizer.facts.vocabulary_size},
        )
    ]
    frontend = specs.get("frontend")
    if frontend is not None:
        assert isinstance(frontend.facts, FrontendFacts)
        phones = list(frontend.facts.phones)
        found.append(
            generator_between(
                frontend,
                tokenizer,
                id="untrained-text-to-units",
                implementation="speechloom_speechsec.text_generator:SpeechSECTextGenerator",
                options={"content_vocab": THIRDS * len(phones), "phones": phones},
            )
        )
    return found
