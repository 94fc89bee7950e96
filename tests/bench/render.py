"""Tables of docs/benchmarks.md from what was measured.

    python tests/bench/render.py                     # the page from docs/benchmarks/*.json
    python tests/bench/render.py run.json --as NAME  # first keep a run as docs/benchmarks/NAME.json

``run.json`` is what ``pytest --benchmark-json=run.json`` wrote; of it the rows are kept, and
nothing about the machine but its processor and versions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from speechloom_bench.catalogue import CPU, GPU, Entry

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
RECORDS = ROOT / "docs" / "benchmarks"
BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"
NO_UNITS = "not measured on a processor without bfloat16 units"

Record = dict[str, Any]


def keep(run: Record) -> Record:
    """The rows of a pytest-benchmark run, by name."""
    rows = [dict(one["extra_info"]) for one in run["benchmarks"] if "row" in one["extra_info"]]
    machines = [row.pop("machine") for row in rows if "machine" in row]
    return {
        "date": run["datetime"][:10],
        "machine": machines[0] if machines else {},
        "rows": {row["row"]: row for row in rows},
    }


def tables(record: Record, entries: Sequence[Entry]) -> str:
    """A record as a table with a line above it that names the machine."""
    rows = record["rows"]
    known = {entry.row for entry in entries}
    lines = [_machine(record), "", _line(HEADER), _line(["---"] * len(HEADER))]
    for entry in entries:
        row = rows.get(entry.row)
        lines += [_line(cells) for cells in _cells(entry, row, record)]
    extra = [row for name, row in rows.items() if name not in known]
    if extra:
        lines += ["", "Beside the table:", ""]
        lines += [f"* {_sentence(row)}" for row in extra]
    return "\n".join(lines)


HEADER = ("work", "beside", "theirs", "ours", "ratio", "asked", "of the ceiling", "parity")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine(record: Record) -> str:
    if not record["rows"]:
        return "Not measured."
    machine = record["machine"]
    sentence = (
        f"{record['date']}, {machine['processor']}, {machine['capability']}, "
        f"{machine['threads']} threads, torch {machine['torch']}, Python {machine['python']}."
    )
    ceilings: dict[str, float] = {}
    for row in record["rows"].values():
        for name, rate in row.get("ceilings", {}).items():
            ceilings[name] = max(rate, ceilings.get(name, 0.0))
    if not ceilings:
        return sentence
    rates = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in ceilings.items())
    return f"{sentence}\nMatrix products here reach at best: {rates}."


def _cells(entry: Entry, row: Record | None, record: Record) -> list[list[str]]:
    if row is None:
        lacks = entry.row.endswith("-bf16") and not record["machine"].get("bfloat16_units", True)
        return [[entry.what, entry.peer, NO_UNITS if lacks else "not measured", "", "", entry.must,
                 "", ""]]  # fmt: skip
    shared = [_ceiling(row), f"{row['parity']['error']:.1g}"]
    rounds = row.get("rounds", 0)
    if row.get("first_over_steady"):
        first = f"{_seconds(row['first_call_seconds'])} at first"
        own = f"{_seconds(row['seconds'])} later, warm-up {_seconds(row['warm_up_seconds'])}"
        return [[entry.what, entry.peer, first, own, f"{row['first_over_steady']:.2f}x",
                 entry.must, "", ""]]  # fmt: skip
    return [
        [
            entry.what if number == 0 else "",
            name,
            _timed(peer, rounds),
            _timed(row, rounds) if number == 0 else "",
            f"{peer['ratio']:.3g}x",
            entry.must if number == 0 else "",
            *(shared if number == 0 else ("", "")),
        ]
        for number, (name, peer) in enumerate(row["peers"].items())
    ]


def _timed(one: Record, rounds: int) -> str:
    if rounds == 1:
        return f"{_seconds(one['seconds'])} (one round)"
    return f"{_seconds(one['seconds'])} ± {_seconds(one['spread'])}"


def _ceiling(row: Record) -> str:
    """The share of the ceiling, and the ratio to the first peer that all of it would be."""
    if not row.get("flops"):
        return ""
    share, peer = row["of_ceiling"], next(iter(row["peers"].values()))
    return f"{share:.0%} (all of it: {peer['ratio'] / share:.3g}x)"


def _sentence(row: Record) -> str:
    peers = ", ".join(f"{name} {_seconds(x['seconds'])}" for name, x in row["peers"].items())
    return f"{row['title']}: {_seconds(row['seconds'])}; {peers}."


def _seconds(value: float) -> str:
    if value >= 1.0:
        return f"{value:.2f} s"
    return f"{value * 1e3:.3g} ms"


def page(text: str, records: dict[str, Record]) -> str:
    """The page with every table between its markers made anew."""
    for section, entries in (("cpu", CPU), ("gpu", GPU)):
        mine = [
            tables(record, entries)
            for name, record in sorted(records.items())
            if name.startswith(section)
        ]
        empty = {"rows": {}, "machine": {}}
        body = "\n\n".join(mine or [tables(empty, entries)])
        begin, end = BEGIN.format(section), END.format(section)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{body}\n{end}{after}"
    return text


def records() -> dict[str, Record]:
    """What was measured, by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in RECORDS.glob("*.json")}


def main() -> None:
    """Keep a run, if one is given, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", help="what --benchmark-json wrote")
    parser.add_argument(
        "--as", dest="name", default="cpu", help="file name; begins with cpu or gpu"
    )
    chosen = parser.parse_args()
    if chosen.run:
        RECORDS.mkdir(exist_ok=True)
        kept = keep(json.loads(chosen.run.read_text()))
        (RECORDS / f"{chosen.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(), records()))


if __name__ == "__main__":
    main()
