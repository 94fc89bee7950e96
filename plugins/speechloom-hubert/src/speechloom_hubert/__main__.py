"""``python -m speechloom_hubert``: the same commands as ``speechloom hubert``."""

from __future__ import annotations

import sys

from speechloom.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "hubert")
    main()
