"""SpeechSEC's claim, tested small: is synthesis better for being learned with two other tasks?

Two arms, *alone* (synthesis) and *joint* (synthesis, continuation, editing, drawn alike often),
train the same network from nothing for the same steps on the same pieces; only the Task Register
differs. Each arm runs with several seeds, which name the initial weights and all draws::

    python joint_training.py train RECIPE RUNS
    python joint_training.py evaluate RECIPE RUNS sentences.txt results.json
    python joint_training.py table results.json

RECIPE is the folder of a run of `speechloom_starter.recipe` whose stages `corpus`, `encode` and
`said` are done; its held-out sentences are the test. What the units come from, the codec and the
voice vectors are the shipped ones. The table stands in ``docs/joint-training.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

from speechloom.container import load_audio, save_audio
from speechloom.eval import EvalCase, Report, evaluate
from speechloom.pipeline import Pipeline
from speechloom.registry import default_registry
from speechloom.values import Audio
from speechloom_speechsec.config import SpeechSECConfig
from speechloom_speechsec.loss import LossReport, masked_loss
from speechloom_speechsec.masks import MaskConfig, draw_training_mask
from speechloom_speechsec.model import SpeechSEC
from speechloom_starter.components.generators import (
    CODES_DECODE,
    FREE_DECODE,
    StarterUnitsToCodes,
)
from speechloom_starter.recipe.config import TrainConfig
from speechloom_starter.recipe.data import Corpus
from speechloom_starter.recipe.encode import EncodedCorpus
from speechloom_starter.recipe.loop import run_stage
from speechloom_starter.recipe.said import said_units
from speechloom_starter.recipe.stage_generate import UnitsToCodesStage

ARMS = {"alone": (1.0, 0.0, 0.0, 0.0), "joint": (1.0, 1.0, 1.0, 0.0)}
VOICES = {"iris": "slt", "rolf": "rms", "angus": "awb", "karl": "kal16"}
DRAWS = 4
METRICS = ("wer", "speaker_similarity", "seam_flux", "seam_level", "silence", "variety")
ROWS = {
    "synthesis: word error": "wer synthesize",
    "synthesis: speaker similarity": "speaker_similarity synthesize",
    "synthesis: nats a masked code": "nats synthesize",
    "synthesis: masked codes that are right": "accuracy synthesize",
    "synthesis: masked codes of the first level that are right": "accuracy synthesize-1",
    "editing: word error of the whole sentence": "wer edit",
    "editing: spectral change at seams": "seam_flux edit",
    "editing: level step at seams": "seam_level edit",
    "editing: nats a masked code": "nats edit",
    "editing: masked codes that are right": "accuracy edit",
    "continuation: speaker similarity": "speaker_similarity continue",
    "continuation: silent share": "silence continue",
    "continuation: variety": "variety continue",
    "continuation: nats a masked code": "nats continue",
    "continuation: nats a masked code of the first level": "nats continue-1",
    "continuation: masked codes that are right": "accuracy continue",
}
MODEL = SpeechSECConfig(
    content_vocab=512,
    codebooks=8,
    codebook_size=1024,
    voice_dim=128,
    dim=192,
    layers=5,
    heads=4,
    ff_mult=2,
    tie_heads=True,
)


class Arm(UnitsToCodesStage):
    """Units to codes of the four engine voices, with the tasks of one arm."""

    def __init__(self, work: Path, arm: str, train: TrainConfig) -> None:
        super().__init__(
            Corpus(work / "corpus"),
            EncodedCorpus(work / "encoded"),
            said_units(work / "said"),
            MODEL,
            train,
            said_share=0.5,
        )
        self.masks = replace(self.masks, task_weights=ARMS[arm])

    def _pool(self) -> list[int]:
        return [index for voice in VOICES.values() for index in self.corpus.by_speaker[voice]]


def train(
    work: Path, runs: Path, seeds: Sequence[int], arms: Sequence[str], settings: TrainConfig
) -> None:
    """Train arms with every seed; what is done is left, what was killed goes on."""
    for seed in seeds:
        for arm in arms:
            stage = Arm(work, arm, settings.model_copy(update={"seed": seed}))
            run_stage(stage, runs / f"{arm}-{seed}")


class HeldOut:
    """The held-out sentences of the engine voices, as files that cases can name."""

    def __init__(self, work: Path, text: Path, folder: Path) -> None:
        self.corpus = Corpus(work / "corpus", "eval")
        self.sentences = [line.strip() for line in text.read_text().splitlines() if line.strip()]
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def recordings(self, voice: str, count: int) -> Iterator[tuple[Path, str]]:
        """Recordings of 2 to 8 seconds by a voice, and what they say."""
        found = 0
        for index in self.corpus.by_speaker[VOICES[voice]]:
            utterance = self.corpus.utterances[index]
            text = self.sentences[utterance.sentence]
            if found == count or not 2 * 16_000 <= utterance.length <= 8 * 16_000:
                continue
            found += 1
            path = self.folder / f"{voice}-{index}.wav"
            save_audio(Audio(self.corpus.samples(index)[None], 16_000), path)
            yield path, text


def with_another_word(text: str, source: str) -> str:
    """``text`` with the longest of its inner words replaced by the longest of ``source``."""
    words = text.split()
    at = max(range(1, len(words) - 1), key=lambda i: len(words[i]))
    new = max((word.strip(".,;:!?\"'") for word in source.split()), key=len)
    return " ".join([*words[:at], new.lower(), *words[at + 1 :]])


def cases_of(held_out: HeldOut, sentences: int) -> list[EvalCase]:
    """Synthesis of all held-out recordings' words; editing and continuation of every other one."""
    made = []
    for voice in VOICES:
        pairs = list(held_out.recordings(voice, sentences))
        for number, (path, text) in enumerate(pairs):
            other = pairs[(number + 1) % len(pairs)][1]
            name = f"{voice}-{number}"
            common = {"reference": path, "seed": number}
            made.append(
                EvalCase(id=f"say-{name}", group="synthesize", text=text, voice=voice, **common)
            )
            if number % 2:
                continue
            made += [
                EvalCase(
                    id=f"edit-{name}",
                    group="edit",
                    task="edit",
                    audio=path,
                    text=text,
                    new_text=with_another_word(text, other),
                    **common,
                ),
                EvalCase(
                    id=f"on-{name}",
                    group="continue",
                    task="continue",
                    audio=path,
                    seconds=2.0,
                    **common,
                ),
            ]
    return made


