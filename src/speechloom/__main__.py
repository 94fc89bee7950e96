"""``python -m speechloom`` is the command; ``accelerate launch -m speechloom`` needs it."""

from __future__ import annotations

from speechloom.cli import main

if __name__ == "__main__":
    main()
