"""A study: the networks, the attacks and the analyses of one result; runs whatever is missing.

Steps that need nothing of each other run side by side, one process a core; an attack starts when its network is there.
A step that fails, or whose process is killed, is named and does not take the others down.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from intriguing.errors import Stopped, UserError, plural
from intriguing.runs.interrupts import die_with_parent, listening

PRELOAD = ["intriguing.training", "intriguing.attacking"]
PATIENCE = 30  # seconds that a process has to save what it does; schedulers grant about as much


@dataclass(frozen=True)
class Step:
    """One run of a study.

    Attributes:
        key: unique name of the step.
        stage: ``train`` or ``attack``.
        config: the stage's resolved config, plain values.
        extras: parts of the run's name, see ``doors.name_extras``.
        command: the command line that makes this step alone.
        needs: keys of the steps that must be finished first.
    """

    key: str
    stage: str
    config: dict[str, Any]
    extras: tuple[str, ...] = ()
    command: str = ""
    needs: tuple[str, ...] = ()


def run(
    steps: Sequence[Step],
    *,
    processes: int,
    advance: Callable[[str, list[Path]], None],
    perform: Callable[[Step], list[Path]],
    working: Callable[[list[str]], None] = lambda keys: None,
) -> list[Path]:
    """Run all steps, each when those it needs are finished.

    Args:
        steps: in the order in which they are started.
        processes: how many run at once; 1 runs them in this process.
        advance: called with the key and the run folders of each step that finished.
        perform: runs one step, skipping what is finished, and returns its run folders; a function that can be sent to
            another process.
        working: called with the keys of the steps that run, whenever these change.

    Returns:
        The run folders, in the order of the steps.

    Raises:
        UserError: steps that failed, each with its reason, after all others have finished.
        Stopped: by SIGTERM or Ctrl-C, when the running steps have stopped too and saved what they could.
    """
    done: dict[str, list[Path]] = {}
    failed: dict[str, str] = {}
    try:
        if processes == 1:
            _run_here(steps, done, failed, advance, perform, working)
        else:
            _run_side_by_side(steps, processes, done, failed, advance, perform, working)
    except (Stopped, KeyboardInterrupt) as stop:
        are = "is" if len(done) == 1 else "are"
        stop.add_note(f"{len(done)} of {plural(len(steps), 'step')} {are} finished")
        raise
    if failed:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in failed.items())
        raise UserError(f"{len(failed)} of {plural(len(steps), 'step')} failed ({reasons}); the same command goes on")
    return [folder for step in steps for folder in done[step.key]]


def _run_here(
    steps: Sequence[Step],
    done: dict[str, list[Path]],
    failed: dict[str, str],
    advance: Callable[[str, list[Path]], None],
    perform: Callable[[Step], list[Path]],
    working: Callable[[list[str]], None],
) -> None:
    left = list(steps)
    while step := _next(left, done, failed):
        left.remove(step)
        working([step.key])
        try:
            done[step.key] = perform(step)
            advance(step.key, done[step.key])
        except Exception as error:
            failed[step.key] = _reason(error)


def _run_side_by_side(
    steps: Sequence[Step],
    processes: int,
    done: dict[str, list[Path]],
    failed: dict[str, str],
    advance: Callable[[str, list[Path]], None],
    perform: Callable[[Step], list[Path]],
    working: Callable[[list[str]], None],
) -> None:
    # Not a pool of the standard library: that one is broken as a whole when one of its processes is killed, and its
    # processes live on for ever when this one is.
    left, idle, busy = list(steps), list[_Worker](), dict[Connection, tuple[_Worker, Step]]()
    try:
        while left or busy:
            while len(busy) < processes and (step := _next(left, done, failed)):
                left.remove(step)
                working([*(one.key for _, one in busy.values()), step.key])  # the first worker imports torch: seconds
                worker = next((one for one in idle if one.process.is_alive()), None)
                idle = [one for one in idle if one is not worker]
                worker = worker or _Worker(perform)
                worker.line.send(step)
                busy[worker.line] = worker, step
            working([one.key for _, one in busy.values()])
            if not busy:  # what is left needs a step that failed
                break
            for line in wait(list(busy)):
                worker, step = busy.pop(cast(Connection, line))
                outcome, value = worker.answer()
                if outcome in ("done", "failed"):
                    idle.append(worker)
                if outcome == "done":
                    done[step.key] = value
                    advance(step.key, value)
                else:
                    failed[step.key] = value or f"its process {outcome}"
    except (Stopped, KeyboardInterrupt) as stop:
        for worker, _ in busy.values():
            worker.process.terminate()
        for worker, step in busy.values():
            outcome, value = worker.stop()
            stop.add_note(value if outcome == "stopped" and value else f"{step.key} was stopped")
        raise
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.end()


class _Worker:
    """A process that runs one step after the other. It ends with this one, however this one ends."""

    def __init__(self, perform: Callable[[Step], list[Path]]) -> None:
        # The server imports torch and lightning once (seconds), before any thread exists, and forks the workers there.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self.line, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(perform, theirs), daemon=False)
        self.process.start()
        theirs.close()  # so that its end is the end of the line

    def stop(self) -> tuple[str, Any]:
        """Tell it to stop, and what it answers."""
        for _ in range(PATIENCE):
            self.process.terminate()  # more than once: a signal that comes just before a long sleep does not end it
            with suppress(OSError):
                if self.line.poll(1):
                    return self.answer()
        return "gone", "its process does not answer"

    def answer(self) -> tuple[str, Any]:
        """("done", folders), ("failed", why), ("stopped", what is saved), or ("gone", how) of a process that died."""
        try:
            return self.line.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            memory = " (was the memory full?)" if -code == signal.SIGKILL else ""
            return "gone", f"its process {how}{memory}"

    def end(self) -> None:
        self.line.close()
        self.process.join(5)
        self.process.kill()
        self.process.join()


def _work(perform: Callable[[Step], list[Path]], line: Connection) -> None:
    """In a worker: run the steps that come until there are no more."""
    with listening():
        die_with_parent()
        while True:
            try:
                step = line.recv()
            except EOFError:
                return
            try:
                answer = "done", perform(step)
            except Stopped as stop:
                line.send(("stopped", stop.saved))
                return
            except Exception as error:
                answer = "failed", _reason(error)
            line.send(answer)


def _next(left: list[Step], done: dict[str, list[Path]], failed: dict[str, str]) -> Step | None:
    """The first step that can start; steps that need a failed one fail with it."""
    for step in list(left):
        if broken := [key for key in step.needs if key in failed]:
            left.remove(step)
            failed[step.key] = f"needs {broken[0]}"
        elif all(key in done for key in step.needs):
            return step
    return None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