def judge(network: SpeechSEC, cases: Sequence[EvalCase], out: Path) -> Report:
    """Let the starter speak with another units-to-codes network."""
    registry = default_registry()
    spec = registry.get("generator", "starter-units-to-codes").spec
    assert spec is not None
    generator = StarterUnitsToCodes(spec, network, decode=CODES_DECODE, free=FREE_DECODE)
    with registry.override(generator):
        return evaluate(cases, pipeline=Pipeline(), metrics=METRICS, out=out)


def word_error_of_recordings(held_out: HeldOut, sentences: int) -> float:
    """What the recogniser makes of the recordings themselves."""
    cases = [
        EvalCase(id=path.stem, text=text, audio_result=path)
        for voice in VOICES
        for path, text in held_out.recordings(voice, sentences)
    ]
    (summary,) = evaluate(cases, metrics=["wer"]).summary
    assert summary.mean is not None
    return summary.mean


@torch.inference_mode()
def code_scores(network: SpeechSEC, held_out: Sequence[tuple[Path, str]]) -> dict[str, float]:
    """Nats and accuracy of the masked codes of held-out recordings, by task and level.

    Every recording is masked `DRAWS` times for each task; the masks are the same for all networks.
    """
    registry = default_registry()
    tokenizer = registry.load("tokenizer", "starter-units")
    codec = registry.load("codec", "starter-codec")
    encoder = registry.load("speaker_encoder", "starter-voice")
    sums: dict[str, list[float]] = {}
    for number, (path, _) in enumerate(held_out):
        audio = [load_audio(path)]
        codes, units = codec.encode(audio).ids, tokenizer.encode(audio).ids
        voice = torch.from_numpy(encoder.embed(audio)[0].vector)[None]
        for task, name in enumerate(("synthesize", "continue", "edit")):
            for level in range(MODEL.codebooks):
                report = _masked(network, codes, units, voice, task, level, number)
                for key in (name, f"{name}-{level + 1}"):
                    total = sums.setdefault(key, [0.0, 0.0, 0.0])
                    total[0] += float(report.nats.sum())
                    total[1] += float(report.correct.sum())
                    total[2] += float(report.positions.sum())
    return {
        f"{measure} {key}": total[at] / total[2]
        for key, total in sums.items()
        for at, measure in enumerate(("nats", "accuracy"))
    }


