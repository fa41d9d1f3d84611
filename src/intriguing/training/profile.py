"""Measure where the time of a fit goes, and show it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lightning.pytorch.profilers import AdvancedProfiler, Profiler, SimpleProfiler

_KINDS: dict[str, type[SimpleProfiler | AdvancedProfiler]] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}
_ROWS = 15  # actions that are shown; the file has all


def profiler_of(kind: object, folder: Path) -> Profiler | None:
    """Return Lightning's profiler that writes into a run folder; None of another kind, which a Trainer makes itself."""
    return _KINDS[kind](dirpath=folder, filename="profile") if isinstance(kind, str) and kind in _KINDS else None


def show(profiler: object, folder: Path) -> None:
    """Print where the time went, the longest first, and the names of the files that say it in full."""
    if isinstance(profiler, SimpleProfiler) and profiler.recorded_durations:
        spent = {action: (sum(times), len(times)) for action, times in profiler.recorded_durations.items()}
        longest = sorted(spent.items(), key=lambda one: -one[1][0])[:_ROWS]
        print(f"{'seconds':>9}  {'calls':>7}  action (a call includes those within it)", file=sys.stderr)
        for action, (seconds, calls) in longest:
            print(f"{seconds:9.3f}  {calls:7d}  {_short(action)}", file=sys.stderr)
    if files := sorted(folder.glob("*-profile*.txt")):
        print(f"the profile: {', '.join(map(str, files))}", file=sys.stderr)


def _short(action: str) -> str:
    """Write the name of an action without the kind and the settings of the object that does it."""
    return re.sub(r"\{.*\}", "", action.rpartition("]")[2].lstrip(".") or action)
