"""The four tasks, ``plan`` and ``replay``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from speechloom.chain import Role
from speechloom.cli import options
from speechloom.cli.options import (
    CodecId,
    ContentGeneratorId,
    Device,
    GeneratorId,
    Json,
    Lexicon,
    Output,
    Seed,
    Style,
    Temperature,
    TokenizerId,
    VocoderId,
    Voice,
)
from speechloom.errors import OutputError, UsageError
from speechloom.speech import Speech

__all__ = ["continue_", "convert", "edit", "plan", "replay", "synthesize"]

Recording = Annotated[str, typer.Argument(help="Audio file; - for standard input.")]


def synthesize(
    text: Annotated[str, typer.Argument(help="What to say; - reads standard input.")],
    output: Output = "out.wav",
    voice: Voice = None,
    style: Style = None,
    seed: Seed = None,
    temperature: Temperature = 1.0,
    lexicon: Lexicon = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="With -o -, write samples as they are made.")
    ] = False,
    as_json: Json = False,
    device: Device = "cpu",
    generator: GeneratorId = None,
    content_generator: ContentGeneratorId = None,
    codec: CodecId = None,
    vocoder: VocoderId = None,
) -> None:
    """Say a text."""
    options.check_output(output)
    pipeline = options.pipeline_of(
        device, generator=generator, content_generator=content_generator, codec=codec,
        vocoder=vocoder,
    )  # fmt: skip
    wanted: dict[str, Any] = {
        "voice": voice,
        "style": options.style_of(style),
        "seed": seed,
        "temperature": temperature,
        "lexicon": options.lexicon_of(lexicon),
    }
    if stream:
        if output != "-":
            raise UsageError("--stream writes to standard output; add -o -")
        return _stream(pipeline.synthesize(options.text_of(text), stream=True, **wanted))
    with options.progress_bar():
        speech = pipeline.synthesize(options.text_of(text), **wanted)
    options.deliver(speech, output, as_json)


def _stream(chunks: Any) -> None:
    """A wav of unknown length, chunk by chunk, as programs that read pipes expect."""
    import struct
    import sys

    import numpy as np

    out = sys.stdout.buffer
    for number, chunk in enumerate(chunks):
        if number == 0:
            rate, channels = chunk.sample_rate, chunk.channels
            layout = (16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
            head = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", *layout)
            out.write(head + b"data\xff\xff\xff\xff")
        whole = np.clip(np.rint(chunk.samples.T.astype(np.float64) * 32768), -32768, 32767)
        out.write(whole.astype("<i2").tobytes())
        out.flush()


def edit(
    audio: Recording,
    to: Annotated[
        str | None,
        typer.Option("--to", help="The transcript as it should be."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="The transcript as it is."),
    ] = None,
    span: Annotated[
        list[str] | None,
        typer.Option("--span", help="START:END:NEW WORDS in seconds, instead of transcripts."),
    ] = None,
    output: Output = "out.wav",
    voice: Voice = None,
    style: Style = None,
    seed: Seed = None,
    temperature: Temperature = 1.0,
    lexicon: Lexicon = None,
    as_json: Json = False,
    device: Device = "cpu",
    generator: GeneratorId = None,
    content_generator: ContentGeneratorId = None,
    tokenizer: TokenizerId = None,
    codec: CodecId = None,
) -> None:
    """Change what is said in a recording; everything else stays bit for bit."""
    options.check_output(output)
    pipeline = options.pipeline_of(
        device, generator=generator, content_generator=content_generator, tokenizer=tokenizer,
        codec=codec,
    )  # fmt: skip
    with options.progress_bar():
        speech = pipeline.edit(
            audio, text=text, new_text=to, spans=[_span(s) for s in span or ()], voice=voice,
            style=options.style_of(style), seed=seed, temperature=temperature,
            lexicon=options.lexicon_of(lexicon),
        )  # fmt: skip
    options.deliver(speech, output, as_json)


def _span(text: str) -> tuple[float, float, str]:
    start, _, rest = text.partition(":")
    end, _, words = rest.partition(":")
    try:
        return float(start), float(end), words
    except ValueError:
        raise UsageError(f"--span {text!r} must be START:END:NEW WORDS, as 1.2:1.9:green") from None


def continue_(
    audio: Recording,
    text: Annotated[
        str | None,
        typer.Option("--text", help="The words that follow."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="How much to add; 3 without words."),
    ] = None,
    output: Output = "out.wav",
    voice: Voice = None,
    style: Style = None,
    seed: Seed = None,
    temperature: Temperature = 1.0,
    lexicon: Lexicon = None,
    as_json: Json = False,
    device: Device = "cpu",
    generator: GeneratorId = None,
    content_generator: ContentGeneratorId = None,
    tokenizer: TokenizerId = None,
    codec: CodecId = None,
) -> None:
    """Go on where a recording ends."""
    options.check_output(output)
    pipeline = options.pipeline_of(
        device, generator=generator, content_generator=content_generator, tokenizer=tokenizer,
        codec=codec,
    )  # fmt: skip
    with options.progress_bar():
        speech = pipeline.continue_(
            audio, text=None if text is None else options.text_of(text), seconds=seconds,
            voice=voice, style=options.style_of(style), seed=seed, temperature=temperature,
            lexicon=options.lexicon_of(lexicon),
        )  # fmt: skip
    options.deliver(speech, output, as_json)


def convert(
    audio: Recording,
    voice: Voice = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Its transcript, for generators that take phones."),
    ] = None,
    output: Output = "out.wav",
    seed: Seed = None,
    temperature: Temperature = 1.0,
    lexicon: Lexicon = None,
    as_json: Json = False,
    device: Device = "cpu",
    generator: GeneratorId = None,
    tokenizer: TokenizerId = None,
    codec: CodecId = None,
    vocoder: VocoderId = None,
) -> None:
    """The same words in another voice."""
    options.check_output(output)
    pipeline = options.pipeline_of(
        device, generator=generator, tokenizer=tokenizer, codec=codec, vocoder=vocoder
    )
    with options.progress_bar():
        speech = pipeline.convert(
            audio, voice=voice, text=None if text is None else options.text_of(text), seed=seed,
            temperature=temperature, lexicon=options.lexicon_of(lexicon),
        )  # fmt: skip
    options.deliver(speech, output, as_json)


def plan(
    task: Annotated[str, typer.Argument(help="synthesize, edit, continue or convert.")],
    no_text: Annotated[bool, typer.Option("--no-text", help="Without text.")] = False,
    spans: Annotated[bool, typer.Option("--spans", help="An edit given in seconds.")] = False,
    voice: Annotated[bool, typer.Option("--voice", help="With a voice asked for.")] = False,
    as_json: Json = False,
    frontend: Annotated[str | None, typer.Option("--frontend")] = None,
    aligner: Annotated[str | None, typer.Option("--aligner")] = None,
    speaker_encoder: Annotated[
        str | None,
        typer.Option("--speaker-encoder"),
    ] = None,
    tokenizer: TokenizerId = None,
    content_generator: ContentGeneratorId = None,
    generator: GeneratorId = None,
    codec: CodecId = None,
    vocoder: VocoderId = None,
) -> None:
    """Show the parts that a task would use, without loading any."""
    import speechloom

    named: dict[Role, str | None] = {
        "frontend": frontend,
        "aligner": aligner,
        "speaker_encoder": speaker_encoder,
        "tokenizer": tokenizer,
        "content_generator": content_generator,
        "generator": generator,
        "codec": codec,
        "vocoder": vocoder,
    }
    wanted = {role: id_ for role, id_ in named.items() if id_}
    chain = speechloom.plan(
        task,  # type: ignore[arg-type]  # the router refuses an unknown task by name
        text=not no_text,
        spans=spans,
        voice=voice,
        parts=wanted,
    )
    typer.echo(json.dumps(chain.to_json()) if as_json else chain.describe())


def replay(
    file: Annotated[Path, typer.Argument(help="A file that speechloom wrote.")],
    output: Output = "replay.wav",
    audio: Annotated[
        str | None,
        typer.Option("--audio", help="The recording it was made from, if that has moved."),
    ] = None,
    voice: Voice = None,
    as_json: Json = False,
    device: Device = "cpu",
) -> None:
    """Make the samples of a file again, from the record in it."""
    from speechloom.provenance import replay as replay_file

    options.check_output(output)
    if output != "-" and Path(output).resolve() == file.resolve():
        raise OutputError(f"{output} is the file that is replayed; write to another")
    with options.progress_bar():
        speech: Speech = replay_file(file, audio=audio, voice=voice, device=device)
    options.deliver(speech, output, as_json)
