"""What is done to content units once they are made: merge runs, merge pairs, change the rate.

====================  ==========================================================================
`reduce_runs`         each run of one id becomes one id, with its duration; `expand_runs` undoes it
`UnitBPE`             byte-pair merges over unit strings; ids of a larger vocabulary, and back
`convert_rate`        tokens or features at another frame rate, by a method that has a name
`require_frames`      refuses tokens that are reduced or merged where one id a frame is needed
====================  ==========================================================================

`Tokens.form` says what was done, so that nobody reads 12 merged ids as 12 frames.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from speechloom.container import write_atomically
from speechloom.errors import BackendUnavailable, UsageError, WeightsError
from speechloom.values import Features, Tokens, pad_stack

__all__ = [
    "RATE_METHODS",
    "RateMethod",
    "UnitBPE",
    "convert_rate",
    "expand_runs",
    "nearest_frames",
    "reduce_runs",
    "require_frames",
]

RateMethod = Literal["nearest", "repeat", "mean"]
"""How units come to another frame rate."""
RATE_METHODS: tuple[RateMethod, ...] = ("nearest", "repeat", "mean")
"""``nearest``: the frame at the middle of the new one. ``repeat``: each frame a whole number of
times. ``mean``: the average over the time of the new frame (features only)."""

_Frames = TypeVar("_Frames", Tokens, Features)


def require_frames(tokens: Tokens, what: str) -> None:
    """Refuse tokens that do not have one id a frame.

    Args:
        tokens: to be checked.
        what: what needs frames, for the message.

    Raises:
        UsageError: they are reduced or merged.
    """
    undo = {"reduced": "expand_runs with their durations", "bpe": "UnitBPE.decode"}
    if tokens.form != "frames":
        raise UsageError(
            f"{what} needs one unit a frame, but the tokens are of the form {tokens.form!r}; undo "
            f"that first with {undo[tokens.form]}"
        )


# Runs -------------------------------------------------------------------------------------


def reduce_runs(tokens: Tokens) -> tuple[Tokens, Tensor]:
    """Merge runs of one id.

    Args:
        tokens: ids [B, F] of the form ``frames``.

    Returns:
        Tokens of the form ``reduced``, ids [B, R], and the frames of each, int64 [B, R], 0 where
        padded.

    Raises:
        UsageError: the tokens are reduced or merged already.

    >>> tokens = Tokens(torch.tensor([[7, 7, 7, 2, 7]]), "mine", 8, Fraction(50))
    >>> reduced, durations = reduce_runs(tokens)
    >>> reduced.ids.tolist(), durations.tolist()
    ([[7, 2, 7]], [[3, 1, 1]])
    """
    require_frames(tokens, "reducing runs")
    runs = [torch.unique_consecutive(row, return_counts=True) for row in _rows(tokens)]
    reduced = _with_rows(tokens, [ids for ids, _ in runs], form="reduced")
    return reduced, _stacked([counts for _, counts in runs])


def expand_runs(tokens: Tokens, durations: Tensor) -> Tokens:
    """Undo `reduce_runs`, or give units whatever durations there are.

    Args:
        tokens: ids [B, R] of the form ``reduced``.
        durations: int64 [B, R], frames of each unit; what is padding in `tokens` is not read.

    Raises:
        UsageError: the tokens are not reduced, or durations are of another shape or negative.
    """
    if tokens.form != "reduced":
        raise UsageError(f"expand_runs takes reduced tokens, but these are {tokens.form!r}")
    if durations.dtype != torch.int64 or durations.shape != tokens.ids.shape:
        raise UsageError(
            f"durations must be int64 {list(tokens.ids.shape)}, but are {durations.dtype} "
            f"{list(durations.shape)} instead"
        )
    counts = [row[: int(n)] for row, n in zip(durations, tokens.lengths, strict=True)]
    if any(bool((row < 0).any()) for row in counts):
        raise UsageError("durations must be 0 frames or more, but some are negative")
    rows = [torch.repeat_interleave(ids, n) for ids, n in zip(_rows(tokens), counts, strict=True)]
    return _with_rows(tokens, rows, form="frames")


# Pairs ------------------------------------------------------------------------------------

_FIRST_CHARACTER = 0xF0000
_CHARACTERS = 0xFFFE
"""Plane 15 of Unicode is for private use: unit i is its i-th character."""


@dataclass(frozen=True, eq=False)
class UnitBPE:
    """Byte-pair encoding of unit strings.

    A unit is a character for private use, an utterance a word of such characters. The ids of
    single units stay as they are; merges come after them.

    Sources: Sennrich et al. 2016, arXiv:1508.07909; on speech units Ren et al. 2022,
    arXiv:2205.11232 (there over CJK characters, which hold fewer units). Training and encoding are
    those of Hugging Face's ``tokenizers``.

    Attributes:
        vocabulary: of the units that it takes.
        vocabulary_size: V of the units.
        frame_rate: of the units, Hz.
        form: of the units that it takes: ``frames`` or ``reduced``.
        model: the trained `tokenizers.Tokenizer`.
    """

    vocabulary: str
    vocabulary_size: int
    frame_rate: Fraction
    form: Literal["frames", "reduced"]
    model: Any

    @classmethod
    def train(cls, units: Iterable[Tokens], size: int, *, max_units: int | None = None) -> UnitBPE:
        """Learn merges.

        Args:
            units: a corpus of one vocabulary, rate and form; usually reduced.
            size: ids in all, those of single units included.
            max_units: the most units that one id may stand for.

        Raises:
            UsageError: the corpus is empty or mixed, or the sizes make no sense.
            BackendUnavailable: ``tokenizers`` is not installed.
        """
        tokenizers = _tokenizers()
        corpus = list(units)
        if not corpus:
            raise UsageError("there are no units to learn merges from")
        first = corpus[0]
        _check_trainable(first, size)
        for other in corpus:
            _check_same(other, _facts(first))
        characters = [_character(i) for i in range(first.vocabulary_size)]
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            initial_alphabet=characters,
            max_token_length=max_units,
        )
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        texts = [_text(row) for tokens in corpus for row in _rows(tokens)]
        model.train_from_iterator(texts, trainer)
        return cls(*_facts(first), model)

    @property
    def size(self) -> int:
        """Ids in all; fewer than asked for where the corpus has no more pairs."""
        return int(self.model.get_vocab_size())

    @property
    def merged_vocabulary(self) -> str:
        """The vocabulary of the merged ids."""
        return f"{self.vocabulary}-bpe{self.size}"

    def encode(self, tokens: Tokens) -> Tokens:
        """Merge pairs.

        Args:
            tokens: of the vocabulary, rate and form that it was trained on.

        Returns:
            Tokens of the form ``bpe`` and the vocabulary `merged_vocabulary`.

        Raises:
            UsageError: the tokens are of another vocabulary, rate or form.
        """
        _check_same(tokens, (self.vocabulary, self.vocabulary_size, self.frame_rate, self.form))
        merged = [self.model.encode(_text(row)).ids for row in _rows(tokens)]
        rows = [torch.tensor(ids, dtype=torch.int64) for ids in merged]
        name, size = self.merged_vocabulary, self.size
        return _with_rows(tokens, rows, form="bpe", vocabulary=name, vocabulary_size=size)

    def decode(self, tokens: Tokens) -> Tokens:
        """Undo `encode`.

        Raises:
            UsageError: the tokens are of another vocabulary or were not merged.
        """
        if tokens.form != "bpe" or tokens.vocabulary != self.merged_vocabulary:
            raise UsageError(
                f"this BPE decodes {self.merged_vocabulary} of the form 'bpe', but got "
                f"{tokens.vocabulary} of the form {tokens.form!r}"
            )
        rows = []
        for row in _rows(tokens):
            text = "".join(self.model.id_to_token(i) for i in row.tolist())
            rows.append(torch.tensor([ord(c) - _FIRST_CHARACTER for c in text], dtype=torch.int64))
        name, size = self.vocabulary, self.vocabulary_size
        return _with_rows(tokens, rows, form=self.form, vocabulary=name, vocabulary_size=size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON file, whole or not at all."""
        content = {
            "format": _FORMAT,
            "vocabulary": self.vocabulary,
            "vocabulary_size": self.vocabulary_size,
            "frame_rate": str(self.frame_rate),
            "form": self.form,
            "tokenizer": json.loads(self.model.to_str()),
        }
        data = json.dumps(content).encode()
        write_atomically(Path(path), lambda file: file.write(data))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> UnitBPE:
        """Read what `save` wrote.

        Raises:
            WeightsError: the file is missing, damaged or something else.
            BackendUnavailable: ``tokenizers`` is not installed.
        """
        tokenizers = _tokenizers()
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {_FORMAT!r}")
            return cls(
                content["vocabulary"],
                content["vocabulary_size"],
                Fraction(content["frame_rate"]),
                content["form"],
                tokenizers.Tokenizer.from_str(json.dumps(content["tokenizer"])),
            )
        except Exception as error:  # tokenizers raises plain Exception on what it cannot read
            raise WeightsError(
                f"{os.fspath(path)} cannot be read as a unit BPE ({type(error).__name__}: {error});"
                " give a file that UnitBPE.save wrote"
            ) from error


