"""``speechloom sv2tts``: the three networks one after the other, shown on the way.

The command line imports this each time it starts: what runs a model is imported inside.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechloom.container import load_audio
from speechloom.errors import BackendUnavailable, UsageError
from speechloom.hookspecs import hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechloom.registry import Registry

__all__ = ["speechloom_register_commands", "sv2tts"]

sv2tts = typer.Typer(help="SV2TTS: speaker encoder, Tacotron 2, vocoder.", no_args_is_help=True)
"""The command ``speechloom sv2tts``."""


@hookimpl
def speechloom_register_commands(app: typer.Typer) -> None:
    """Add ``speechloom sv2tts``."""
    app.add_typer(sv2tts, name="sv2tts")


@sv2tts.command()
def example(
    text: Annotated[str, typer.Argument(help="What to say.")],
    voice: Annotated[Path, typer.Option("--voice", help="A recording of the voice.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Audio file; none without it.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="Tacotron 2 to use; the first that takes the voice.")
    ] = None,
    vocoder: Annotated[str | None, typer.Option(help="What plays the mel.")] = None,
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Tiny random networks, to see the path.")
    ] = False,
) -> None:
    """Print the speaker embedding and the mel spectrogram of a text in a voice."""
    from speechloom.filling import Filler
    from speechloom.parts import Parts
    from speechloom.pipeline import Pipeline
    from speechloom.preparing import prepare
    from speechloom.registry import Registry
    from speechloom.speech import Request

    registry = Registry()
    if untrained:
        generator = _random_networks(registry)
    wanted: dict[Any, str] = {"generator": generator or _generator_of(registry)}
    if untrained:
        wanted["speaker_encoder"] = "untrained-ge2e"
    if vocoder is not None:
        wanted["vocoder"] = vocoder
    pipeline = Pipeline(registry=registry, parts=wanted)
    request = Request(task="synthesize", text=text, voice=str(voice), seed=seed)
    parts = Parts(pipeline.plan("synthesize", voice=True), registry)
    prepared = prepare(request, parts)
    filler = Filler("synthesize", parts.generator, frontend=parts.frontend_facts)
    filled = filler.fill(prepared.jobs)

    typer.echo(f"Text: {text}")
    typer.echo(f"Given voice: {voice}")
    (speaker,) = {id(job.voice): job.voice for job in prepared.jobs}.values()
    assert speaker is not None, "the chain has a speaker encoder"
    _show("Speaker Embedding", speaker.vector)
    for number, one in enumerate(filled):
        which = f" {number + 1}" if len(filled) > 1 else ""
        _show(f"Mel-spectrogram data{which}", one.result.numpy())
    if output is not None:
        pipeline.run(request).save(output)
        typer.echo(f"Audio: {output}")


@sv2tts.command()
def attention(
    text: Annotated[str, typer.Argument(help="One sentence.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture (.png, .svg, .pdf).")],
    voice: Annotated[Path | None, typer.Option("--voice", help="A recording of the voice.")] = None,
    generator: Annotated[str | None, typer.Option(help="Tacotron 2 to use.")] = None,
) -> None:
    """Draw which symbol the attention was on at each step, and say what had to be put right."""
    from speechloom.parts import Parts
    from speechloom.pipeline import Pipeline
    from speechloom.registry import Registry
    from speechloom_sv2tts.generator import Tacotron2Generator, trouble

    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "pictures need matplotlib, which is not installed; run `pip install matplotlib`",
            plugin="speechloom-sv2tts",
        ) from error
    registry = Registry()
    pipeline = Pipeline(
        registry=registry, parts={"generator": generator or _generator_of(registry)}
    )
    parts = Parts(pipeline.plan("synthesize", voice=voice is not None), registry)
    speaker = parts.generator
    if not isinstance(speaker, Tacotron2Generator):
        raise UsageError(f"{speaker.spec.id} is no Tacotron 2; name one with --generator")
    phones = parts.frontend.phonemize(text)[0]
    voices = None
    if voice is not None and parts.speaker_encoder is not None:
        voices = parts.speaker_encoder.embed([load_audio(voice)])
    (timing,) = speaker.timings([phones], voices)
    figure, axes = pyplot.subplots(figsize=(8, 0.12 * len(phones) + 2))
    axes.imshow(timing.attention.T.numpy(), aspect="auto", origin="lower", interpolation="none")
    axes.set_yticks(range(len(phones)), phones.symbols, fontsize=6)
    axes.set_xlabel("decoder step")
    figure.savefig(output, bbox_inches="tight")
    pyplot.close(figure)
    state = "clean" if timing.clean else trouble(phones, timing)
    typer.echo(f"{output}: {sum(timing.frames)} frames, {state}")


def _show(name: str, values: NDArray[Any]) -> None:
    """Its shape, and its first and last values as they lie in memory."""
    flat = [f"{value:.8g}" for value in values.reshape(-1)]
    few = flat if len(flat) <= 7 else [*flat[:3], "...", *flat[-3:]]
    typer.echo(f"{name} Shape: {list(values.shape)}")
    typer.echo(f"{name}: [{', '.join(few)}]")


def _generator_of(registry: Registry) -> str:
    """The first installed generator that takes GE2E voices and gives a mel.

    Raises:
        UsageError: there is none.
    """
    from speechloom.spec import GeneratorFacts
    from speechloom_sv2tts import VOICE

    for spec in registry.specs("generator"):
        facts = spec.facts
        assert isinstance(facts, GeneratorFacts)
        if facts.voice == VOICE and facts.gives.startswith("features:mel-"):
            return spec.id
    raise UsageError(
        "no Tacotron 2 that takes a GE2E voice is installed: train one (recipes/engine-voice.yaml "
        "of speechloom-sv2tts) and install its export, or add --untrained to see the path"
    )


def _random_networks(registry: Registry) -> str:
    """Put tiny networks with random weights into a registry; the id of the generator."""
    from speechloom.mel import RTVC_SYNTHESIZER
    from speechloom_sv2tts import VOICE, ge2e_spec, tacotron2_spec
    from speechloom_sv2tts.config import TacotronConfig
    from speechloom_sv2tts.ge2e import Ge2eEncoder
    from speechloom_sv2tts.generator import Tacotron2Generator
    from speechloom_sv2tts.symbols import CHARACTERS

    encoder = ge2e_spec("none", id="untrained-ge2e", voice=VOICE)
    generator = tacotron2_spec(
        "none",
        id="untrained-tacotron2",
        mel=RTVC_SYNTHESIZER,
        alphabet="tacotron2-characters",
        symbols={phone: number for number, phone in enumerate(CHARACTERS, 1)},
        config=TacotronConfig(symbols=len(CHARACTERS) + 1, voice=256, reduction=3),
        voice=VOICE,
    )
    registry.register(Ge2eEncoder.from_random(encoder))
    registry.register(Tacotron2Generator.from_random(generator))
    return generator.id
