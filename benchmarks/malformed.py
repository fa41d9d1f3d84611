"""Write the table of error messages for inputs that cannot be used to results/reliability/malformed.md.

    uv run benchmarks/malformed.py

The inputs are those of tests/cli/malformed_cases.py, which tests/cli/test_malformed.py checks.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests" / "cli"))

from malformed_cases import CASES, Case  # noqa: E402
from malformed_runs import Outcome, prepare, try_out  # noqa: E402

TARGET = ROOT / "results" / "reliability" / "malformed.md"


def table(rows: list[tuple[Case, Outcome]]) -> str:
    """Write the outcomes as a page."""

    def cell(text: str) -> str:
        return text.strip().removeprefix("error: ").replace("|", "\\|").replace("<", "&lt;")

    lines = [
        "# Error messages for inputs that cannot be used",
        "",
        "Made by `uv run benchmarks/malformed.py`; `tests/cli/test_malformed.py` checks every input.",
        "",
        f"{len(rows)} inputs: {sum(outcome.status != 0 for _, outcome in rows)} end with a status above 0, "
        f"{sum(outcome.err.count(chr(10)) == 1 for _, outcome in rows)} with exactly one line on standard error, "
        f"{sum(not outcome.left for _, outcome in rows)} leave no new or changed file behind.",
        "",
        "| input | entry point | status | the line | left behind |",
        "|---|---|---|---|---|",
    ]
    for case, outcome in rows:
        left = ", ".join(outcome.left) or "nothing"
        lines.append(f"| {cell(case.what)} | `{case.script}` | {outcome.status} | {cell(outcome.err)} | {left} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared"
        prepared.mkdir()
        prepare(prepared)
        for number, case in enumerate(CASES):
            outcome = try_out(case, prepared, Path(folder) / str(number))
            rows.append((case, outcome))
            print(f"{outcome.status} {outcome.seconds:5.2f} s  {case.what}: {outcome.err.strip()} {outcome.left or ''}")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(table(rows))


if __name__ == "__main__":
    main()
