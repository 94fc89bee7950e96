"""What a speaker encoder hears of a recording: its speech, loud enough, without the pauses.

The steps are those of resemblyzer and Real-Time-Voice-Cloning: loudness raised to -30 dBFS, then
blocks of 30 ms judged as speech or not, smoothed over 8 blocks, and up to 6 blocks of pause
kept. They judge with the detector of WebRTC (``vad="webrtc"``, package ``webrtcvad``); the default
judges by energy alone and needs no package, so that a voice is the same wherever it is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Literal

import numpy as np

from speechloom.errors import BackendUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Vad", "louder", "speech_blocks", "speech_of"]

Vad = Literal["energy", "webrtc", "none"]
"""How speech is told from silence."""

SAMPLE_RATE = 16_000
BLOCK = 480
"""Samples that are judged at once, 30 ms."""

SMOOTHED_BLOCKS = 8
LONGEST_PAUSE = 6
"""Blocks of pause that stay."""

LOUDNESS_DBFS = -30.0
SILENCE_DBFS = -60.0
"""A recording of which no block is louder holds no speech."""

BELOW_SPEECH = 30.0
"""dB under the loudest twentieth of the blocks at which a block is a pause."""


def speech_of(samples: NDArray[np.float32], vad: Vad) -> NDArray[np.float32]:
    """The speech of a recording.

    Args:
        samples: float32 [T] at 16 kHz.
        vad: ``energy``, ``webrtc``, or ``none``, which only looks whether there is any sound.

    Returns:
        float32, at most T samples; empty where there is no speech.

    Raises:
        BackendUnavailable: ``webrtc`` without the package.
    """
    if _loudest_dbfs(samples) < SILENCE_DBFS:
        return samples[:0]
    loud = louder(samples)
    if vad == "none":
        return loud
    whole = loud[: len(loud) // BLOCK * BLOCK]
    judged = _webrtc(whole) if vad == "webrtc" else _energetic(whole)
    return whole[np.repeat(speech_blocks(judged), BLOCK)]


def louder(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Raise a quiet recording [T] to a loudness of -30 dBFS; a louder one stays."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    gain = 10 ** (LOUDNESS_DBFS / 20) / np.sqrt(power) if power > 0 else 1.0
    return (samples * max(1.0, gain)).astype(np.float32)


def speech_blocks(judged: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which blocks stay: a moving majority, widened by half the longest pause on both sides.

    Args:
        judged: bool [N], whether each block has speech.

    Returns:
        bool [N].
    """
    if judged.size == 0:
        return judged
    before = (SMOOTHED_BLOCKS - 1) // 2
    padded = np.pad(judged.astype(np.float64), (before, SMOOTHED_BLOCKS - 1 - before))
    mean = np.convolve(padded, np.ones(SMOOTHED_BLOCKS) / SMOOTHED_BLOCKS, mode="valid")
    spoken = np.round(mean) > 0
    reach = LONGEST_PAUSE // 2
    wide = np.convolve(spoken, np.ones(2 * reach + 1))[reach : reach + len(spoken)]
    kept: NDArray[np.bool_] = wide > 0.5
    return kept


def _blocks(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)


def _levels(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Loudness of each block, dBFS."""
    power = np.mean(np.square(_blocks(samples), dtype=np.float64), axis=1)
    levels: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 1e-12))
    return levels


def _loudest_dbfs(samples: NDArray[np.float32]) -> float:
    return float(_levels(samples).max(initial=-120.0))


def _energetic(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    levels = _levels(samples)
    if levels.size == 0:
        return np.zeros(0, np.bool_)
    judged: NDArray[np.bool_] = levels > np.percentile(levels, 95) - BELOW_SPEECH
    return judged


def _webrtc(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    try:
        webrtcvad = importlib.import_module("webrtcvad")
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f'vad "webrtc" needs {error.name}, which is not installed; run `pip install webrtcvad '
            '"setuptools<81"`, or use vad "energy"',
            plugin="speechloom-sv2tts:ge2e",
        ) from error
    detector = webrtcvad.Vad(mode=3)
    pcm = np.round(_blocks(samples) * 32767).astype("<i2")
    return np.array([detector.is_speech(block.tobytes(), SAMPLE_RATE) for block in pcm], np.bool_)
