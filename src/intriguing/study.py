"""A study: the networks, the attacks and the analyses of one result; runs whatever is missing.

Steps that need nothing of each other run side by side, one process a core; an attack starts when its network is there.
A step that fails is named and does not take the others down.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intriguing.errors import UserError

log = logging.getLogger(__name__)


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
    """
    done: dict[str, list[Path]] = {}
    failed: dict[str, str] = {}
    if processes == 1:
        _run_here(steps, done, failed, advance, perform, working)
    else:
        _run_side_by_side(steps, processes, done, failed, advance, perform, working)
    if failed:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in failed.items())
        raise UserError(f"{len(failed)} of {len(steps)} steps failed ({reasons}); the same command goes on")
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
    # The server imports torch and lightning once (seconds), before any thread exists, and forks the workers from there.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["intriguing.training", "intriguing.attacking"])
    left, running = list(steps), dict[Future, Step]()
    pool = ProcessPoolExecutor(processes, mp_context=context)
    try:
        while left or running:
            while len(running) < processes and (step := _next(left, done, failed)):
                left.remove(step)
                working([*(one.key for one in running.values()), step.key])  # submitting first imports torch: seconds
                running[pool.submit(perform, step)] = step
            working([step.key for step in running.values()])
            if not running:  # what is left needs a step that failed
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                try:
                    done[step.key] = future.result()
                    advance(step.key, done[step.key])
                except Exception as error:
                    failed[step.key] = _reason(error)
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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
