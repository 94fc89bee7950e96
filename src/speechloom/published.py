"""What components over public checkpoints have in common.

A plugin for a public family writes its networks, its configuration and the names of its tensors;
this is the rest: the options of its specs (`checkpoint_options`), which layout a checkpoint has
(`PublicCheckpoint`), the refusals of a checkpoint that is not what was promised (`check_promises`),
and the base of its components (`PublishedComponent`, `PublishedCodec`).

Importing this imports no torch, so that a plugin's spec can use it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechloom.checkpoints import find_checkpoint, local_path, pinned_files
from speechloom.errors import UsageError, WeightsError
from speechloom.protocols import WeightFile
from speechloom.spec import CodecFacts, ComponentSpec, TokenizerFacts
from speechloom.values import Codes, Tokens, pad_stack
from speechloom.weighted import Weighted

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "PublicCheckpoint",
    "PublishedCodec",
    "PublishedComponent",
    "buildable",
    "check_promises",
    "checkpoint_options",
    "read_json",
    "stacked_codes",
    "stacked_tokens",
]

CONFIG_FILE = "config.json"
_TRANSFORMERS = (".safetensors", ".bin")
"""File endings of the layout of transformers; others hold the original package's own."""


# Specs and files --------------------------------------------------------------------------


def checkpoint_options(
    checkpoint: str | os.PathLike[str],
    *,
    revision: str | None,
    sha256: Mapping[str, str] | None,
    **others: Any,
) -> dict[str, Any]:
    """The ``options`` of a spec whose component reads a checkpoint.

    Args:
        checkpoint: hub id, folder or file.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name.
        others: what else the component is built with.
    """
    return {
        "checkpoint": os.fspath(checkpoint),
        "revision": revision,
        "sha256": dict(sha256) if sha256 else None,
        **others,
    }


def read_json(path: Path) -> dict[str, Any]:
    """The object in a configuration file.

    Raises:
        WeightsError: the file is no JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}); get the checkpoint again") from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} is not the configuration of a model, but a {type(content).__name__}; get the "
            "checkpoint again"
        )
    return content


@dataclass(frozen=True)
class PublicCheckpoint:
    """A checkpoint in the layout of transformers, or a file of the original package.

    Attributes:
        location: hub id, folder or file.
        names: what its weights may be called, the first that exists.
        revision: of a hub id.
        sha256: promised hash by file name.
    """

    location: str | os.PathLike[str]
    names: tuple[str, ...]
    revision: str | None = None
    sha256: Mapping[str, str] | None = None

    @classmethod
    def of(cls, spec: ComponentSpec, names: tuple[str, ...]) -> PublicCheckpoint:
        """The one that a spec's `checkpoint_options` name."""
        options = spec.options
        return cls(options["checkpoint"], names, options["revision"], options["sha256"])

    def weights(self) -> Path:
        """The file of the weights.

        Raises:
            WeightsError: it cannot be found, or has another hash.
        """
        return self._find(self.location, self.names, self.revision)

    def config(self) -> dict[str, Any] | None:
        """What ``config.json`` says; None where the weights are a file of the original package.

        Of a hub id nothing but that file is asked for.

        Raises:
            WeightsError: it cannot be found or read.
        """
        if local_path(self.location) is None:
            return read_json(self._find(self.location, (CONFIG_FILE,), self.revision))
        weights = self.weights()
        if weights.suffix not in _TRANSFORMERS:
            return None
        return read_json(self._find(weights.parent, (CONFIG_FILE,), None))

    def _find(
        self, location: str | os.PathLike[str], names: tuple[str, ...], revision: str | None
    ) -> Path:
        (path,) = find_checkpoint(location, [names], revision=revision, sha256=self.sha256).values()
        return path


@contextmanager
def buildable(source: object) -> Iterator[None]:
    """Refuse sizes of which no network can be built, around what builds it.

    Args:
        source: of the sizes, for the message.

    Raises:
        WeightsError: whatever was raised, in one line.
    """
    try:
        yield
    except Exception as error:  # torch and transformers raise almost anything
        why = str(error).strip().splitlines() or ["no reason given"]
        raise WeightsError(
            f"no network can be built of the sizes in {source} ({type(error).__name__}: "
            f"{why[0][:120]}); get the checkpoint again"
        ) from error


