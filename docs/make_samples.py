"""Make the recordings and spectrograms of the site from the shipped weights.

    python docs/make_samples.py

Needs speechloom with its starter voice, and matplotlib. `samples/samples.json` keeps what was asked
of which components; a test compares it with `SAMPLES` and with the installed weights, so that a
change of either asks for a new run of this script.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot

import speechloom
from speechloom import Pipeline, Speech

FOLDER = Path(__file__).parent / "samples"
TEXT = "The meeting is at ten thirty."
WINDOW, HOP = 512, 128
FLOOR_DB = -70


@dataclass(frozen=True)
class Sample:
    """One recording of the site.

    Attributes:
        task: name of the method of `Pipeline`.
        source: name of the sample that it starts from; None for one made from text alone.
        options: the arguments of the call.
    """

    task: str
    source: str | None
    options: dict[str, Any]


SAMPLES = {
    "synthesized": Sample("synthesize", None, {"text": TEXT, "voice": "iris", "seed": 1}),
    "edited": Sample(
        "edit", "synthesized", {"text": TEXT, "new_text": "The meeting is at nine.", "seed": 1}
    ),
    "continued": Sample(
        "continue_", "synthesized", {"text": "Please bring your notes.", "seed": 1}
    ),
    "converted": Sample("convert", "synthesized", {"voice": "rolf", "seed": 1}),
}


def settings() -> str:
    """The sha256 of all that is asked for, in a fixed spelling."""
    record = {name: [s.task, s.source, s.options] for name, s in SAMPLES.items()}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def weights(speech: Speech) -> dict[str, Any]:
    """Weight hashes of each component of the chain, by its id."""
    return {link["id"]: link.get("weights", {}) for link in speech.provenance["chain"]}


def make(pipeline: Pipeline) -> dict[str, Speech]:
    """All samples, in the order in which they need each other."""
    made: dict[str, Speech] = {}
    for name, sample in SAMPLES.items():
        call: Callable[..., Speech] = getattr(pipeline, sample.task)
        source = [] if sample.source is None else [made[sample.source].audio]
        made[name] = call(*source, **sample.options)
    return made


def draw(speech: Speech, path: Path) -> None:
    """Draw a spectrogram with the generated regions marked and the words above."""
    figure, axis = pyplot.subplots(figsize=(6, 2.2), layout="constrained")
    axis.set_facecolor("black")
    axis.specgram(
        speech.audio.mono().samples[0] + 1e-8 * np.random.default_rng(0).standard_normal(1),
        NFFT=WINDOW,
        noverlap=WINDOW - HOP,
        Fs=speech.sample_rate,
        vmin=FLOOR_DB - 50,
        cmap="magma",
        rasterized=True,
    )
    for region in speech.regions:
        bounds = region.start_seconds, region.end_seconds
        axis.axvspan(*bounds, ymin=0.94, color="#00acc1")
        for bound in bounds:
            axis.axvline(bound, color="#00acc1", linewidth=1)
    for word in speech.alignment.words:
        middle = (word.start_seconds + word.end_seconds) / 2
        axis.text(middle, 1.03 * speech.sample_rate / 2, word.text, ha="center", fontsize=9)
    axis.set(xlim=(0, speech.seconds), xlabel="seconds", ylabel="Hz")
    figure.savefig(path, dpi=133, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Write every sample, its picture and the record of how they were made."""
    matplotlib.use("Agg")
    FOLDER.mkdir(exist_ok=True)
    made = make(speechloom.Pipeline())
    for name, speech in made.items():
        speech.save(FOLDER / f"{name}.flac")
        draw(speech, FOLDER / f"{name}.png")
    record = {
        "settings": settings(),
        "weights": {id: files for s in made.values() for id, files in weights(s).items()},
        "samples": {name: speech.to_json()["regions"] for name, speech in made.items()},
    }
    (FOLDER / "samples.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
