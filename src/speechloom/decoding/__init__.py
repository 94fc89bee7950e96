"""Masked decoding: the schedule, the loop, and what a network must offer to them."""

from speechloom.decoding.config import DecodeConfig
from speechloom.decoding.loop import masked_decode
from speechloom.decoding.network import MaskedNetwork
from speechloom.decoding.schedule import anneal, open_after

__all__ = ["DecodeConfig", "MaskedNetwork", "anneal", "masked_decode", "open_after"]