_FORMAT = "speechloom-unit-bpe-1"


def _tokenizers() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "BPE over units needs the package 'tokenizers', which is not installed; run "
            "`pip install tokenizers`",
            plugin="speechloom.units",
        ) from error


def _character(unit: int) -> str:
    return chr(_FIRST_CHARACTER + unit)


def _text(units: Tensor) -> str:
    return "".join(map(_character, units.tolist()))


def _facts(tokens: Tokens) -> tuple[str, int, Fraction, Any]:
    return tokens.vocabulary, tokens.vocabulary_size, tokens.frame_rate, tokens.form


def _check_trainable(tokens: Tokens, size: int) -> None:
    if tokens.form == "bpe":
        raise UsageError("merges are learnt from units, but these tokens are merged already")
    if tokens.vocabulary_size > _CHARACTERS:
        raise UsageError(
            f"BPE takes vocabularies of up to {_CHARACTERS} units, but {tokens.vocabulary} has "
            f"{tokens.vocabulary_size}"
        )
    if size < tokens.vocabulary_size:
        raise UsageError(
            f"size must be at least the number of units ({tokens.vocabulary_size}), but is {size}"
        )


def _check_same(tokens: Tokens, expected: tuple[str, int, Fraction, Any]) -> None:
    for what, theirs, ours in zip(
        ("vocabulary", "vocabulary_size", "frame rate", "form"),
        _facts(tokens),
        expected,
        strict=True,
    ):
        if theirs != ours:
            raise UsageError(
                f"this BPE takes units of one {what}, {ours!s}, but got tokens of {theirs!s}"
            )


