"""What a person sees while the stages work: progress with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from intriguing.tracking import read_run


class Advance:
    """Counts finished jobs; call it with a line about the one that finished, ``part`` within one."""

    def __init__(self, console: Console, total: int, bar: Progress | None, title: str) -> None:
        self.console, self.total, self.bar, self.done = console, total, bar, 0
        self.task = None if bar is None else bar.add_task(title, total=total)
        self.start = time.perf_counter()

    def __call__(self, line: str) -> None:
        self.done += 1
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.done)
        self.console.print(
            f"[{self.done}/{self.total}] {time.perf_counter() - self.start:6.1f} s  {line}",
            markup=False,
            highlight=False,
        )

    def part(self, done: int, total: int) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.done + done / total)


_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Show how far ``total`` jobs are: a bar with the time left on a terminal, one line a job in any case."""
    console = Console(file=sys.stderr, soft_wrap=True)
    if not console.is_terminal:
        yield Advance(console, total, None, title)
        return
    with Progress(*_COLUMNS, console=console, transient=True) as bar:
        yield Advance(console, total, bar, title)


@contextmanager
def measuring() -> Iterator[Callable[[str, int, int], None]]:
    """Show what is being measured and how far it is, on a terminal; nothing elsewhere."""
    console = Console(file=sys.stderr, soft_wrap=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    with Progress(*_COLUMNS, console=console, transient=True) as bar:
        task = bar.add_task("analysis")
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def run_line(folder: Path) -> str:
    """One line about a finished run: what it is and what came out."""
    record = read_run(folder)
    result = record.result
    if record.stage == "train" and "errors" in result:
        shares = {name: 100 * k / n for name, (k, n) in result["errors"].items()}
        words = ", ".join(f"{name} error {shares[name]:.2f} %" for name in ("train", "val", "test") if name in shares)
        return f"train   {record.name}: {words}"
    if record.stage == "attack" and "num" in result:
        mean = result["mean_distortion"]
        size = "none found" if mean is None else f"mean distortion {mean:.4f}"
        return f"attack  {record.name}: {result['num_success']}/{result['num']} succeeded, {size}"
    return f"{record.stage:7} {record.name}: {record.state}"
