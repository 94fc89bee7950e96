"""VITS and X-E-Speech for speechloom."""

from speechloom_vits._spec import specs_for
from speechloom_vits._xe_spec import whisper_spec_for, x_e_specs_for

__all__ = ["specs_for", "whisper_spec_for", "x_e_specs_for"]
