from __future__ import annotations

import struct
import sys
import zlib

import numpy as np
import pytest

from speechloom.errors import OutputError
from speechloom.eval import save_plot, speech_figure
from speechloom.speech import Alignment, Region, Span
from speechloom.values import Audio

RATE = 16_000


def pixels(path) -> np.ndarray:
    """Pixels [height, width, 4] of an RGBA png."""
    from matplotlib.image import imread

    return np.round(imread(path) * 255).astype(int)


@pytest.fixture
def alignment():
    words = (Span("$five", 0.0, 0.5), Span("dollars", 0.5, 1.0))
    phones = (Span("f", 0.0, 0.2), Span("ay", 0.2, 0.5))
    return Alignment(words, phones)


def test_the_file_is_a_whole_png_with_content(tmp_path, babble, alignment):
    path = tmp_path / "plot.png"
    region = Region(RATE // 2, RATE, RATE)
    save_plot(path, babble(1.0), regions=[region], alignment=alignment, title="a $5 title $")
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width >= 600
    assert height >= 400
    assert data[-8:-4] == b"IEND"
    assert struct.unpack(">I", data[-4:])[0] == zlib.crc32(b"IEND")
    colours = np.unique(pixels(path).reshape(-1, 4), axis=0)
    assert len(colours) > 200
    with pytest.raises(OutputError, match="cannot be written"):
        save_plot(tmp_path / "absent" / "plot.png", babble(0.5))


def test_a_region_is_marked_where_it_lies(tmp_path, babble):
    audio = babble(1.0)
    save_plot(tmp_path / "plain.png", audio)
    save_plot(tmp_path / "marked.png", audio, regions=[Region(0, RATE // 2, RATE)])
    plain, marked = pixels(tmp_path / "plain.png"), pixels(tmp_path / "marked.png")
    assert plain.shape == marked.shape
    changed = np.flatnonzero((plain != marked).any(axis=(0, 2)))
    figure = speech_figure(audio)
    figure.canvas.draw()
    left, right = figure.axes[0].get_window_extent().intervalx
    assert changed.min() == pytest.approx(left, abs=3)
    assert changed.max() == pytest.approx((left + right) / 2, abs=3)


def test_the_alignment_has_a_row_for_each_tier(babble, alignment):
    audio = babble(1.0)
    figure = speech_figure(audio, alignment=alignment)
    rows = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert ["$five", "dollars"] in rows
    assert ["f", "ay"] in rows
    assert len(speech_figure(audio).axes) == len(speech_figure(audio, alignment=Alignment()).axes)
    assert len(figure.axes) == len(speech_figure(audio).axes) + 2


def test_a_tone_is_drawn_at_its_frequency(sine):
    image = speech_figure(Audio(sine(2000.0), RATE)).axes[0].images[0]
    low, high = image.get_extent()[2:]
    level = image.get_array()
    row = int(level[:, level.shape[1] // 2].argmax())
    assert low + (row + 0.5) / level.shape[0] * (high - low) == pytest.approx(2.0, abs=0.05)


def test_no_window_system_is_chosen_for_the_rest_of_the_program(tmp_path, babble, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    save_plot(tmp_path / "plot.png", babble(0.5))
    assert "matplotlib.pyplot" not in sys.modules
