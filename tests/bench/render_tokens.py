"""The table of docs/benchmarks-tokens.md from what was measured.

    python tests/bench/render_tokens.py                     # from docs/benchmarks/tokens.json
    python tests/bench/render_tokens.py run.json more.json  # first keep the rows of these runs

A run is what ``pytest tests/bench/test_speed_tokens.py --benchmark-json=run.json`` wrote. The
originals cannot be installed side by side, so that there is one run for each environment; a row
that is measured again replaces the former.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks-tokens.md"
RECORD = ROOT / "docs" / "benchmarks" / "tokens.json"
BEGIN, END = "<!-- begin tokens -->", "<!-- end tokens -->"

Row = dict[str, Any]

NAMES = {
    "dac-16khz": "DAC 16 kHz, 12 levels",
    "encodec-24khz": "EnCodec 24 kHz, 6 kbit/s",
    "encodec-48khz": "EnCodec 48 kHz stereo, 6 kbit/s",
    "speechtokenizer": "SpeechTokenizer, 8 levels",
    "hubert-base": "HuBERT base, layer 9",
    "hubert-base-whole": "HuBERT base, layer 9, never cut",
}
"""What the families of `speechloom_bench.families` are called, in the order of the table."""

HEADER = (
    "network", "audio", "", "beside", "theirs", "ours", "times as fast", "their peak", "our peak",
    "differs by",
)  # fmt: skip


def kept(run: Mapping[str, Any]) -> dict[str, Row]:
    """The rows of a run by name, each with its date."""
    rows = [one["extra_info"] for one in run["benchmarks"] if "row" in one["extra_info"]]
    return {row["row"]: {**row, "date": run["datetime"][:10]} for row in rows}


def table(rows: Mapping[str, Row]) -> str:
    """The rows in the order of the families, sizes and lengths."""
    order = list(NAMES)
    chosen = sorted(
        rows.values(),
        key=lambda row: (order.index(row["family"]), row["audio_seconds"], row["size"]),
    )
    machines = list(dict.fromkeys(_machine(row) for row in chosen))
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    for row in chosen:
        place = f", machine {machines.index(_machine(row)) + 1}" if len(machines) > 1 else ""
        lines += _lines(row, place)
    return "\n".join([_measured(chosen, machines), "", *lines])


def _machine(row: Row) -> str:
    machine = row["machine"]
    return (
        f"{machine['processor']}, {machine['capability']}, one thread of {machine['cores']} cores, "
        f"Python {machine['python']}"
    )


def _measured(rows: Sequence[Row], machines: Sequence[str]) -> str:
    """One sentence on when and where; both sides of a row ran on the same machine."""
    dates = " to ".join(sorted({row["date"] for row in rows}))
    if len(machines) == 1:
        return f"{dates}, {machines[0]}."
    listed = (f"machine {number}: {one}" for number, one in enumerate(machines, 1))
    return f"{dates}; {'; '.join(listed)}. Both sides of a row ran on the same one."


def _lines(row: Row, place: str) -> list[str]:
    """One line for encoding, one for decoding where there is any."""
    lines = []
    for number, (name, work) in enumerate(row["work"].items()):
        theirs, ours = work["theirs"], work["ours"]
        shared = (_network(row), f"{row['audio_seconds']} s") if number == 0 else ("", "")
        beside = f"{row['peer']}, torch {row['machine']['torch'].partition('+')[0]}{place}"
        lines.append(
            _line(
                [
                    *shared,
                    name,
                    beside if number == 0 else "",
                    f"{theirs['seconds']:.3g} s",
                    f"{ours['seconds']:.3g} s",
                    f"{work['ratio']:.2f} ({_rounds(work['ratios'])})",
                    f"{theirs['peak_mib']:.0f} MiB",
                    f"{ours['peak_mib']:.0f} MiB",
                    _apart(row, name),
                ]
            )
        )
    return lines


def _network(row: Row) -> str:
    size = "" if row["size"] == "public" else f", {row['size']}"
    return NAMES[row["family"]] + size


def _rounds(ratios: Sequence[float]) -> str:
    if len(ratios) == 1:
        return "one round"
    return f"{len(ratios)} rounds, {min(ratios):.2f} to {max(ratios):.2f}"


def _apart(row: Row, work: str) -> str:
    """How far the results of both sides are apart."""
    apart = row["apart"]
    if work == "decode":
        return f"{apart['audio']:.1g}"
    if "codes" in apart:
        return "no code" if apart["codes"] == 0 else f"{apart['codes']:.1g} of the codes"
    cut = "" if row["exact"] else ", since it is cut into windows"
    return f"{apart['features']:.1g} standard deviations{cut}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(text: str, rows: Mapping[str, Row]) -> str:
    """The page with the table between its markers made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"


def main() -> None:
    """Keep the rows of the runs that are given, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="*", help="what --benchmark-json wrote")
    rows: dict[str, Row] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for path in parser.parse_args().runs:
        rows |= kept(json.loads(path.read_text()))
    RECORD.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(), rows))


if __name__ == "__main__":
    main()
