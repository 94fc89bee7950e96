"""Put the benchmarks' own modules on the path and tell the rows how long to run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def quick() -> bool:
    """One round of the long rows, for a table in minutes: SPEECHLOOM_BENCH_QUICK=1."""
    return os.environ.get("SPEECHLOOM_BENCH_QUICK", "") not in ("", "0")
