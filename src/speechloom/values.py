"""The values that travel between components: frozen, checked once on creation, with their rates.

Shape letters: B batch, C channels, T samples, F frames, K codebooks, D features, V vocabulary.
`Audio` holds numpy so that it works without torch; the others hold torch tensors. Nothing here
imports torch: the tensors that come in bring it along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from speechloom.errors import AudioError, UsageError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = [
    "Audio",
    "Canvas",
    "Codes",
    "Features",
    "Phones",
    "Tokens",
    "Voice",
    "fit_length",
    "frames_in",
    "joined",
    "pad_stack",
    "samples_at",
]

LOUDEST = 2.0**31
"""Times full scale: the integers of the widest sample format; the squares of more overflow."""


def frames_in(samples: int, sample_rate: int, frame_rate: Fraction) -> int:
    """Frames that cover `samples` completely: the ceiling, exactly.

    >>> frames_in(321, 16_000, Fraction(50))
    2
    """
    return -((-samples * frame_rate.numerator) // (sample_rate * frame_rate.denominator))


def samples_at(frame: int, sample_rate: int, frame_rate: Fraction) -> int:
    """The sample at which a frame begins, rounded half up when it lies between two.

    >>> samples_at(1, 11_025, Fraction(50))
    221
    """
    exact = Fraction(frame * sample_rate) / frame_rate
    return (exact + Fraction(1, 2)).__floor__()


@dataclass(frozen=True, eq=False)
class Audio:
    """Samples with their rate.

    Attributes:
        samples: float32 [C, T], at least one channel and one sample, all finite; full scale
            is 1.0.
        sample_rate: Hz.
        subtype: sample format of the file that it came from (``PCM_16``, ...), so that a result
            can be written in the caller's own format; None for audio that came from no file.

    Raises:
        AudioError: the samples are empty, not float, of another shape, not finite, or larger than
            `LOUDEST`.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    subtype: str | None = None

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples)
        if not np.issubdtype(samples.dtype, np.floating):
            raise AudioError(
                f"samples must be floating point with full scale 1.0, but are {samples.dtype}; "
                "divide integer samples by their full scale first"
            )
        if samples.ndim == 1:
            samples = samples[None]
        if samples.ndim != 2 or samples.shape[0] == 0:
            raise AudioError(f"samples must be [C, T], but have shape {list(samples.shape)}")
        if samples.shape[1] == 0:
            raise AudioError("the audio is empty: it has no samples")
        if samples.shape[0] > 64:
            raise AudioError(
                f"the audio has {samples.shape[0]} channels; samples must be [C, T], "
                "perhaps they are [T, C]"
            )
        if not (isinstance(self.sample_rate, (int, np.integer)) and self.sample_rate > 0):
            raise AudioError(f"sample_rate must be a positive integer, but is {self.sample_rate!r}")
        with np.errstate(over="ignore"):  # what float32 cannot hold is found as infinite below
            samples = np.ascontiguousarray(samples, dtype=np.float32)
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        if bad:
            raise AudioError(f"the audio has {bad} samples that are NaN or infinite")
        if not -LOUDEST <= samples.min() <= samples.max() <= LOUDEST:
            raise AudioError(
                f"the audio reaches {np.abs(samples).max():.0e} times full scale, as no recording "
                "does; divide the samples so that they lie within -1.0 and 1.0"
            )
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "sample_rate", int(self.sample_rate))

    @property
    def channels(self) -> int:
        """C."""
        return int(self.samples.shape[0])

    @property
    def length(self) -> int:
        """T, in samples."""
        return int(self.samples.shape[1])

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.length / self.sample_rate

    @property
    def sha256(self) -> str:
        """Hash of rate, shape and samples: the identity of the audio, whatever its file."""
        head = f"{self.sample_rate}:{self.channels}:{self.length}:".encode()
        return hashlib.sha256(head + self.samples.tobytes()).hexdigest()

    def mono(self) -> Audio:
        """The mean of the channels, [1, T]."""
        if self.channels == 1:
            return self
        mean = self.samples.mean(axis=0, dtype=np.float64).astype(np.float32)
        return Audio(mean[None], self.sample_rate)

    def resampled(self, sample_rate: int) -> Audio:
        """The same audio at another rate; length is the exact ratio, rounded up.

        Args:
            sample_rate: Hz.
        """
        if sample_rate == self.sample_rate:
            return self
        import soxr

        length = -(-self.length * sample_rate // self.sample_rate)
        out = soxr.resample(self.samples.T, self.sample_rate, sample_rate, quality="HQ").T
        return Audio(fit_length(np.asarray(out, np.float32), length), sample_rate)

    def slice(self, start: int, stop: int) -> Audio:
        """Samples from `start` to `stop` (not included), as a view."""
        return Audio(self.samples[:, start:stop], self.sample_rate, self.subtype)

    def numpy(self) -> NDArray[np.float32]:
        """Samples, float32 [C, T]."""
        return self.samples

    def tensor(self) -> torch.Tensor:
        """Samples as a torch tensor, float32 [C, T]."""
        import torch

        return torch.from_numpy(self.samples.copy())

    def __repr__(self) -> str:
        return f"Audio({self.channels} x {self.seconds:.3f} s at {self.sample_rate} Hz)"


def fit_length(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Trim, or pad with zeros at the end, to [C, length]."""
    missing = length - samples.shape[-1]
    return np.pad(samples, ((0, 0), (0, missing))) if missing > 0 else samples[..., :length]


@dataclass(frozen=True)
class Phones:
    """What is to be said, as phones of one alphabet.

    Attributes:
        symbols: N phones, pauses included.
        alphabet: name of the phone set.
        words: spelling of each word.
        word_spans: for each word, its first phone and the one after its last, as indices
            into `symbols`.
        source_spans: for each word, where it stands in the text that was given, in characters;
            empty when unknown.

    Raises:
        UsageError: a span lies outside, or spans overlap or run backwards.
    """

    symbols: tuple[str, ...]
    alphabet: str
    words: tuple[str, ...] = ()
    word_spans: tuple[tuple[int, int], ...] = ()
    source_spans: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.words) != len(self.word_spans):
            raise UsageError(
                f"phones have {len(self.words)} words but {len(self.word_spans)} word spans"
            )
        if self.source_spans and len(self.source_spans) != len(self.words):
            raise UsageError(
                f"phones have {len(self.words)} words but {len(self.source_spans)} source spans"
            )
        at = 0
        for start, stop in self.word_spans:
            if not at <= start < stop <= len(self.symbols):
                raise UsageError(
                    f"word span [{start}, {stop}) must follow {at} and end by {len(self.symbols)}"
                )
            at = stop

    def __len__(self) -> int:
        return len(self.symbols)

    def word_at(self, phone: int) -> int | None:
        """Index of the word that a phone belongs to; None in a pause."""
        for index, (start, stop) in enumerate(self.word_spans):
            if start <= phone < stop:
                return index
        return None


@dataclass(frozen=True, eq=False)
class Voice:
    """A speaker as a vector.

    Attributes:
        vector: float32 [D].
        kind: the vector space, named by the speaker encoder that made it.
        name: for people; None for a voice taken from a recording.

    Raises:
        UsageError: the vector is empty, of another shape, or not finite.
    """

    vector: NDArray[np.float32]
    kind: str
    name: str | None = None

    def __post_init__(self) -> None:
        vector = np.asarray(self.vector, dtype=np.float32)
        if vector.ndim != 1 or vector.size == 0 or not np.isfinite(vector).all():
            raise UsageError(f"a voice must be finite and [D], but is {list(vector.shape)}")
        object.__setattr__(self, "vector", vector)


def _check_ids(name: str, ids: torch.Tensor, dims: str, size: int, lengths: torch.Tensor) -> None:
    """Ids must be int64 of the named dimensions and in range wherever they are not padding."""
    import torch

    expected = len(dims.split())
    if ids.dtype != torch.int64 or ids.ndim != expected:
        raise UsageError(
            f"{name} must be int64 [{', '.join(dims.split())}], but is {ids.dtype} "
            f"{list(ids.shape)} instead"
        )
    _check_lengths(name, lengths, ids.shape[0], ids.shape[-1])
    if ids.numel() and not (0 <= int(ids.min()) and int(ids.max()) < size):
        raise UsageError(
            f"{name} must lie in 0 to {size - 1}, but go from {int(ids.min())} to {int(ids.max())}"
        )


def _check_lengths(name: str, lengths: torch.Tensor, batch: int, frames: int) -> None:
    """Lengths must be int64 [B], each within the frames that there are."""
    import torch

    if lengths.dtype != torch.int64 or lengths.shape != (batch,):
        raise UsageError(
            f"{name} lengths must be int64 [{batch}], but are {lengths.dtype} "
            f"{list(lengths.shape)} instead"
        )
    if lengths.numel() and not (0 <= int(lengths.min()) and int(lengths.max()) <= frames):
        raise UsageError(f"{name} lengths must lie in 0 to {frames}, but are {lengths.tolist()}")


def _check_scales(name: str, scales: torch.Tensor | None, batch: int, frames: int) -> None:
    """Scales must be floating point [B, F], where there are any."""
    if scales is not None and (
        not scales.dtype.is_floating_point or scales.shape != (batch, frames)
    ):
        raise UsageError(
            f"{name} scales must be float32 [{batch}, {frames}], but are {scales.dtype} "
            f"{list(scales.shape)} instead"
        )


def _full_lengths(ids: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.full((ids.shape[0],), ids.shape[-1], dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Content units.

    Attributes:
        ids: int64 [B, F]; padding is 0.
        vocabulary: name of the id set.
        vocabulary_size: V.
        frame_rate: Hz; for reduced or merged units the rate of the frames they came from.
        lengths: int64 [B], frames of each item; all full when not given.
        form: ``frames`` (one id a frame), ``reduced`` (runs merged) or ``bpe``.

    Raises:
        UsageError: shape, dtype or range is wrong.
    """

    ids: torch.Tensor
    vocabulary: str
    vocabulary_size: int
    frame_rate: Fraction
    lengths: torch.Tensor = field(default=None)  # type: ignore[assignment]  # filled below
    form: Literal["frames", "reduced", "bpe"] = "frames"

    def __post_init__(self) -> None:
        if self.lengths is None:
            object.__setattr__(self, "lengths", _full_lengths(self.ids))
        _check_ids("tokens", self.ids, "B F", self.vocabulary_size, self.lengths)

    @property
    def kind(self) -> str:
        """The kind that the router matches on."""
        return f"tokens:{self.vocabulary}"

    def item(self, index: int) -> torch.Tensor:
        """Ids of one item without padding, int64 [F]."""
        return self.ids[index, : int(self.lengths[index])]


@dataclass(frozen=True, eq=False)
class Codes:
    """Acoustic codes.

    Attributes:
        ids: int64 [B, K, F]; padding is 0.
        codec: name of the code set.
        codebook_size: ids per codebook.
        frame_rate: Hz.
        lengths: int64 [B], frames of each item; all full when not given.
        scales: float32 [B, F], for codecs that normalise loudness: what each frame is multiplied
            by when it is played, 0 where it only fills up and is not played; None otherwise.

    Raises:
        UsageError: shape, dtype or range is wrong.
    """

    ids: torch.Tensor
    codec: str
    codebook_size: int
    frame_rate: Fraction
    lengths: torch.Tensor = field(default=None)  # type: ignore[assignment]  # filled below
    scales: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.lengths is None:
            object.__setattr__(self, "lengths", _full_lengths(self.ids))
        _check_ids("codes", self.ids, "B K F", self.codebook_size, self.lengths)
        batch, _, frames = self.ids.shape
        _check_scales("codes", self.scales, batch, frames)

    @property
    def kind(self) -> str:
        """The kind that the router matches on."""
        return f"codes:{self.codec}"

    @property
    def codebooks(self) -> int:
        """K."""
        return int(self.ids.shape[1])

    def item(self, index: int) -> torch.Tensor:
        """Ids of one item without padding, int64 [K, F]."""
        return self.ids[index, :, : int(self.lengths[index])]

    def slice(self, start: int, stop: int) -> Codes:
        """The frames from `start` up to `stop` of every item, with their scales."""
        return replace(
            self,
            ids=self.ids[..., start:stop],
            lengths=(self.lengths - start).clamp(0, stop - start),
            scales=None if self.scales is None else self.scales[:, start:stop],
        )


@dataclass(frozen=True, eq=False)
class Features:
    """Continuous frames, such as a mel spectrogram.

    Attributes:
        values: float32 [B, D, F].
        name: the feature kind; it fixes every parameter (scale, window, bands).
        frame_rate: Hz.
        lengths: int64 [B]; all full when not given.

    Raises:
        UsageError: shape, dtype or lengths are wrong, or a value is not finite.
    """

    values: torch.Tensor
    name: str
    frame_rate: Fraction
    lengths: torch.Tensor = field(default=None)  # type: ignore[assignment]  # filled below

    def __post_init__(self) -> None:
        import torch

        if self.values.dtype != torch.float32 or self.values.ndim != 3:
            raise UsageError(
                f"features must be float32 [B, D, F], but are {self.values.dtype} "
                f"{list(self.values.shape)} instead"
            )
        if self.lengths is None:
            object.__setattr__(self, "lengths", _full_lengths(self.values))
        _check_lengths("features", self.lengths, self.values.shape[0], self.values.shape[-1])
        if not bool(torch.isfinite(self.values).all()):
            raise UsageError("features must be finite, but hold NaN or infinite values")

    @property
    def kind(self) -> str:
        """The kind that the router matches on."""
        return f"features:{self.name}"

    def item(self, index: int) -> torch.Tensor:
        """Values of one item without padding, float32 [D, F]."""
        return self.values[index, :, : int(self.lengths[index])]


@dataclass(frozen=True, eq=False)
class Canvas:
    """What is to be made: what is known of it, its content, its voice.

    Tasks differ in nothing but their canvas. A generator fills the positions that are not known
    and leaves the others as they are.

    Attributes:
        task: ``synthesize``, ``edit``, ``continue`` or ``convert``.
        ids: int64 [B, K, F], the known ids; anything (0) where not known.
        known: bool [B, K, F].
        lengths: int64 [B], frames of each item.
        gives: kind of what is filled in (``codes:...`` or ``tokens:...``).
        codebook_size: ids per codebook.
        frame_rate: Hz.
        seeds: int64 [B], the seed of each item's request.
        items: int64 [B], number of the item within its request (its sentence, its window). With
            the seed it names the random draws, so that they do not depend on the batch.
        content: int64 [B, F], content id of each frame, -1 where there is none; None for a canvas
            with no content at all. Of ``features:...`` float32 [B, D, F], 0 where there is none.
        content_kind: ``phones:...``, ``tokens:...`` or ``features:...``; None without content.
        segments: int64 [B, F], which phone of the item a frame belongs to, so that the same
            phone twice in a row stays two; None where content is not phones.
        voices: float32 [B, D] or None.
        scales: float32 [B, F], for codes of a codec that normalises loudness: that of each known
            frame, 0 elsewhere; None where nothing is known of it.
        temperature: scales the randomness of the generator, 1.0 is its own default.

    Raises:
        UsageError: shapes, dtypes or ranges disagree.
    """

    task: Literal["synthesize", "edit", "continue", "convert"]
    ids: torch.Tensor
    known: torch.Tensor
    lengths: torch.Tensor
    gives: str
    codebook_size: int
    frame_rate: Fraction
    seeds: torch.Tensor
    items: torch.Tensor
    content: torch.Tensor | None = None
    content_kind: str | None = None
    segments: torch.Tensor | None = None
    voices: torch.Tensor | None = None
    scales: torch.Tensor | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        import torch

        # Long, but one list of independent checks: split up it would be harder to read.
        _check_ids("canvas", self.ids, "B K F", self.codebook_size, self.lengths)
        batch, _, frames = self.ids.shape
        if self.known.dtype != torch.bool or self.known.shape != self.ids.shape:
            raise UsageError(
                f"canvas known must be bool {list(self.ids.shape)}, but is {self.known.dtype} "
                f"{list(self.known.shape)} instead"
            )
        for name in ("seeds", "items"):
            value: Any = getattr(self, name)
            if value.dtype != torch.int64 or value.shape != (batch,):
                raise UsageError(f"canvas {name} must be int64 [{batch}], but is {value}")
        of_features = self.content_kind is not None and self.content_kind.startswith("features:")
        if of_features:
            self._check_features()
        for name in ("segments",) if of_features else ("content", "segments"):
            value = getattr(self, name)
            if value is None:
                continue
            if value.dtype != torch.int64 or value.shape != (batch, frames):
                raise UsageError(
                    f"canvas {name} must be int64 [{batch}, {frames}], but is {value.dtype} "
                    f"{list(value.shape)} instead"
                )
        if (self.content is None) != (self.content_kind is None):
            raise UsageError("canvas content and content_kind belong together")
        ids = None if of_features else self.content
        if ids is not None and ids.numel() and int(ids.min()) < -1:
            raise UsageError(f"canvas content ids must be -1 or more, but go from {int(ids.min())}")
        voices = self.voices
        if voices is not None and (voices.ndim != 2 or voices.shape[0] != batch):
            raise UsageError(f"canvas voices must be [{batch}, D], not {list(voices.shape)}")
        _check_scales("canvas", self.scales, batch, frames)
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(
                f"canvas temperature must be 0 or more and finite, but is {self.temperature}"
            )

    def _check_features(self) -> None:
        """Features as content must be finite float32 [B, D, F]."""
        import torch

        batch, _, frames = self.ids.shape
        value = self.content
        if value is None:
            raise UsageError("canvas content and content_kind belong together")
        if value.dtype != torch.float32 or value.ndim != 3 or value.shape[::2] != (batch, frames):
            raise UsageError(
                f"canvas content of {self.content_kind} must be float32 [{batch}, D, {frames}], "
                f"but is {value.dtype} {list(value.shape)} instead"
            )
        if not bool(torch.isfinite(value).all()):
            raise UsageError("canvas content must be finite, but holds NaN or infinite values")

    @property
    def batch(self) -> int:
        """B."""
        return int(self.ids.shape[0])


def pad_stack(items: Sequence[torch.Tensor], value: int | float = 0) -> torch.Tensor:
    """Stack tensors whose last dimension differs, padding at the end.

    Args:
        items: tensors [..., F_i] of one dtype.
        value: what padding holds.

    Returns:
        [B, ..., max F_i].
    """
    import torch

    longest = max(item.shape[-1] for item in items)
    pad = torch.nn.functional.pad
    return torch.stack([pad(item, (0, longest - item.shape[-1]), value=value) for item in items])


def joined(parts: Iterator[Audio] | Sequence[Audio]) -> Audio:
    """Audio of one rate and channel count, end to end.

    Raises:
        UsageError: there is none, or rates or channels differ.
    """
    chunks = list(parts)
    if not chunks:
        raise UsageError("nothing to join: there is no audio")
    first = chunks[0]
    if any(c.sample_rate != first.sample_rate or c.channels != first.channels for c in chunks):
        raise UsageError("audio to be joined must agree in rate and channels")
    return Audio(np.concatenate([c.samples for c in chunks], axis=1), first.sample_rate)