# Rates ------------------------------------------------------------------------------------


def convert_rate(
    values: _Frames, frame_rate: Fraction, method: RateMethod, *, lengths: Tensor | None = None
) -> _Frames:
    """Tokens or features at another frame rate.

    Args:
        values: of the rate that they say.
        frame_rate: wanted, Hz.
        method: ``nearest`` or ``repeat``; for features also ``mean``. See `RATE_METHODS`.
        lengths: int64 [B], frames of each item at the new rate, where they are known from the
            audio; without, ceil(frames x new rate / old rate).

    Returns:
        The same kind of value. Frames beyond the end of an item repeat its last.

    Raises:
        UsageError: the method does not exist or does not fit, or tokens are reduced or merged.
    """
    if isinstance(values, Tokens):
        require_frames(values, "changing the frame rate")
    _check_method(method, values, Fraction(frame_rate))
    ratio = Fraction(frame_rate) / values.frame_rate
    new = _new_lengths(values.lengths, ratio, lengths)
    rows = [
        _resampled(row, length, ratio, method)
        for row, length in zip(_rows(values), new, strict=True)
    ]
    return _with_rows(values, rows, frame_rate=Fraction(frame_rate))


def nearest_frames(count: int, to: Fraction, rate: Fraction, available: int) -> Tensor:
    """For each frame at one rate, the frame at another that holds its middle.

    Args:
        count: frames at rate `to`.
        to: Hz.
        rate: Hz, of the frames that are looked up.
        available: how many there are of them; beyond, the last is taken.

    Returns:
        int64 [count].
    """
    if to == rate:
        return torch.arange(count).clamp_max(available - 1)
    ratio = rate / to
    middles = [math.floor(Fraction(2 * f + 1, 2) * ratio) for f in range(count)]
    return torch.tensor(middles, dtype=torch.int64).clamp_max(available - 1)


