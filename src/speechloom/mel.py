"""Mel spectrograms: one place that fixes every parameter, and the kind that names them all.

Two mel spectrograms of one recording differ by more than their size: the filters, amplitude or
power, the logarithm, the floor under it and the range it is scaled to are all free, and a vocoder
that is given the right shape on the wrong scale plays noise. A `MelSpec` holds all of them, and its
`kind` spells them out, so that the router matches generators and vocoders on every one of them.

>>> spec = MelSpec.from_kind(RTVC_SYNTHESIZER.kind)
>>> spec == RTVC_SYNTHESIZER, spec.hop
(True, 200)

``RTVC_SYNTHESIZER`` (16 kHz, hop 200, 80 bands, scaled to -4..4) is the mel that the project's own
Tacotron 2 gives and its own WaveNet takes.

Importing this imports no torch, so that a plugin's light modules can name kinds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from speechloom.errors import UsageError
from speechloom.values import Audio, Features, frames_in, pad_stack

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "GE2E",
    "R9Y9_WAVENET",
    "RTVC_SYNTHESIZER",
    "TACOTRON2",
    "MelSpec",
    "mel_filters",
]

_PREFIX = "mel-"
_UNITS_PER_LOG10 = {"ln": math.log(10.0), "log10": 1.0}


def _increasing(value: tuple[float, float]) -> tuple[float, float]:
    if not (math.isfinite(value[0]) and math.isfinite(value[1]) and value[0] < value[1]):
        raise ValueError(f"a range goes from low to high, not from {value[0]} to {value[1]}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_increasing)]


class MelSpec(BaseModel):
    """Every parameter of a mel spectrogram.

    A frame is the mel-weighted spectrum under a periodic Hann window; F = ceil(T / hop) frames
    cover T samples. The first F frames are those of ``librosa.stft`` with the same settings (which
    gives one more when T is a multiple of the hop).

    Attributes:
        rate: sample rate, Hz.
        fft: points of the transform.
        win: samples of the window, centred in the transform.
        hop: samples from one frame to the next.
        bands: D, mel bands.
        low: lower edge of the lowest band, Hz.
        high: upper edge of the highest band, Hz.
        scale: the mel scale: ``slaney`` (linear below 1 kHz) or ``htk``.
        norm: ``area`` makes the triangles equal in area (librosa's default), ``peak`` in height.
        measure: what is weighted and summed: the ``amplitude`` or the ``power`` of each bin.
        preemphasis: k of y[t] = x[t] - k x[t-1] before the transform; 0 for none.
        edges: what lies beyond the recording: ``reflect`` or ``zeros`` with frames centred on
            multiples of the hop, or ``hop`` (HiFi-GAN's: reflected, frame f is centred in the
            hop samples that it stands for).
        log: ``ln``, ``log10``, ``db`` (20 log10 of an amplitude, 10 log10 of a power) or ``none``.
        floor: smallest value that goes into the logarithm, in the unit of `measure`; None without
            a logarithm.
        span: the logarithms that are kept, low and high; what lies outside is clipped to them.
            None keeps all.
        onto: the range that `span` is mapped onto; None where there is no `span`.

    Raises:
        pydantic.ValidationError: parameters are out of range or disagree.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: int = Field(gt=0)
    fft: int = Field(gt=1)
    win: int = Field(gt=0)
    hop: int = Field(gt=0)
    bands: int = Field(gt=0)
    low: float = Field(ge=0)
    high: float = Field(gt=0)
    scale: Literal["slaney", "htk"] = "slaney"
    norm: Literal["area", "peak"] = "area"
    measure: Literal["amplitude", "power"] = "amplitude"
    preemphasis: float = Field(default=0.0, ge=0, lt=1)
    edges: Literal["reflect", "zeros", "hop"] = "reflect"
    log: Literal["ln", "log10", "db", "none"] = "ln"
    floor: float | None = Field(default=1e-5, gt=0)
    span: Range | None = None
    onto: Range | None = None

    @model_validator(mode="after")
    def _parameters_agree(self) -> MelSpec:
        problems = {
            f"win {self.win} is longer than fft {self.fft}": self.win > self.fft,
            f"hop {self.hop} is longer than win {self.win}": self.hop > self.win,
            f"bands must lie in low < high <= rate / 2, not {self.low:g} to {self.high:g} Hz at "
            f"{self.rate} Hz": not self.low < self.high <= self.rate / 2,
            "floor belongs to a logarithm, and only there": (self.floor is None)
            != (self.log == "none"),
            "span and onto belong together, and to a logarithm": (self.span is None)
            != (self.onto is None)
            or (self.span is not None and self.log == "none"),
        }
        wrong = [problem for problem, is_so in problems.items() if is_so]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    # The name -----------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """The feature kind: every parameter that is not None, in order.

        It is what `Features.name` and `VocoderFacts.features` hold; a generator gives
        ``features:<kind>``.
        """
        given = {name: value for name, value in self if value is not None}
        return _PREFIX + ",".join(f"{name}={_written(value)}" for name, value in given.items())

    @classmethod
    def from_kind(cls, kind: str) -> MelSpec:
        """The parameters that a kind names.

        Args:
            kind: as `kind` gives it, with or without ``features:`` before it.

        Raises:
            UsageError: it is not the kind of a mel spectrogram, or not a possible one.
        """
        name = kind.removeprefix("features:")
        if not name.startswith(_PREFIX):
            raise UsageError(
                f"features of kind {kind!r} are no mel spectrogram; its kind begins with "
                f"{_PREFIX!r}, as MelSpec.kind writes it"
            )
        pairs = [part.partition("=") for part in name.removeprefix(_PREFIX).split(",")]
        values: dict[str, Any] = {"floor": None}
        values |= {key: value.split(":") if ":" in value else value for key, _, value in pairs}
        try:
            spec = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "parameters"
            raise UsageError(
                f"the mel kind {kind!r} is not valid: {where}: {first['msg']}; build it with "
                "MelSpec(...).kind"
            ) from error
        if spec.kind != name:
            raise UsageError(f"the mel kind {kind!r} is not in its one form, {spec.kind!r}")
        return spec

    # What follows from the parameters -----------------------------------------------------

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.rate, self.hop)

    @property
    def silence(self) -> float:
        """The value of digital silence, the lowest there is."""
        if self.floor is None:
            return 0.0
        return float(self._scaled(np.asarray(self._log_of(self.floor))))

    def frames(self, samples: int) -> int:
        """F, frames of so many samples at the rate of the spec."""
        return frames_in(samples, self.rate, self.frame_rate)

    # From audio to features ---------------------------------------------------------------

    def compute(self, audio: Audio | Sequence[Audio]) -> Features:
        """The mel spectrograms of recordings.

        Args:
            audio: one recording or B of them, of any rate and channels: they are brought to the
                rate of the spec and mixed to mono.

        Returns:
            Features [B, D, F] on the CPU, item i with ceil(T_i / hop) frames; padding is silence.

        Raises:
            UsageError: there is no recording.
        """
        import torch

        batch = [audio] if isinstance(audio, Audio) else list(audio)
        if not batch:
            raise UsageError("no recording was given; give at least one")
        samples = [one.mono().resampled(self.rate).samples for one in batch]
        items = [self.of_samples(torch.from_numpy(np.ascontiguousarray(s)))[0] for s in samples]
        lengths = torch.tensor([item.shape[-1] for item in items])
        return Features(pad_stack(items, self.silence), self.kind, self.frame_rate, lengths)

    def of_samples(self, samples: Tensor) -> Tensor:
        """The mel spectrogram of samples at the rate of the spec; gradients flow through it.

        Args:
            samples: float [B, T] on any device, T at least 1.

        Returns:
            float32 [B, D, F] with F = ceil(T / hop).
        """
        import torch

        frames = self.frames(samples.shape[-1])
        with torch.autocast(samples.device.type, enabled=False):
            padded = self._padded(_preemphasized(samples.float(), self.preemphasis))
            window = _window(self.win, samples.device)
            spectrum = torch.stft(
                padded, self.fft, self.hop, self.win, window, center=False, return_complex=True
            )[..., :frames]
            squared = spectrum.real.square() + spectrum.imag.square()
            # The square root has no slope at 0: digital silence would give NaN gradients.
            power = squared.clamp(min=1e-20)
            bins = squared if self.measure == "power" else power.sqrt()
            return self.compress(torch.tensor(self.filters(), device=samples.device) @ bins)

    def filters(self) -> NDArray[np.float32]:
        """The mel filters, float32 [D, fft // 2 + 1]."""
        return mel_filters(
            self.rate, self.fft, self.bands, self.low, self.high, scale=self.scale, norm=self.norm
        )

    def compress(self, mel: Tensor) -> Tensor:
        """From mel-weighted amplitudes or powers, [..., D, F], to the values of the spec."""
        if self.floor is None:
            return mel
        return cast("Tensor", self._scaled(mel.clamp(min=self.floor).log10() * self._unit))

    def expand(self, values: Tensor) -> Tensor:
        """The inverse of `compress`, of any shape, as far as nothing was clipped or floored."""
        if self.floor is None:
            return values
        if self.span is not None and self.onto is not None:
            slope = (self.span[1] - self.span[0]) / (self.onto[1] - self.onto[0])
            values = self.span[0] + (values - self.onto[0]) * slope
        return (values / self._unit * math.log(10.0)).exp()

    # From one spec to another -------------------------------------------------------------

    def converts_to(self, other: MelSpec) -> bool:
        """Whether values of this spec hold all that values of another do.

        They do when only the logarithm's unit, floor, span and scaling differ and this spec keeps
        at least the range that the other keeps.
        """
        ours, theirs = self._kept(), other._kept()
        return (
            self.model_dump(exclude=_COMPRESSION) == other.model_dump(exclude=_COMPRESSION)
            and ours[0] <= theirs[0] * (1 + 1e-9)
            and ours[1] >= theirs[1] * (1 - 1e-9)
        )

    def convert(self, features: Features, to: MelSpec) -> Features:
        """The same frames on the scale of another spec; exact up to float32 rounding.

        Raises:
            UsageError: the features are of another kind, or cannot be converted without loss.
        """
        if features.name != self.kind:
            raise UsageError(
                f"features are of kind {features.name}, not {self.kind}; convert them by their own "
                "MelSpec"
            )
        if not self.converts_to(to):
            raise UsageError(
                f"mel of kind {self.kind} cannot be made {to.kind} exactly: more differs than the "
                "scaling, or the source is clipped closer; compute it from audio"
            )
        values = to.compress(self.expand(features.values))
        return Features(values, to.kind, to.frame_rate, features.lengths)

    def _kept(self) -> tuple[float, float]:
        """The mel amplitudes (or powers) between which nothing is lost."""
        if self.floor is None:
            return 0.0, math.inf
        if self.span is None:
            return self.floor, math.inf
        low, high = (10.0 ** (edge / self._unit) for edge in self.span)
        return max(low, self.floor), high

    @property
    def _unit(self) -> float:
        """Units of the logarithm per factor of ten."""
        if self.log == "db":
            return 20.0 if self.measure == "amplitude" else 10.0
        return _UNITS_PER_LOG10[self.log]

    def _log_of(self, value: float) -> float:
        return math.log10(value) * self._unit

    def _scaled(self, logarithm: Any) -> Any:
        """Clip to `span` and map it onto `onto`; tensors and arrays alike."""
        if self.span is None or self.onto is None:
            return logarithm
        slope = (self.onto[1] - self.onto[0]) / (self.span[1] - self.span[0])
        return self.onto[0] + (logarithm.clip(*self.span) - self.span[0]) * slope

    def _padded(self, samples: Tensor) -> Tensor:
        """Samples with what lies beyond their ends, so that frame 0 begins at index 0."""
        import torch

        pad = torch.nn.functional.pad
        length = samples.shape[-1]
        if self.edges == "zeros":
            return pad(samples, (self.fft // 2, self.fft // 2))
        if self.edges == "hop":
            before = (self.fft - self.hop) // 2
            # Whole hops, so that the last frame stands for the samples that are left over.
            wanted = max(self.frames(length) * self.hop, before + 1)
        else:
            before, wanted = self.fft // 2, max(length, self.fft // 2 + 1)
        after = self.fft - self.hop - before if self.edges == "hop" else before
        whole = pad(samples, (0, max(wanted, after + 1) - length))
        return pad(whole, (before, after), mode="reflect")


_COMPRESSION = {"log", "floor", "span", "onto"}
"""The parameters that only change how a mel value is written down."""


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ":".join(_written(part) for part in value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e9 else repr(value)
    return str(value)


def _preemphasized(samples: Tensor, factor: float) -> Tensor:
    if factor == 0:
        return samples
    import torch

    before = torch.nn.functional.pad(samples[..., :-1], (1, 0))
    return samples - factor * before


@lru_cache(maxsize=16)
def _window(size: int, device: torch.device) -> Tensor:
    import torch

    # It is kept: one that was made while speaking must serve training, too.
    with torch.inference_mode(False):
        return torch.hann_window(size, dtype=torch.float64).to(device, torch.float32)


@lru_cache(maxsize=16)
def mel_filters(
    rate: int,
    fft: int,
    bands: int,
    low: float,
    high: float,
    *,
    scale: Literal["slaney", "htk"] = "slaney",
    norm: Literal["area", "peak"] = "area",
) -> NDArray[np.float32]:
    """Triangular filters, equally spaced on a mel scale.

    Args:
        rate: sample rate, Hz.
        fft: points of the transform.
        bands: D.
        low: lower edge of the first triangle, Hz.
        high: upper edge of the last, Hz.
        scale: ``slaney`` (Auditory Toolbox, Slaney 1998) or ``htk`` (2595 log10(1 + f / 700)).
        norm: ``area``: each triangle is divided by half its width in Hz; ``peak``: its top is 1.

    Returns:
        float32 [D, fft // 2 + 1], read-only.
    """
    to_mel, to_hertz = _SCALES[scale]
    edges = to_hertz(np.linspace(to_mel(np.array(low)), to_mel(np.array(high)), bands + 2))
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.arange(fft // 2 + 1) * rate / fft
    rising = (frequencies - left) / (centre - left)
    falling = (right - frequencies) / (right - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "area":
        triangles = triangles * 2.0 / (right - left)
    filters: NDArray[np.float32] = triangles.astype(np.float32)
    filters.setflags(write=False)
    return filters


_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_MEL_PER_NEPER = 27.0 / math.log(6.4)


def _slaney_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK_MEL + _MEL_PER_NEPER * np.log(np.maximum(hertz, _BREAK_HZ) / _BREAK_HZ)
    return np.where(hertz < _BREAK_HZ, hertz / _LINEAR_HZ_PER_MEL, above)


def _slaney_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK_HZ * np.exp((mel - _BREAK_MEL) / _MEL_PER_NEPER)
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, above)


def _htk_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2595.0 * np.log10(1.0 + hertz / 700.0)


def _htk_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    hertz: NDArray[np.float64] = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return hertz


_SCALES: Mapping[str, tuple[Any, Any]] = {
    "slaney": (_slaney_mel, _slaney_hertz),
    "htk": (_htk_mel, _htk_hertz),
}

RTVC_SYNTHESIZER = MelSpec(
    rate=16_000,
    fft=800,
    win=800,
    hop=200,
    bands=80,
    low=55,
    high=7600,
    preemphasis=0.97,
    log="db",
    floor=1e-5,
    span=(-80, 20),
    onto=(-4, 4),
)
"""Real-Time-Voice-Cloning's synthesizer and vocoder (its recordings are scaled to a peak of 0.9),
and the mel that the project trains its own Tacotron 2 and WaveNet on."""

GE2E = MelSpec(
    rate=16_000,
    fft=400,
    win=400,
    hop=160,
    bands=40,
    low=0,
    high=8000,
    measure="power",
    log="none",
    floor=None,
)
"""The GE2E speaker encoder of Real-Time-Voice-Cloning and resemblyzer: mel powers, no logarithm."""

TACOTRON2 = MelSpec(
    rate=22_050, fft=1024, win=1024, hop=256, bands=80, low=0, high=8000, log="ln", floor=1e-5
)
"""NVIDIA's Tacotron 2 and WaveGlow (frames centred on multiples of the hop)."""

R9Y9_WAVENET = MelSpec(
    rate=22_050, fft=1024, win=1024, hop=256, bands=80, low=125, high=7600, log="log10", floor=1e-10
)
"""The recipes of r9y9/wavenet_vocoder, before they standardise each band over the corpus."""