def _masked(
    network: SpeechSEC,
    codes: Tensor,
    units: Tensor,
    voice: Tensor,
    task: int,
    level: int,
    number: int,
) -> LossReport:
    """The loss of one recording, masked `DRAWS` times at one level for one task."""
    masks = MaskConfig(
        task_weights=_one_hot(task, 4),
        level_weights=_one_hot(level, MODEL.codebooks),
        content_dropout=0.0,
        voice_dropout=0.0,
    )
    codes, units = codes.expand(DRAWS, -1, -1), units.expand(DRAWS, -1)
    mask = draw_training_mask(
        codes,
        units,
        torch.full((DRAWS,), units.shape[-1]),
        mask_id=MODEL.mask_id,
        generator=torch.Generator().manual_seed(number),
        config=masks,
    )
    return masked_loss(network, codes, None, mask, voice=voice.expand(DRAWS, -1))


def _one_hot(at: int, size: int) -> tuple[float, ...]:
    return tuple(float(index == at) for index in range(size))


def trained(folder: Path) -> SpeechSEC:
    """The network of a finished run, in evaluation mode."""
    network = SpeechSEC(MODEL)
    network.load_state_dict(torch.load(folder / "u2c.pt", weights_only=True)["network"])
    return network.eval().requires_grad_(False)


def scores_of(folder: Path, held_out: HeldOut, sentences: int) -> dict[str, float]:
    """All numbers of one run; they are kept beside its checkpoint."""
    network = trained(folder)
    recordings = [one for voice in VOICES for one in held_out.recordings(voice, sentences)]

    def spoken() -> dict[str, float]:
        report = judge(network, cases_of(held_out, sentences), folder / "report.json")
        return {
            f"{one.metric} {one.group}": one.mean for one in report.summary if one.mean is not None
        }

    codes = _kept(folder / "codes.json", lambda: code_scores(network, recordings))
    return codes | _kept(folder / "spoken.json", spoken)


def _kept(path: Path, make: Callable[[], dict[str, float]]) -> dict[str, float]:
    if not path.exists():
        path.write_text(json.dumps(make(), indent=1))
    scores: dict[str, float] = json.loads(path.read_text())
    return scores


def evaluate_runs(
    work: Path, runs: Path, seeds: Sequence[int], sentences: int, text: Path, out: Path
) -> None:
    """Write every number of both arms, seed by seed."""
    held_out = HeldOut(work, text, runs / "held-out")
    result: dict[str, object] = {
        "seeds": list(seeds),
        "sentences": sentences * len(VOICES),
        "steps": torch.load(runs / f"joint-{seeds[0]}" / "u2c.pt", weights_only=True)["step"],
        "recordings": {"wer": word_error_of_recordings(held_out, sentences)},
    }
    for arm in ARMS:
        every = [scores_of(runs / f"{arm}-{seed}", held_out, sentences) for seed in seeds]
        result[arm] = {key: [one[key] for one in every] for key in every[0]}
    out.write_text(json.dumps(result, indent=1) + "\n")


def table(results: Path) -> str:
    """Mean and standard deviation over the seeds of both arms, as Markdown."""
    record = json.loads(results.read_text())
    lines = ["| | synthesis alone | three tasks |", "|---|---|---|"]
    for label, key in ROWS.items():
        cells = (_cell(record[arm].get(key, ())) for arm in ARMS)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if len(values) < 2:
        return " ".join(f"{value:.3f}" for value in values)
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def main() -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "evaluate"):
        command = commands.add_parser(name)
        command.add_argument("recipe", type=Path)
        command.add_argument("runs", type=Path)
        command.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
        command.add_argument("--threads", type=int, default=1)
    commands.choices["train"].add_argument("--steps", type=int, default=1000)
    commands.choices["train"].add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    commands.choices["evaluate"].add_argument("text", type=Path)
    commands.choices["evaluate"].add_argument("out", type=Path)
    commands.choices["evaluate"].add_argument("--sentences", type=int, default=10)
    commands.add_parser("table").add_argument("results", type=Path)
    options = parser.parse_args()
    if options.command == "table":
        print(table(options.results), end="")
        return
    torch.set_num_threads(options.threads)
    work = options.recipe / "work"
    if options.command == "train":
        settings = TrainConfig(
            steps=options.steps, batch=12, seconds=4.0, learning_rate=1e-3, warmup=60, seed=1
        )
        train(work, options.runs, options.seeds, options.arms, settings)
    else:
        evaluate_runs(
            work, options.runs, options.seeds, options.sentences, options.text, options.out
        )


if __name__ == "__main__":
    main()
