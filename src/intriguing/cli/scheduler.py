"""Run the steps of a study: order them, hand them to an executor, and collect the outcomes.

Steps that do not depend on each other run side by side; an attack starts when its network is there. A step that fails,
or whose process is killed, is named, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from intriguing.errors import Stopped, UserError, by_reason, error_summary, plural

PATIENCE = 30  # seconds that a step has to save its work; schedulers grant about as much


@dataclass(frozen=True)
class Step:
    """Describe one run of a study.

    Attributes:
        key: Unique name of the step.
        stage: ``train`` or ``attack``.
        config: The stage's resolved config, plain values.
        extras: Parts of the run's name, see ``overrides.name_extras``.
        command: The command line that makes this step alone.
        needs: Keys of the steps that must be finished first.
        files: Further files of the run folder, text by name.
    """

    key: str
    stage: str
    config: dict[str, Any]
    extras: tuple[str, ...] = ()
    command: str = ""
    needs: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Say how a step ended.

    Attributes:
        folders: Its run folders; None if it failed.
        reason: Why it failed, or what a stopped step has saved.
        stopped: Whether a signal ended it.
    """

    folders: list[Path] | None = None
    reason: str = ""
    stopped: bool = False


NEEDS = "needs one that failed"

Perform = Callable[[Step], list[Path]]
"""Runs one step, skips what is finished, and returns its run folders; other processes can import it."""


def attempt(perform: Perform, step: Step) -> Outcome:
    """Run a step and return its outcome; only ``Stopped`` is raised."""
    try:
        return Outcome(perform(step))
    except Exception as error:
        return Outcome(reason=error_summary(error))


class Executor(Protocol):
    """Runs steps somewhere."""

    def has_room(self) -> bool:
        """Return whether a further step can start."""
        ...

    def start(self, step: Step) -> None:
        """Start a step."""
        ...

    def wait(self) -> list[tuple[Step, Outcome]]:
        """Wait until at least one of the running steps has ended, and return those that have."""
        ...

    def stop(self) -> list[str]:
        """Stop the running steps, and say what each has saved."""
        ...

    def close(self) -> None:
        """Release every process."""
        ...


class Here:
    """Run one step after the other in this process."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self._step: Step | None = None

    def has_room(self) -> bool:
        """Return whether no step waits."""
        return self._step is None

    def start(self, step: Step) -> None:
        """Note the step; ``wait`` runs it."""
        self._step = step

    def wait(self) -> list[tuple[Step, Outcome]]:
        """Run the step."""
        assert self._step is not None
        step, self._step = self._step, None
        return [(step, attempt(self._perform, step))]

    def stop(self) -> list[str]:
        """Do nothing: the step was stopped in this process and has said itself what is saved."""
        return []

    def close(self) -> None:
        """Do nothing: there are no processes."""


def run(
    steps: Sequence[Step],
    executor: Executor,
    *,
    advance: Callable[[str, list[Path]], None],
    working: Callable[[list[str]], None] = lambda keys: None,
) -> list[Path]:
    """Run all steps, each when those it needs are finished.

    Args:
        steps: In the order in which they are started.
        executor: Runs them; closed at the end.
        advance: Called with the key and the run folders of each step that finished.
        working: Called with the keys of the running steps whenever these change.

    Returns:
        The run folders, in the order of the steps.

    Raises:
        UserError: Steps failed, each with its reason; raised after all others have finished.
        Stopped: SIGTERM or Ctrl-C, raised after the running steps have stopped and saved what they could.
    """
    left, running = list(steps), dict[str, Step]()
    done: dict[str, list[Path]] = {}
    failed: dict[str, str] = {}
    try:
        while True:
            while executor.has_room() and (step := _next(left, done, failed)):
                left.remove(step)
                running[step.key] = step
                working(list(running))
                executor.start(step)
            if not running:  # steps that are left need one that failed
                break
            for step, outcome in executor.wait():
                del running[step.key]
                if outcome.folders is None:
                    failed[step.key] = outcome.reason or "it was stopped"
                else:
                    done[step.key] = outcome.folders
                    advance(step.key, outcome.folders)
            working(list(running))
    except (Stopped, KeyboardInterrupt) as stop:
        for note in executor.stop():
            stop.add_note(note)
        stop.add_note(f"{len(done)} of {plural(len(steps), 'step')} {'is' if len(done) == 1 else 'are'} finished")
        raise
    finally:
        executor.close()
    if failed:
        raise UserError(
            f"{len(failed)} of {plural(len(steps), 'step')} failed ({by_reason(failed.items())}); the same "
            "command runs what is missing"
        )
    return [folder for step in steps for folder in done[step.key]]


def _next(left: list[Step], done: dict[str, list[Path]], failed: dict[str, str]) -> Step | None:
    """Return the first step that can start; steps that need a failed one fail with it."""
    for step in list(left):
        if any(key in failed for key in step.needs):
            left.remove(step)
            failed[step.key] = NEEDS
        elif all(key in done for key in step.needs):
            return step
    return None
