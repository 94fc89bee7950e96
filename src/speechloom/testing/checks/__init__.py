"""Every check of the conformance kit, in one table.

`speechloom.testing` lists their names.
"""

from __future__ import annotations

# Importing them enters their checks in the table.
from speechloom.testing.checks import common, filling, hearing, serving, sounding  # noqa: F401
from speechloom.testing.checks.table import Check, NotApplicable, Subject, checks_of

__all__ = ["Check", "NotApplicable", "Subject", "checks_of"]
