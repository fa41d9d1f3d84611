"""Measure the coverage of the intervals that a page prints, and the null rates of its p-values, by simulation.

    uv run benchmarks/intervals.py                    # four minutes; writes results/benchmarks/intervals.csv
    uv run benchmarks/intervals.py --repeats 500      # seconds, to try it

The simulations are those of tests/statistics/interval_draws.py, which tests/statistics/test_coverage.py checks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

sys.path.append(str(Path(__file__).parents[1] / "tests" / "statistics"))

from interval_draws import coverage, more_scenarios, scenarios, tests


def main() -> None:
    """Simulate all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=10_000, help="draws of each scenario")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/intervals.csv"))
    arguments = parser.parse_args()
    rows = []
    for one in (*scenarios(), *more_scenarios(), *tests()):
        rows.append((one.interval, one.sample, round(100 * coverage(one, arguments.repeats), 1)))
        print(f"{rows[-1][0]:29} {rows[-1][2]:5.1f} %  {rows[-1][1]}", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=["interval or test", "sample", "coverage or null rate, %"]).to_csv(
        arguments.out, index=False
    )


if __name__ == "__main__":
    main()
