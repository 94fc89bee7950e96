"""EnCodec for speechloom."""

from speechloom_encodec._spec import spec_for

__all__ = ["spec_for"]
