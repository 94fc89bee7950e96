"""The Descript Audio Codec for speechloom."""

from speechloom_dac._spec import spec_for

__all__ = ["spec_for"]