def _check_method(method: str, values: Tokens | Features, frame_rate: Fraction) -> None:
    if method not in RATE_METHODS:
        raise UsageError(f"method must be one of {', '.join(RATE_METHODS)}, but is {method!r}")
    if method == "mean" and isinstance(values, Tokens):
        raise UsageError("ids have no mean; use nearest or repeat for tokens")
    if frame_rate <= 0:
        raise UsageError(f"frame_rate must be above 0 Hz, but is {frame_rate}")
    if method == "repeat" and (frame_rate / values.frame_rate).denominator != 1:
        raise UsageError(
            f"repeat needs a multiple of {values.frame_rate} Hz, but {frame_rate} Hz was asked for;"
            " use nearest" + (" or mean" if isinstance(values, Features) else "")
        )


def _new_lengths(old: Tensor, ratio: Fraction, given: Tensor | None) -> list[int]:
    if given is None:
        return [math.ceil(frames * ratio) for frames in old.tolist()]
    if given.dtype != torch.int64 or given.shape != old.shape or bool((given < 0).any()):
        raise UsageError(f"lengths must be int64 {list(old.shape)} of 0 or more, but are {given}")
    if bool(((old == 0) & (given > 0)).any()):
        raise UsageError("an item of no frames cannot become longer")
    return [int(frames) for frames in given]


def _resampled(row: Tensor, length: int, ratio: Fraction, method: RateMethod) -> Tensor:
    """One item [..., F] at another rate, [..., length]."""
    if row.shape[-1] == 0 or length == 0:
        return row[..., :0]
    if method == "mean":
        return _means(row, length, ratio)
    # A repeated frame is the one at the middle of each of its copies.
    return row[..., nearest_frames(length, ratio, Fraction(1), row.shape[-1])]


def _means(row: Tensor, length: int, ratio: Fraction) -> Tensor:
    """The mean of features [D, F] over the time of each of `length` frames."""
    frames = row.shape[-1]
    edges = torch.tensor(
        [float(min(i / ratio, Fraction(frames))) for i in range(length + 1)], dtype=torch.float64
    )
    # The integral from the beginning is linear inside a frame.
    integral = torch.nn.functional.pad(row.double().cumsum(-1), (1, 0))
    whole = edges.floor().long().clamp_max(frames - 1)
    at_edges = integral[:, whole] + row.double()[:, whole] * (edges - whole)
    spans = edges.diff()
    means = at_edges.diff(dim=-1) / spans.clamp_min(1e-12)
    return torch.where(spans > 0, means, row.double()[:, -1:]).to(row.dtype)


# Rows -------------------------------------------------------------------------------------


def _rows(values: Tokens | Features) -> list[Tensor]:
    """The items without padding."""
    table = values.ids if isinstance(values, Tokens) else values.values
    return [row[..., :n] for row, n in zip(table, values.lengths.tolist(), strict=True)]


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    return pad_stack(rows) if rows else torch.zeros(0, 0, dtype=torch.int64)


def _with_rows(values: _Frames, rows: Sequence[Tensor], **changes: Any) -> _Frames:
    table = "ids" if isinstance(values, Tokens) else "values"
    lengths = torch.tensor([row.shape[-1] for row in rows], dtype=torch.int64)
    changes |= {table: _stacked(rows), "lengths": lengths}
    return replace(values, **changes)
