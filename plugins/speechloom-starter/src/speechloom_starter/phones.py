"""The phone alphabet ``radio``: the US English set of the engine of the corpus."""

from __future__ import annotations

PHONES: tuple[str, ...] = tuple(
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th "
    "uh uw v w y z zh".split()
)
PHONE_IDS: dict[str, int] = {phone: index for index, phone in enumerate(PHONES)}
PAUSE = PHONE_IDS["pau"]
