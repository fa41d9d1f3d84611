"""What a person sees while the stages work: progress with time left on a terminal, plain lines elsewhere."""

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


class Left(ProgressColumn):
    """The time left at the average speed so far; what was done before the bar began does not count."""

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["before"]
        if not done or task.total is None or task.elapsed is None:
            return Text("-:--:--", style="progress.remaining")
        seconds = round(task.elapsed * (task.total - task.completed) / done)
        return Text(f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}", style="progress.remaining")


class Bars(Progress):
    """Rows of bars with the time gone and the time left, and below them one line about what is running."""

    now = ""

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            Left(),
            TextColumn("left{task.fields[note]}"),
            console=console,
            transient=True,
        )

    def row(self, title: str, total: int, *, before: float = 0) -> TaskID:
        """A further bar, of which a part may have been done before."""
        return self.add_task(title, total=total, completed=before, before=before, note="")  # pyright: ignore

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.now:
            yield Text(f"  {self.now}", style="dim", no_wrap=True, overflow="ellipsis")


class Advance:
    """Counts finished jobs: call it with a line about the one that finished.

    Args:
        console: where the lines go.
        title: what the jobs are, in a word or two.
        total: how many there are.
        bars: None where there is no terminal: then only the lines are shown.
    """

    def __init__(self, console: Console, title: str, total: int, bars: Bars | None) -> None:
        self.console, self.total, self.bars, self.done = console, total, bars, 0
        self.jobs = None if bars is None else bars.row(title, total)
        self.images: TaskID | None = None
        self.start = time.perf_counter()

    def __call__(self, line: str) -> None:
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
        """The jobs that are at work now."""
        if self.bars is not None:
            self.bars.now = ", ".join(names)

    def part(self, done: int, total: int, success: int) -> None:
        """How far the job at work is: images done, images in all, and how many attacks succeeded so far."""
        if self.bars is None or self.jobs is None:
            return
        if self.images is None:
            self.images = self.bars.row("images", total)
        self.bars.update(self.images, completed=done, total=total, note=f", {100 * success / done:.1f} % succeed")
        self.bars.update(self.jobs, completed=self.done + done / max(total, 1))


@contextmanager
def bars(console: Console | None = None, *, live: bool = True) -> Iterator[tuple[Console, Bars | None]]:
    """The console for lines about the work, standard error if None, and bars where they are wanted on a terminal."""
    console = console or Console(stderr=True, soft_wrap=True)
    if not (live and console.is_interactive):
        yield console, None
        return
    with Bars(console) as shown:
        yield console, shown


@contextmanager
def progress(title: str, total: int, *, console: Console | None = None, live: bool = True) -> Iterator[Advance]:
    """Show how far ``total`` jobs are: bars with the time left on a terminal, one line a job in any case."""
    with bars(console, live=live) as (console, shown):
        yield Advance(console, title, total, shown)


@contextmanager
def training(
    name: str, *, sweep: tuple[int, int] | None = None, console: Console | None = None, live: bool = True
) -> Iterator[Callable[[float, int, str], None]]:
    """Show how far a training is, on a terminal; nothing elsewhere.

    Args:
        name: of the run.
        sweep: the job's number, from 0, and how many there are.
        console: where; standard error if None.
        live: False shows nothing.

    Yields:
        What is to be told the epochs done (a fraction within one), the epochs in all, and something about them.
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

        def tell(done: float, total: int, note: str) -> None:
            if not rows:
                rows.append(shown.row("epochs", total, before=int(done)))
            shown.update(rows[0], completed=done, note=f", {note}" if note else "")
            if jobs is not None and sweep is not None:
                shown.update(jobs, completed=sweep[0] + done / total)

        yield tell


_sweep_started: dict[int, float] = {}
"""When the first job of this process's sweep began, by the number of its jobs."""


@contextmanager
def measuring(*, console: Console | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Show what is being measured and how far it is, on a terminal; nothing elsewhere."""
    with bars(console) as (_, shown):
        if shown is None:
            yield lambda what, done, total: None
            return
        rows: list[TaskID] = []

        def tell(what: str, done: int, total: int) -> None:
            if what != shown.now or not rows:
                for row in rows:
                    shown.remove_task(row)
                rows[:] = [shown.row("measuring", total)]
                shown.now = what
            shown.update(rows[0], completed=done)

        yield tell


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
