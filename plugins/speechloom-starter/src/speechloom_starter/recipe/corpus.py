"""Stage ``corpus``: the engine reads sentences aloud in hundreds of synthetic voices.

Output: ``audio.i16`` (all utterances, int16, 16 kHz, end to end) and ``index.jsonl`` (one line an
utterance). Both are only appended to, so a killed run goes on behind the last whole line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from speechloom.errors import UsageError
from speechloom_starter.phones import PHONE_IDS
from speechloom_starter.recipe.config import CorpusConfig

SAMPLE_RATE = 16_000
Made = tuple[npt.NDArray[np.int16], dict[str, object]]


@dataclass(frozen=True)
class Speaker:
    """One synthetic speaker; ``pitch_hz`` 0 leaves the engine's own pitch."""

    name: str
    voice: str
    pitch_hz: float = 0.0
    rate: float = 1.0
    warp: float = 1.0
    held_out: bool = False


@dataclass(frozen=True)
class Job:
    """One utterance to be made: a sentence spoken by a speaker, or a recording to be warped."""

    speaker: Speaker
    sentence: int
    split: str
    text: str = ""
    recording: str = ""


def plan_speakers(config: CorpusConfig) -> list[Speaker]:
    """The engine's own voices first, then the synthetic speakers, drawn from the seed."""
    rng = np.random.default_rng([config.seed, 0])
    speakers = [Speaker(voice, voice) for voice in config.voices]
    for number in range(config.synthetic_speakers):
        voice = number % len(config.voices)
        warp = float(np.exp(rng.uniform(*np.log(config.warp))))
        speakers.append(
            Speaker(
                name=f"{config.voices[voice]}-{number:03d}",
                voice=config.voices[voice],
                pitch_hz=round(float(rng.uniform(*config.pitch_hz[voice])), 1),
                rate=round(float(rng.uniform(*config.rate)), 3),
                warp=round(warp, 3),
                held_out=number >= config.synthetic_speakers - config.held_out_speakers,
            )
        )
    return speakers


def plan_jobs(config: CorpusConfig, sentences: list[str], recordings: list[str]) -> list[Job]:
    """All utterances, shuffled once so that any prefix of the corpus is a fair sample of it."""
    held_out = config.held_out_sentences
    if len(sentences) <= held_out + config.sentences_per_speaker:
        raise UsageError(
            f"the text has {len(sentences)} sentences, but {held_out} are held out for evaluation "
            f"and each speaker needs {config.sentences_per_speaker}; give a longer text file or "
            "a smaller configuration"
        )
    known = len(sentences) - held_out
    rng = np.random.default_rng([config.seed, 1])
    jobs: list[Job] = []
    for number, speaker in enumerate(plan_speakers(config)):
        base = number < len(config.voices)
        count = config.base_sentences[number] if base else config.sentences_per_speaker
        if not speaker.held_out:
            chosen = rng.choice(known, min(count, known), replace=False)
            jobs += [Job(speaker, int(s), "train", sentences[s]) for s in chosen]
        if base or speaker.held_out:
            chosen = known + np.arange(min(config.evaluation_sentences, held_out))
            jobs += [Job(speaker, int(s), "eval", sentences[s]) for s in chosen]
    for warp in (1.0, *config.real_warps):
        speaker = Speaker(f"real-{warp:.2f}", "real", warp=warp)
        jobs += [Job(speaker, -1 - i, "train", "", path) for i, path in enumerate(recordings)]
    return [jobs[i] for i in rng.permutation(len(jobs))]


def _speak(job: Job) -> tuple[npt.NDArray[np.float32], list[int], list[float]]:
    speaker = job.speaker
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.wav")
        # A warp by w also speaks w times faster; the engine is slowed down to make up for it.
        stretch = speaker.warp / speaker.rate
        command = ["flite", "-voice", speaker.voice, "-psdur"]
        command += ["--setf", f"duration_stretch={stretch:.4f}"]
        if speaker.pitch_hz:
            command += ["--seti", f"int_f0_target_mean={round(speaker.pitch_hz / speaker.warp)}"]
        command += ["-t", job.text, "-o", path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        samples, rate = soundfile.read(path, dtype="float32")
    pairs = [item.rsplit(":", 1) for item in done.stdout.split()]
    phones = [PHONE_IDS[phone] for phone, _ in pairs]
    ends = [round(float(end) / speaker.warp, 4) for _, end in pairs]
    return _warp(samples, rate, speaker.warp), phones, ends


def _warp(samples: npt.NDArray[np.float32], rate: int, warp: float) -> npt.NDArray[np.float32]:
    if rate == SAMPLE_RATE and warp == 1.0:
        return samples
    warped: npt.NDArray[np.float32] = soxr.resample(samples, rate * warp, SAMPLE_RATE)
    return warped


def _make(job: Job) -> Made:
    phones: list[int] = []
    ends: list[float] = []
    if job.recording:
        samples, rate = soundfile.read(job.recording, dtype="float32")
        samples = _warp(samples, rate, job.speaker.warp)
    else:
        samples, phones, ends = _speak(job)
    pcm = np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)
    record = {
        "length": len(pcm),
        "speaker": job.speaker.name,
        "sentence": job.sentence,
        "split": job.split,
        "rate": job.speaker.rate,
        "phones": phones,
        "ends": ends,
    }
    return pcm, record


def _whole_lines(index: Path, audio: Path) -> int:
    """Cut both files behind the last whole record; returns how many records stay."""
    if not index.exists():
        audio.write_bytes(b"")
        return 0
    text = index.read_bytes()
    lines = text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
    available = audio.stat().st_size // 2
    samples = 0
    kept = 0
    for line in lines:
        length = json.loads(line)["length"]
        if samples + length > available:
            break
        samples += length
        kept += 1
    index.write_bytes(b"".join(lines[:kept]))
    with audio.open("r+b") as file:
        file.truncate(samples * 2)
    return kept


def _results(jobs: list[Job], workers: int) -> Iterator[Made]:
    # In slices: a pool would otherwise run far ahead of the writer and hold hours of audio.
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(jobs), 64):
            yield from pool.map(_make, jobs[start : start + 64])


def make_corpus(
    config: CorpusConfig, text: Path, folder: Path, real_speech: Path | None = None
) -> None:
    """Speak the corpus into ``folder``; goes on where an earlier run stopped.

    Raises:
        UsageError: the engine is not installed, or the text is too short.
    """
    if shutil.which("flite") is None:
        raise UsageError(
            "the recipe speaks its corpus with the program flite, which was not found on PATH; "
            "install it (Debian and Ubuntu: apt install flite)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    sentences = [line.strip() for line in text.read_text().splitlines() if line.strip()]
    recordings: list[str] = []
    if real_speech is not None:
        recordings = sorted(str(p) for p in real_speech.iterdir() if p.suffix in {".flac", ".wav"})
    jobs = plan_jobs(config, sentences, recordings)[: config.utterances]
    (folder / "speakers.json").write_text(
        json.dumps([asdict(speaker) for speaker in plan_speakers(config)], indent=1)
    )
    done = _whole_lines(folder / "index.jsonl", folder / "audio.i16")
    with (folder / "audio.i16").open("ab") as audio, (folder / "index.jsonl").open("a") as index:
        for pcm, record in _results(jobs[done:], config.workers):
            audio.write(pcm.tobytes())
            audio.flush()
            index.write(json.dumps(record) + "\n")
            index.flush()
