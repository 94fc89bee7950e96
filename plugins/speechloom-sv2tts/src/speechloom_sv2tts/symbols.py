"""The characters that NVIDIA's Tacotron 2 reads, and where they stand in its embedding."""

from __future__ import annotations

__all__ = ["CHARACTERS", "NVIDIA_IDS", "PAUSE"]

PAUSE = "|"
"""Written for the space: a phone's name holds no white space."""

_NVIDIA = "_-!'(),.:;? ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SPOKEN = "!'(),-.:;?abcdefghijklmnopqrstuvwxyz"
"""Of its 148 symbols those that its text rules leave: capitals and ARPAbet never came up."""

CHARACTERS: tuple[str, ...] = (PAUSE, *_SPOKEN)
"""The alphabet: the pause, marks and letters."""
NVIDIA_IDS: dict[str, int] = {PAUSE: _NVIDIA.index(" "), **{c: _NVIDIA.index(c) for c in _SPOKEN}}
"""Row of each character in the embedding of NVIDIA's checkpoint."""
