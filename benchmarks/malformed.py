"""What do the three doors say to input that cannot be used? One line each, a status, and nothing left behind.

    uv run benchmarks/malformed.py

Every input of `malformed_cases.py` goes to a door's real main function, in a process forked from this one (which has
imported everything once), in a folder of its own with small finished and unfinished runs on digits. The table goes to
results/reliability/malformed.md. tests/test_malformed.py checks every row of it.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from malformed_cases import CASES, Case

from intriguing import attacking
from intriguing.cli.config import plain, training_job
from intriguing.training import fit

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "results" / "reliability" / "malformed.md"
SMALL = ("data=digits", "logger=csv", "trainer.max_epochs=2", "model.settings.widths=[6,5]")


@dataclass(frozen=True)
class Outcome:
    """What a door did.

    Attributes:
        status: its exit status.
        out, err: what it printed; the case's folder is left out of paths.
        left: files that are new or changed, relative to the case's folder.
        seconds: CPU time of the child.
    """

    status: int
    out: str
    err: str
    left: tuple[str, ...]
    seconds: float


def prepare(folder: Path) -> None:
    """Small runs on digits: ``net`` (finished), ``half`` (stopped after its first epoch) and the set ``made``."""
    code, _ = in_child(lambda: _prepare(folder), folder / "prepare.log")
    if code:
        raise RuntimeError((folder / "prepare.log").read_text())
    (folder / "prepare.log").unlink()


def _prepare(folder: Path) -> None:
    class Stop(Exception):
        pass

    os.chdir(folder)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        feed = ("callbacks=back_feeding", "callbacks.back_feeding.size=4")
        jobs = [
            training_job(plain(compose("train", overrides=[*SMALL, *own])), (), "")
            for own in (["name=net"], ["name=half", *feed])
        ]
        fit(jobs[0])
        attack = ["checkpoints=runs/train/net", "logger=csv", "limit=12", "name=made"]
        for job in attacking.AttackJob.from_config(plain(compose("attack", overrides=attack))):
            attacking.craft(job)
    original = type(jobs[1].callbacks[0]).on_train_batch_start

    def stop(self: object, trainer: object, module: object, batch: object, index: int) -> None:
        if trainer.current_epoch == 1:  # type: ignore[attr-defined]
            raise Stop
        original(self, trainer, module, batch, index)  # type: ignore[arg-type]

    type(jobs[1].callbacks[0]).on_train_batch_start = stop
    try:
        fit(jobs[1])
    except Stop:
        return
    raise RuntimeError("the run that was to be stopped went on")


def in_child(work: Callable[[], object], output: Path) -> tuple[int, float]:
    """Run something in a forked process that prints into a file; (exit status, seconds of CPU time)."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: they only wait
        child = os.fork()
    if child:
        _, status, usage = os.wait4(child, 0)
        return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    code = 70
    try:
        for name, stream in (("", 1), (".err", 2)):
            target = os.open(f"{output}{name}" if stream == 2 else output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(target, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def try_out(case: Case, prepared: Path, folder: Path) -> Outcome:
    """Give an input to its door.

    Args:
        case: the input.
        prepared: see `prepare`.
        folder: a new one, where the door is run.
    """
    work, output = folder / "work", folder / "output"
    shutil.copytree(prepared, work, symlinks=True)
    arguments = (case.make(work) if case.make else None) or ()
    before = _files(work)

    def run() -> None:
        torch.set_num_threads(1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        GlobalHydra.instance().clear()
        os.chdir(work)
        for name in ("WANDB_MODE", "HYDRA_FULL_ERROR"):
            os.environ.pop(name, None)
        sys.argv = [str(ROOT / case.door), *case.arguments, *arguments]
        runpy.run_path(str(ROOT / case.door), run_name="__main__")

    status, seconds = in_child(run, output)
    after = _files(work)
    left = tuple(sorted(name for name in after if after[name] != before.get(name)))
    out, err = (
        file.read_text(errors="replace").replace(f"{work.resolve()}/", "").replace(f"{ROOT}/", "")
        for file in (output, Path(f"{output}.err"))
    )
    shutil.rmtree(folder)
    return Outcome(status, out, err, left, seconds)


def _files(folder: Path) -> dict[str, object]:
    """Every file and folder, with what shows that it was written."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[str(path.relative_to(folder))] = "folder" if path.is_dir() else (state.st_mtime_ns, state.st_size)
    return found


def table(rows: list[tuple[Case, Outcome]]) -> str:
    """The outcomes as a page."""

    def cell(text: str) -> str:
        return text.strip().removeprefix("error: ").replace("|", "\\|").replace("<", "&lt;")

    lines = [
        "# What the doors say to input that cannot be used",
        "",
        "Made by `uv run benchmarks/malformed.py`; `tests/test_malformed.py` checks every row.",
        "",
        f"{len(rows)} inputs: {sum(outcome.status != 0 for _, outcome in rows)} end with a status above 0, "
        f"{sum(outcome.err.count(chr(10)) == 1 for _, outcome in rows)} with exactly one line on standard error, "
        f"{sum(not outcome.left for _, outcome in rows)} leave no new or changed file behind.",
        "",
        "| input | door | status | the line | left behind |",
        "|---|---|---|---|---|",
    ]
    for case, outcome in rows:
        left = ", ".join(outcome.left) or "nothing"
        lines.append(f"| {cell(case.what)} | `{case.door}` | {outcome.status} | {cell(outcome.err)} | {left} |")
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
