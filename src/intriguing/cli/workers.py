"""Run the steps of a study in processes of this machine, which import torch once.

A pool of the standard library breaks as a whole when one of its processes is killed, and its processes outlive a killed
parent. submitit's local executor starts a process for each step, which imports torch anew (seconds).
"""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from intriguing.cli.scheduler import PATIENCE, Outcome, Perform, Step, attempt
from intriguing.errors import Stopped
from intriguing.runs.interrupts import die_with_parent, listening

PRELOAD = ["intriguing.training", "intriguing.attacking"]


class Workers:
    """Run steps side by side, each in a process that takes one step after the other.

    Args:
        perform: Runs one step.
        processes: Number of processes.
    """

    def __init__(self, perform: Perform, processes: int) -> None:
        self._perform, self._processes = perform, processes
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, Step]] = {}

    def has_room(self) -> bool:
        """Return whether a process is free."""
        return len(self._busy) < self._processes

    def start(self, step: Step) -> None:
        """Send a step to a free process, or to a new one."""
        self._idle = [one for one in self._idle if one.process.is_alive()]
        worker = self._idle.pop(0) if self._idle else _Worker(self._perform)
        worker.pipe.send(step)
        self._busy[worker.pipe] = worker, step

    def wait(self) -> list[tuple[Step, Outcome]]:
        """Wait for the next steps to end."""
        ended = []
        for pipe in wait(list(self._busy)):
            worker, step = self._busy.pop(cast(Connection, pipe))
            outcome = worker.answer()
            if not outcome.stopped and worker.process.is_alive():
                self._idle.append(worker)
            ended.append((step, outcome))
        return ended

    def stop(self) -> list[str]:
        """Terminate the running steps; each has ``PATIENCE`` seconds to save its work."""
        for worker, _ in self._busy.values():
            worker.process.terminate()
        return [worker.stop().reason or f"{step.key} was stopped" for worker, step in self._busy.values()]

    def close(self) -> None:
        """End all processes."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.end()


class _Worker:
    """A process that runs one step after the other, and ends with this one."""

    def __init__(self, perform: Perform) -> None:
        # The fork server imports torch and lightning once, before any thread exists, and forks the workers there.
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        context.set_forkserver_preload(PRELOAD)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(perform, theirs), daemon=False)
        self.process.start()
        theirs.close()  # recv() then raises EOFError when the worker dies

    def stop(self) -> Outcome:
        """Terminate the running step and return what it has saved."""
        for _ in range(PATIENCE):
            self.process.terminate()  # repeated: a signal that comes just before a long sleep does not end it
            with suppress(OSError):
                if self.pipe.poll(1):
                    return self.answer()
        return Outcome()

    def answer(self) -> Outcome:
        """Receive the outcome of a step; if the process died, how it ended."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            memory = " (was the memory full?)" if code == -9 else ""
            return Outcome(reason=f"its process {how}{memory}")

    def end(self) -> None:
        """End the process: at once if it is idle."""
        self.pipe.close()
        self.process.join(5)
        self.process.kill()
        self.process.join()


def _work(perform: Perform, pipe: Connection) -> None:
    """Run in a worker the steps that come until there are no more."""
    with listening():
        die_with_parent()
        while True:
            try:
                step = pipe.recv()
            except EOFError:
                return
            try:
                outcome = attempt(perform, step)
            except Stopped as stop:
                pipe.send(Outcome(reason=stop.saved, stopped=True))
                return
            pipe.send(outcome)
