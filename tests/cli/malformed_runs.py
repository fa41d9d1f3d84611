"""Give inputs that cannot be used to the real main function of an entry point.

Each runs in a process forked from this one (which has imported everything once), in a new folder with small finished
and unfinished runs on digits.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from malformed_cases import Case

from intriguing import attacking
from intriguing.cli.config import plain, training_job
from intriguing.training import fit

ROOT = Path(__file__).parents[2]
SMALL = ("data=digits", "logger=csv", "trainer.max_epochs=2", "model.settings.widths=[6,5]")


@dataclass(frozen=True)
class Outcome:
    """What a script did.

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
    """Give an input to its script.

    Args:
        case: the input.
        prepared: see `prepare`.
        folder: a new one, where the script is run.
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
        sys.argv = [str(ROOT / case.script), *case.arguments, *arguments]
        runpy.run_path(str(ROOT / case.script), run_name="__main__")

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
