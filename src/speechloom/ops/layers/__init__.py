"""The layers of a network at inference: by torch, by oneDNN's weights, or as compiled loops.

A network asks for its layers once (`make`) and is the same code for all of them. See `README.md`.
"""

from speechloom.ops.layers.choice import IMPLEMENTATIONS, fastest, make, unavailable
from speechloom.ops.layers.protocol import ENDS, Convolution, Layers, Linear, Norm, Rotary

__all__ = [
    "ENDS",
    "IMPLEMENTATIONS",
    "Convolution",
    "Layers",
    "Linear",
    "Norm",
    "Rotary",
    "fastest",
    "make",
    "unavailable",
]
