"""Draw the picture of the home page from the signatures of `speechloom.protocols`.

    python docs/make_picture.py

Boxes are the protocols, with the method that makes speech out of their input; the words on the
arrows are the types in that method's signature. A test compares the file with this script's output,
so that the picture says what the code says.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from speechloom import protocols

TARGET = Path(__file__).parent / "assets" / "parts.svg"
VALUES = "Audio|Tokens|Codes|Features|Phones|Voice|Canvas|str"
WIDTH, HEIGHT, ROW = 1000, 412, 84
BOX = 170, 56
LEFT, PLAN, GENERATOR, RIGHT = 90, 430, 580, 820
"""Where the columns begin."""

FIRST_COLUMN = (
    ("Frontend", "phonemize"),
    ("Tokenizer", "encode"),
    ("Codec", "encode"),
    ("SpeakerEncoder", "embed"),
    ("Aligner", "align"),
)


def values(text: str) -> str:
    """The value types that an annotation names, in order."""
    return ", ".join(dict.fromkeys(re.findall(rf"\b({VALUES})\b", text)))


def takes(protocol: str, method: str) -> str:
    """What goes into a method."""
    signature = inspect.signature(getattr(getattr(protocols, protocol), method))
    return values(
        " ".join(
            str(p.annotation)
            for p in signature.parameters.values()
            if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"
        )
    )


def gives(protocol: str, method: str) -> str:
    """What comes out of it."""
    signature = inspect.signature(getattr(getattr(protocols, protocol), method))
    return values(str(signature.return_annotation)) or "seconds of each phone"


def box(x: int, y: int, title: str, method: str) -> str:
    """A protocol."""
    width, height = BOX
    middle = x + width // 2
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" class="box"/>'
        f'<text x="{middle}" y="{y + 24}" class="name">{title}</text>'
        f'<text x="{middle}" y="{y + 45}" class="code">{method}</text>'
    )


def arrow(x1: int, y1: int, x2: int, y2: int, word: str = "") -> str:
    """An arrow, with a word over its middle."""
    line = f'<path d="M{x1} {y1} L{x2} {y2}" class="arrow" marker-end="url(#head)"/>'
    if not word:
        return line
    return line + f'<text x="{(x1 + x2) // 2}" y="{(y1 + y2) // 2 - 7}" class="word">{word}</text>'


STYLE = """
.box{fill:#e0f2f1;stroke:#00695c}
.core{fill:#fff8e1;stroke:#b26a00}
text{font-family:sans-serif;font-size:18px;text-anchor:middle;fill:#111}
.name{font-weight:bold}
.code{font-family:monospace;font-size:15px}
.word{font-size:15px;paint-order:stroke;stroke:#fff;stroke-width:5px}
.arrow{stroke:#555;fill:none;stroke-width:1.5}
"""


def picture() -> str:
    """The whole picture, as SVG."""
    width, height = BOX
    bottom = 10 + (len(FIRST_COLUMN) - 1) * ROW + height
    centre = (10 + bottom) // 2
    parts = [
        f'<rect x="{PLAN}" y="10" width="70" height="{bottom - 10}" rx="8" class="box core"/>'
        f'<text x="{PLAN + 35}" y="{centre}" class="name">plan</text>'
    ]
    for row, (protocol, method) in enumerate(FIRST_COLUMN):
        middle = 10 + row * ROW + height // 2
        parts.append(arrow(20, middle, LEFT - 2, middle, takes(protocol, method).split(",")[0]))
        parts.append(box(LEFT, middle - height // 2, protocol, method))
        parts.append(arrow(LEFT + width, middle, PLAN - 2, middle, gives(protocol, method)))
    parts.append(
        arrow(PLAN + 70, centre, GENERATOR - 2, centre, takes("Generator", "fill").split(",")[0])
    )
    parts.append(box(GENERATOR, centre - height // 2, "Generator", "fill"))
    for middle, protocol, method in ((66, "Codec", "decode"), (bottom - 56, "Vocoder", "render")):
        word = takes(protocol, method)
        assert word in gives("Generator", "fill").split(", ")
        parts.append(arrow(GENERATOR + width, centre, RIGHT - 2, middle, word))
        parts.append(box(RIGHT, middle - height // 2, protocol, method))
        towards = 1 if middle < centre else -1
        start, end = middle + towards * height // 2, centre - towards * 18
        parts.append(arrow(RIGHT + 85, start, RIGHT + 85, end, gives(protocol, method)))
    parts.append(f'<text x="{RIGHT + 85}" y="{centre + 5}" class="name">Speech</text>')
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>'
    )
    title = "Parts of speechloom: what each protocol takes and gives"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}">\n<title>{title}</title>\n<style>{STYLE}</style>\n{head}\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    TARGET.write_text(picture(), encoding="utf-8")
