"""A speech library of interchangeable parts.

Four tasks, `synthesize`, `edit`, `continue_` and `convert`, run on whatever tokenizers, codecs,
generators and vocoders are installed. The functions here use the defaults; `Pipeline` keeps a
choice of parts; `plan` shows which parts a task would use, and why others do not fit.

    >>> import speechloom
    >>> speech = speechloom.synthesize("Hello there.", seed=1)   # doctest: +SKIP
    >>> speech.save("hello.wav")                                 # doctest: +SKIP

Importing this package does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechloom.chain import Chain, Link, Role
from speechloom.container import AudioLike, load_audio
from speechloom.errors import (
    AudioError,
    BackendUnavailable,
    OutputError,
    PluginConflict,
    PluginError,
    PluginLoadError,
    PluginNotFound,
    RoutingError,
    SpeechloomError,
    TextError,
    UnsupportedCapability,
    UsageError,
    WeightsError,
)
from speechloom.pipeline import Pipeline, Progress, Style
from speechloom.protocols import (
    Aligner,
    Codec,
    Component,
    Frontend,
    Generator,
    SpeakerEncoder,
    Tokenizer,
    Vocoder,
)
from speechloom.registry import Registry, default_registry
from speechloom.spec import (
    API_VERSION,
    AlignerFacts,
    CodecFacts,
    ComponentSpec,
    FrontendFacts,
    GeneratorFacts,
    SpeakerEncoderFacts,
    Task,
    TokenizerFacts,
    VocoderFacts,
)
from speechloom.speech import Alignment, Region, Request, Span, Speech
from speechloom.values import Audio, Canvas, Codes, Features, Phones, Tokens, Voice

__all__ = [
    "API_VERSION",
    "Aligner",
    "AlignerFacts",
    "Alignment",
    "Audio",
    "AudioError",
    "AudioLike",
    "BackendUnavailable",
    "Canvas",
    "Chain",
    "Codec",
    "CodecFacts",
    "Codes",
    "Component",
    "ComponentSpec",
    "Features",
    "Frontend",
    "FrontendFacts",
    "Generator",
    "GeneratorFacts",
    "Link",
    "OutputError",
    "Phones",
    "Pipeline",
    "PluginConflict",
    "PluginError",
    "PluginLoadError",
    "PluginNotFound",
    "Progress",
    "Region",
    "Registry",
    "Request",
    "Role",
    "RoutingError",
    "Span",
    "SpeakerEncoder",
    "SpeakerEncoderFacts",
    "Speech",
    "SpeechloomError",
    "Style",
    "Task",
    "TextError",
    "Tokenizer",
    "TokenizerFacts",
    "Tokens",
    "UnsupportedCapability",
    "UsageError",
    "Vocoder",
    "VocoderFacts",
    "Voice",
    "WeightsError",
    "continue_",
    "convert",
    "default_registry",
    "edit",
    "load_audio",
    "plan",
    "replay",
    "synthesize",
]


def synthesize(text: Any, **options: Any) -> Any:
    """Speech from text; see `Pipeline.synthesize` for the options."""
    return Pipeline().synthesize(text, **options)


def edit(audio: Any, **options: Any) -> Any:
    """Change what is said in a recording; see `Pipeline.edit` for the options."""
    return Pipeline().edit(audio, **options)


def continue_(audio: Any, **options: Any) -> Any:
    """Go on where a recording ends; see `Pipeline.continue_` for the options."""
    return Pipeline().continue_(audio, **options)


def convert(audio: Any, **options: Any) -> Any:
    """The same words in another voice; see `Pipeline.convert` for the options."""
    return Pipeline().convert(audio, **options)


def plan(
    task: Task,
    *,
    text: bool = True,
    spans: bool = False,
    voice: bool = False,
    parts: Mapping[Role, str] | None = None,
) -> Chain:
    """The chain that a task would use, found from declared facts, with nothing loaded.

    Args:
        task: ``synthesize``, ``edit``, ``continue`` or ``convert``.
        text: whether the request has text.
        spans: whether an edit is given in seconds.
        voice: whether a voice is asked for.
        parts: component ids by role that must be used.

    Raises:
        RoutingError: no chain fits; the message names the two facts that disagree.
    """
    return Pipeline(parts=parts or {}).plan(task, text=text, spans=spans, voice=voice)


def replay(path: Any, **options: Any) -> Speech:
    """Make the samples of a saved file again; see `speechloom.provenance.replay`."""
    from speechloom.provenance import replay as replay_file

    return replay_file(path, **options)