def check_promises(
    spec: ComponentSpec,
    source: object,
    claims: Sequence[tuple[str, object, object]],
    *,
    codebooks: int,
) -> None:
    """Refuse a checkpoint that is not what a spec promises.

    Args:
        spec: of a codec or a tokenizer.
        source: the checkpoint, for the message.
        claims: name, what the spec promises, what the checkpoint has.
        codebooks: that the checkpoint has; at least those of a codec's spec.

    Raises:
        WeightsError: naming the first claim that does not hold.
    """
    package = spec.implementation.partition(".")[0]
    for name, promised, found in claims:
        if promised != found:
            raise WeightsError(
                f"{spec.id} promises {name} {promised}, but {source} has {found}; give a "
                f"checkpoint of that model, or make a spec for this one with {package}.spec_for"
            )
    wanted = spec.facts.codebooks if isinstance(spec.facts, CodecFacts) else 1
    if codebooks < wanted:
        raise WeightsError(
            f"{spec.id} promises {wanted} codebooks, but {source} has {codebooks}; make a spec "
            f"for it with {package}.spec_for"
        )


# Components -------------------------------------------------------------------------------


class PublishedComponent(Weighted):
    """A component whose spec has `checkpoint_options`."""

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """The files whose hash the spec pins; nothing is loaded."""
        options = spec.options
        return pinned_files(
            options["checkpoint"], revision=options["revision"], sha256=options["sha256"]
        )


class PublishedCodec(PublishedComponent):
    """A codec of several levels, of which the first may be given alone."""

    @property
    def facts(self) -> CodecFacts:
        """The facts of its spec."""
        assert isinstance(self._spec.facts, CodecFacts)
        return self._spec.facts

    def check_codes(self, codes: Codes) -> None:
        """Refuse codes that it does not play.

        Raises:
            UsageError: they are of another codec, or have more levels than it uses.
        """
        facts = self.facts
        if codes.codec != facts.codes or not 1 <= codes.codebooks <= facts.codebooks:
            raise UsageError(
                f"{self.spec.id} takes 1 to {facts.codebooks} codebooks of codes:{facts.codes}, "
                f"but got {codes.codebooks} of {codes.kind}"
            )
        if codes.codebook_size != facts.codebook_size:
            raise UsageError(
                f"{self.spec.id} has {facts.codebook_size} ids per codebook, but the codes have "
                f"{codes.codebook_size}"
            )

    def check_level(self, level: int) -> None:
        """Refuse a level that it does not have.

        Raises:
            UsageError: there is no such level.
        """
        levels = self.facts.codebooks
        if not 0 <= level < levels:
            raise UsageError(f"{self.spec.id} has levels 0 to {levels - 1}, not {level}")

    def check_playable(self, codes: Codes) -> None:
        """Refuse codes that it does not play, or that hold nothing to play.

        Raises:
            UsageError: as `check_codes`, or an item has no frames.
        """
        self.check_codes(codes)
        if not bool((codes.lengths > 0).all()):
            raise UsageError(
                f"{self.spec.id} cannot play codes of no frames: the items have "
                f"{codes.lengths.tolist()} frames; leave the empty ones out"
            )

    def check_single(self, codes: Codes) -> None:
        """Refuse codes that it cannot stream: those that it does not play, or of several items.

        Raises:
            UsageError: as `check_playable`, or there is not exactly one item.
        """
        self.check_playable(codes)
        if len(codes.lengths) != 1:
            raise UsageError(f"one item can be streamed at a time, not {len(codes.lengths)}")


def stacked_codes(
    rows: Sequence[Tensor], facts: CodecFacts, scales: Sequence[Tensor] | None = None
) -> Codes:
    """One value of the codes of several recordings.

    Args:
        rows: ids int64 [K, F_i] of each, on any device.
        facts: of the codec.
        scales: float [F_i] of each, where the codec normalises loudness.

    Raises:
        UsageError: there is no recording.
    """
    ids = _on_cpu(rows)
    return Codes(
        pad_stack(ids),
        facts.codes,
        facts.codebook_size,
        facts.frame_rate,
        _lengths(ids),
        scales=pad_stack([one.cpu() for one in scales]) if scales else None,
    )


def stacked_tokens(rows: Sequence[Tensor], facts: TokenizerFacts) -> Tokens:
    """One value of the units of several recordings.

    Args:
        rows: ids int64 [F_i] of each, on any device.
        facts: of the tokenizer.

    Raises:
        UsageError: there is no recording.
    """
    ids = _on_cpu(rows)
    size, rate = facts.vocabulary_size, facts.frame_rate
    return Tokens(pad_stack(ids), facts.vocabulary, size, rate, _lengths(ids))


def _on_cpu(rows: Sequence[Tensor]) -> list[Tensor]:
    if not rows:
        raise UsageError("there is no audio to encode; give at least one recording")
    return [row.cpu() for row in rows]


def _lengths(rows: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.tensor([row.shape[-1] for row in rows], dtype=torch.int64)
