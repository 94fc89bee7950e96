"""Phones at frame rate: which phone a frame is in, and in which third of it."""

from __future__ import annotations

from speechloom_speechsec.thirds import phone_thirds, thirds_of_segments
from speechloom_starter.phones import PHONES

__all__ = ["THIRDS_VOCABULARY", "phone_thirds", "thirds_of_segments"]

THIRDS_VOCABULARY = 3 * len(PHONES)
"""How many ids there are: three for every phone."""
