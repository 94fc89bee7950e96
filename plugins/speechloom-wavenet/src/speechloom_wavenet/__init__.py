"""WaveNet vocoders, and Griffin-Lim for any mel, for speechloom."""

from speechloom_wavenet._spec import spec_for
from speechloom_wavenet.config import WaveNetConfig

__all__ = ["WaveNetConfig", "spec_for"]
