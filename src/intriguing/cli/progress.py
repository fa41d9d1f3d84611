"""Show progress while the stages work: bars with the remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from intriguing.runs.records import read_run

_PAUSE = 30  # seconds between two lines about one job


class Remaining(ProgressColumn):
    """Show the remaining time at the average speed so far, without the work that was done before the bar began."""

    def render(self, task: Task) -> Text:
        """Write hours, minutes and seconds."""
        done = task.completed - task.fields["before"]
        if not done or task.total is None or task.elapsed is None:
            return Text("-:--:--", style="progress.remaining")
        seconds = round(task.elapsed * (task.total - task.completed) / done)
        return Text(f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}", style="progress.remaining")


class Bars(Progress):
    """Show rows of bars with the elapsed and the remaining time, and below them one line about the running jobs."""

    now = ""

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("remaining"),
            Remaining(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )

    def row(self, title: str, total: int, *, before: float = 0) -> TaskID:
        """Add a bar, of which a part may have been done before."""
        return self.add_task(title, total=total, completed=before, before=before, note="")  # pyright: ignore

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bars and the line below them."""
        yield from super().get_renderables()
        if self.now:
            yield Text(f"  {self.now}", style="dim", no_wrap=True, overflow="ellipsis")


class Advance:
    """Count finished jobs: call it with a line about the one that finished.

    Args:
        console: Prints the lines.
        title: A word or two for the jobs.
        total: Number of jobs.
        bars: Bars of a terminal; None: only the lines are shown.
    """

    def __init__(self, console: Console, title: str, total: int, bars: Bars | None) -> None:
        self.console, self.total, self.bars, self.done = console, total, bars, 0
        self.jobs = None if bars is None else bars.row(title, total)
        self.images: TaskID | None = None
        self.names = ""
        self.start = self.spoken = time.perf_counter()

    def __call__(self, line: str) -> None:
        """Count a finished job and print its line."""
        self.done += 1
        if self.bars is not None and self.jobs is not None:
            self.bars.update(self.jobs, completed=self.done)
            if self.images is not None:
                self.bars.remove_task(self.images)
                self.images = None
        self.console.print(
            f"[{self.done}/{self.total}] {time.perf_counter() - self.start:6.1f} s  {line}",
            markup=False,
            highlight=False,
        )

    def running(self, names: Sequence[str]) -> None:
        """Show the running jobs."""
        self.names = ", ".join(names)
        if self.bars is not None:
            self.bars.now = ", ".join(names)

    def part(self, done: int, total: int, success: int) -> None:
        """Show the images done, all images, and the attacks that have succeeded, of the running job.

        Without a terminal that is a line every half minute.
        """
        if self.bars is None or self.jobs is None:
            now = time.perf_counter()
            if done == 0:
                self.spoken = now
            elif done < total and now - self.spoken >= _PAUSE:
                self.spoken = now
                self.console.print(f"  {self.names}: {done} of {total} images", markup=False, highlight=False)
            return
        if self.images is None:
            self.images = self.bars.row("images", total)
        self.bars.update(self.images, completed=done, total=total, note=f", {success} succeeded")
        self.bars.update(self.jobs, completed=self.done + done / max(total, 1))


@contextmanager
def bars(console: Console | None = None, *, live: bool = True) -> Iterator[tuple[Console, Bars | None]]:
    """Open a console for lines (standard error if None), and bars if they are wanted and it is a terminal."""
    console = console or Console(stderr=True, soft_wrap=True)
    if not (live and console.is_interactive):
        yield console, None
        return
    with Bars(console) as shown:
        yield console, shown


@contextmanager
def progress(title: str, total: int, *, console: Console | None = None, live: bool = True) -> Iterator[Advance]:
    """Show the progress of ``total`` jobs: one line a job, and bars with the remaining time on a terminal."""
    with bars(console, live=live) as (console, shown):
        yield Advance(console, title, total, shown)


@contextmanager
def training(
    name: str, *, sweep: tuple[int, int] | None = None, console: Console | None = None, live: bool = True
) -> Iterator[Callable[[float, int, str], None]]:
    """Show the progress of a training on a terminal; nothing elsewhere.

    Args:
        name: Name of the run.
        sweep: The job's number, from 0, and the number of jobs.
        console: Standard error if None.
        live: False shows nothing.

    Yields:
        A function of the epochs done (with a fraction), all epochs, and a note.
    """
    with bars(console, live=live) as (_, shown):
        if shown is None:
            yield lambda done, total, note: None
            return
        shown.now = name
        jobs = None if sweep is None else shown.row("sweep", sweep[1])
        if jobs is not None and sweep is not None:
            shown.tasks[0].start_time = _sweep_started.setdefault(sweep[1], shown.get_time())
            shown.update(jobs, completed=sweep[0])
        rows: list[TaskID] = []

        def report(done: float, total: int, note: str) -> None:
            if not rows:
                rows.append(shown.row("epochs", total, before=int(done)))
            shown.update(rows[0], completed=done, note=f", {note}" if note else "")
            if jobs is not None and sweep is not None:
                shown.update(jobs, completed=sweep[0] + done / total)

        yield report


_sweep_started: dict[int, float] = {}
"""Start of the first job of this process's sweep, by the number of jobs."""


@contextmanager
def measuring(*, console: Console | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of measurements on a terminal; nothing elsewhere.

    Yields:
        A function of the name of the measurement, the steps done, and all steps.
    """
    with bars(console) as (_, shown):
        if shown is None:
            yield lambda what, done, total: None
            return
        rows: list[TaskID] = []

        def report(what: str, done: int, total: int) -> None:
            if what != shown.now or not rows:
                for row in rows:
                    shown.remove_task(row)
                rows[:] = [shown.row("measuring", total)]
                shown.now = what
            shown.update(rows[0], completed=done)

        yield report


def run_line(folder: Path) -> str:
    """Write one line about a finished run and its result."""
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
