"""VITS and X-E-Speech for speechloom."""

from speechloom_vits._spec import specs_for

__all__ = ["specs_for"]
