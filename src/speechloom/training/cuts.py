"""Reading the examples of a lhotse cut set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechloom.errors import BackendUnavailable, UsageError
from speechloom.training.example import Example
from speechloom.training.manifest import all_problems

__all__ = ["read_cuts"]

PHONES = ("phone", "phones", "phoneme", "phonemes")
"""Names under which lhotse's supervisions keep the alignment of phones."""


def read_cuts(path: Path) -> tuple[Example, ...]:
    """Read a cut set (``cuts.jsonl.gz`` and whatever else lhotse reads).

    A cut is a stretch of one channel of one audio file with at most one supervision; recordings
    that lhotse would change while it reads them are refused, since the file's bytes name an item in
    the cache: save such cuts as audio first (``cuts.save_audios``).

    Args:
        path: the file.

    Raises:
        BackendUnavailable: lhotse is not installed.
        UsageError: the set cannot be read or is empty, or cuts cannot be used: all of them are
            listed.
    """
    try:
        from lhotse import CutSet
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"cut sets need lhotse, and {error.name!r} is not installed; run "
            "`pip install 'speechloom[lhotse]'`, or give a JSONL manifest",
            plugin="speechloom:train",
        ) from error
    try:
        cuts = list(CutSet.from_file(path))
    except Exception as error:  # lhotse raises almost anything on files that are no cut sets
        raise UsageError(
            f"{path} cannot be read as a lhotse cut set ({type(error).__name__}: {error})"
        ) from error
    examples, problems = [], []
    for cut in cuts:
        try:
            examples.append(_example(cut, path))
        except UsageError as error:
            problems.append(f"{path}, cut {cut.id}: {error}")
    if problems:
        raise UsageError(all_problems(problems, "cuts cannot be used"))
    if not examples:
        raise UsageError(f"the cut set {path} is empty")
    return tuple(examples)


def _example(cut: Any, path: Path) -> Example:
    said = cut.supervisions
    if len(said) > 1:
        raise UsageError(f"it has {len(said)} supervisions; cut them apart (trim_to_supervisions)")
    one = said[0] if said else None
    return Example(
        audio=_audio_file(cut, path),
        id=cut.id,
        text=one.text if one else None,
        speaker=one.speaker if one else None,
        language=one.language if one else None,
        start=cut.start,
        end=round(cut.start + cut.duration, 8),
        alignment=_alignment(one) if one else None,
        tags={name: str(value) for name, value in (one.custom or {}).items()} if one else {},
        place=f"{path}, cut {cut.id}",
    )


def _audio_file(cut: Any, path: Path) -> Path:
    recording = getattr(cut, "recording", None)
    if recording is None:
        raise UsageError("it has no single recording (mixed, padded or features only)")
    if recording.transforms:
        raise UsageError("its recording is changed while it is read; save it as audio first")
    sources = recording.sources
    if len(sources) != 1 or sources[0].type != "file" or recording.num_channels != 1:
        raise UsageError("its recording must be one file of one channel; save it as audio first")
    audio = Path(sources[0].source)
    # Lhotse takes relative paths from where the command runs; beside the set is where they move.
    found = audio if audio.is_absolute() or audio.is_file() else path.parent / audio
    if not found.is_file():
        raise UsageError(f"there is no file {found}")
    return found


def _alignment(supervision: Any) -> tuple[tuple[str, float], ...] | None:
    """Phones and their ends; lhotse's times of a supervision start with its cut."""
    for name in PHONES:
        items = (supervision.alignment or {}).get(name)
        if items:
            return tuple((item.symbol, round(item.start + item.duration, 8)) for item in items)
    return None
