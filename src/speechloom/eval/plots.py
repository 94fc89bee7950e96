"""Pictures of a result: its spectrogram, what was generated, and the words and phones in time.

Figures are made without pyplot, so that no backend is chosen for the rest of the program.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from speechloom.container import write_atomically
from speechloom.eval.packages import require
from speechloom.eval.spectrum import power_spectra
from speechloom.speech import Alignment, Region, Span
from speechloom.values import Audio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["save_plot", "speech_figure"]

_DYNAMIC_RANGE_DB = 80.0
_WINDOW_SECONDS = 0.025
_MAX_FRAMES = 3000  # more than a picture has columns
_REGION_COLOUR = "#ff8c00"
_INCHES_PER_SECOND = 1.6
_LETTERS_PER_INCH = 13  # of the title
_DPI = 100
_PLAIN_TEXT: dict[str, Any] = {"parse_math": False}  # a dollar sign would start a formula


def require_matplotlib() -> ModuleType:
    """Import matplotlib.

    Raises:
        BackendUnavailable: with the command that installs it.
    """
    return require("matplotlib", extra="eval", purpose="a plot")


def speech_figure(
    audio: Audio,
    *,
    regions: Sequence[Region] = (),
    alignment: Alignment | None = None,
    title: str = "",
) -> Figure:
    """Draw a spectrogram in dB with the generated regions marked and the alignment below.

    Args:
        audio: what to draw; the mean of its channels.
        regions: stretches that were generated, shaded and with a bar on top.
        alignment: words and phones to write below, each where it is known.
        title: for the top of the picture.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tiers = [] if alignment is None else [t for t in (alignment.words, alignment.phones) if t]
    width = float(np.clip(audio.seconds * _INCHES_PER_SECOND, 6, 40))
    figure = Figure(figsize=(width, 3.5 + 0.45 * len(tiers)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    heights = [6.0, *(1.0 for _ in tiers)]
    axes = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    _draw_spectrogram(axes[0], audio)
    for region in regions:
        _mark_region(axes[0], region)
    for row, spans in zip(axes[1:], tiers, strict=True):
        _draw_spans(row, spans)
    short = textwrap.shorten(title, int(width * _LETTERS_PER_INCH), placeholder=" …")
    axes[0].set_title(short, loc="left", fontsize=9, **_PLAIN_TEXT)
    axes[-1].set_xlabel("time (s)")
    axes[-1].set_xlim(0, audio.seconds)
    return figure


def _draw_spectrogram(axes: Axes, audio: Audio) -> None:
    samples = audio.mono().samples[0]
    window = max(int(_WINDOW_SECONDS * audio.sample_rate), 16)
    hop = max(window // 4, -(-len(samples) // _MAX_FRAMES))
    power = power_spectra(samples, window=window, hop=hop, fft_size=1 << (window - 1).bit_length())
    level = 10 * np.log10(np.maximum(power, 1e-12))
    peak = float(level.max())
    half_hop_seconds = hop / 2 / audio.sample_rate
    end = (len(level) * hop) / audio.sample_rate - half_hop_seconds
    image = axes.imshow(
        level.T,
        origin="lower",
        aspect="auto",
        extent=(-half_hop_seconds, end, 0, audio.sample_rate / 2000),
        vmin=peak - _DYNAMIC_RANGE_DB,
        vmax=peak,
        cmap="magma",
        interpolation="nearest",
    )
    axes.figure.colorbar(image, ax=axes, label="level (dB)", pad=0.01)
    axes.set_ylabel("frequency (kHz)")


def _mark_region(axes: Axes, region: Region) -> None:
    start, end = region.start_seconds, region.end_seconds
    axes.axvspan(start, end, facecolor=_REGION_COLOUR, alpha=0.15, label="generated")
    axes.axvspan(start, end, ymin=0.97, ymax=1.0, facecolor=_REGION_COLOUR)
    for edge in (start, end):
        axes.axvline(edge, color=_REGION_COLOUR, linewidth=1.2)


def _draw_spans(axes: Axes, spans: Sequence[Span]) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    for span in spans:
        for edge in (span.start_seconds, span.end_seconds):
            axes.axvline(edge, color="0.6", linewidth=0.8)
        centre = (span.start_seconds + span.end_seconds) / 2
        axes.text(
            centre,
            0.5,
            span.text,
            ha="center",
            va="center",
            fontsize=8,
            clip_on=True,
            **_PLAIN_TEXT,
        )


def save_plot(
    path: str | os.PathLike[str],
    audio: Audio,
    *,
    regions: Sequence[Region] = (),
    alignment: Alignment | None = None,
    title: str = "",
) -> None:
    """Write the picture of `speech_figure` as a PNG file, all of it or nothing.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        OutputError: the path cannot be written.
    """
    figure = speech_figure(audio, regions=regions, alignment=alignment, title=title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(Path(path), lambda file: file.write(buffer.getvalue()))
