"""What the three doors have in common: from a Hydra config to a typed job, from an error to one line.

Nothing heavy is imported here, so that ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import fnmatch
import functools
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from intriguing.checks import whole
from intriguing.errors import UserError

INTERRUPTED = 130
_FULL = "INTRIGUING_FULL_ERROR"
_SWEEP = "INTRIGUING_SWEEP"  # how many jobs the sweep that started this process has


def run(door: Callable[[], Any]) -> None:
    """Run a ``@hydra.main`` function; a user's mistake becomes one line and status 1, not a traceback.

    With ``HYDRA_FULL_ERROR=1`` every error is raised as it is. Ctrl-C ends with status 130, SIGTERM with 143.
    """
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ[_FULL] = str(int(full))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print over many lines
    signal.signal(signal.SIGTERM, _terminate)
    try:
        door()
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on where it stopped")
        sys.exit(INTERRUPTED)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if full:
            raise
        _say(one_line(error))
        sys.exit(1)
    except Exception as error:
        if full:
            raise
        _say(f"{type(error).__name__}: {one_line(error)} (HYDRA_FULL_ERROR=1 shows where)")
        sys.exit(1)
    finally:
        os.environ.pop(_FULL, None)
        if not full:
            os.environ.pop("HYDRA_FULL_ERROR", None)


def task(job: Callable[[DictConfig], Any]) -> Callable[[DictConfig], None]:
    """Wrap the body of a door: a user's mistake in a single run ends it here, before Hydra adds lines of its own.

    In a sweep the error goes on to Hydra, so that the other jobs still run.
    """

    @functools.wraps(job)
    def body(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except UserError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                _say(f"job {HydraConfig.get().job.num} ({' '.join(task_overrides())}): {one_line(error)}")
                raise
            if os.environ.get(_FULL) == "1":
                raise
            _say(one_line(error))
            raise SystemExit(1) from error

    return body


class SweepSize(Callback):
    """A Hydra callback that counts the jobs of a grid before they start: Hydra tells a job its number alone."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        os.environ.pop(_SWEEP, None)
        if config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            overrides = [o for o in parser.parse_overrides(list(config.hydra.overrides.task)) if o.is_sweep_override()]
            os.environ[_SWEEP] = str(math.prod(sum(1 for _ in one.sweep_string_iterator()) for one in overrides))


def is_alone() -> bool:
    """Whether no other job of this job's sweep runs at the same time."""
    config = HydraConfig.get()
    return config.mode != RunMode.MULTIRUN or config.launcher["_target_"].endswith(".BasicLauncher")


def sweep_place() -> tuple[int, int] | None:
    """This job's number, from 0, and how many its sweep has; None outside a sweep, or where that is not known."""
    config = HydraConfig.get()
    total = os.environ.get(_SWEEP)
    return None if config.mode != RunMode.MULTIRUN or total is None else (int(config.job.num), int(total))


def _terminate(signum: int, frame: Any) -> None:
    raise SystemExit(128 + signum)


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """An error's message as one line; of a chain, the innermost message, which says what was wrong."""
    cause = error
    while isinstance(cause, HydraException) and cause.__cause__ is not None and not str(cause).strip():
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).partition("Config search path:")[0].splitlines()]
    noise = ("Set the environment variable", "full_key:", "object_type=", "reference_type=")
    return "; ".join(line for line in lines if line and not line.startswith(noise)) or type(error).__name__


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain, resolved values. Every ``???`` is an error here, before any work.

    Raises:
        UserError: a mandatory value is missing.
    """
    try:
        container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value; give {error.full_key}=...") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def task_overrides() -> list[str]:
    """The overrides of this job, as typed or as the sweep made them."""
    return list(HydraConfig.get().overrides.task)


def command(script: str, overrides: Sequence[str]) -> str:
    """The command line that makes this job alone, for the record."""
    quoted = [f"'{item}'" if any(c in item for c in " *[]{}()") else item for item in overrides]
    return " ".join(["python", script, *quoted])


# Overrides that do not change the result, or that the name already shows.
_NOT_IN_NAME = (
    "network", "model", "weight_decay.value", "split", "data", "seed", "runs", "name", "study", "tags", "threads",
    "resume", "data.root", "data.download", "data.folder", "data.workers", "debug", "trainer", "checkpoints", "attack",
    "attack.targets",
    "attack.amplify", "attack.stddev", "subset", "limit", "shard", "trainer.accelerator", "trainer.devices",
    "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar", "test_curve", "spectral_penalty.value",
)  # fmt: skip
_GROUPS_BY_VALUE = ("callbacks", "weight_decay", "spectral_penalty", "experiment")


def name_extras(overrides: Sequence[str]) -> list[str]:
    """Parts of a run's name for the overrides that its other parts do not show, for example ``max_epochs5``."""
    parts = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key in _NOT_IN_NAME or key.split(".")[0] in ("logger", "hydra"):
            continue
        short = "" if key in _GROUPS_BY_VALUE else key.split(".")[-1]
        if short or value not in ("none", "paper", "null"):
            parts.append(f"{short}{value}")
    return parts


def study_steps(study: dict[str, Any], runs: str, *, logger: dict[str, Any], threads: int) -> list[Any]:
    """Compose every step of a study from its overrides, exactly as train.py and attack.py would.

    Args:
        study: the study's config, plain.
        runs: where all runs lie.
        logger: the logger settings for every step.
        threads: of every step.

    Returns:
        ``study.Step`` in the order in which they are to start.

    Raises:
        UserError, HydraException: an override that is wrong, a network that no step trains.
    """
    from intriguing.study import Step
    from intriguing.training import TrainingJob

    if study["limit"] is not None:  # said now, not after the networks were trained
        whole("study.limit", study["limit"], 1)
    common = [f"runs={runs}", f"threads={threads}", *study["overrides"]]
    steps: list[Step] = []
    for seed in study["seeds"]:
        checkpoints: dict[str, str] = {}
        for key, own in study["train"]["networks"].items():
            overrides = [*study["train"]["all"], *own, f"seed={seed}"]
            config = _compose("train", [*common, *overrides, "trainer.enable_progress_bar=false"], study, logger)
            extras = tuple(name_extras(overrides))
            name = TrainingJob.from_config(config, extras=extras).name
            checkpoints[key] = f"{runs}/train/{name}/model.ckpt"
            steps.append(Step(f"{key} seed {seed}", "train", config, extras, command("train.py", overrides)))
        before: dict[str, str] = {key: f"{key} seed {seed}" for key in checkpoints}
        for number, entry in enumerate(study["attack"]):
            for key in _chosen(entry["networks"], checkpoints):
                overrides = [*entry["overrides"], f"seed={seed}", f"limit={_word(study['limit'])}"]
                source = [] if key is None else [f"checkpoints={checkpoints[key]}"]
                config = _compose("attack", [*common, *overrides, *source], study, logger)
                step = Step(
                    f"attack {number + 1} on {key or 'noise'} seed {seed}",
                    "attack",
                    config,
                    tuple(name_extras(overrides)),
                    command("attack.py", [*source, *overrides]),
                    () if key is None else (before[key],),
                )
                if key is not None:
                    before[key] = step.key  # one attack of a network after the other: amplifying reads the plain set
                steps.append(step)
    return steps


def perform(step: Any) -> list[Path]:
    """Run one step of a study, as its door would; skip what is finished.

    Returns:
        The run folders.
    """
    if step.stage == "train":
        from intriguing import training

        return [training.fit(training_job(step.config, step.extras, step.command))]
    from intriguing import attacking

    jobs = attacking.AttackJob.from_config(step.config, extras=step.extras, command=step.command)
    return [attacking.craft(job) for job in jobs]


def training_job(config: dict[str, Any], extras: Sequence[str], command: str) -> Any:
    """The checked job of a resolved ``train`` config, its callbacks built.

    Raises:
        UserError: a value that cannot be right, or a callback that cannot be built.
    """
    from hydra.utils import instantiate

    from intriguing.training import TrainingJob

    try:
        callbacks = [instantiate(one, _convert_="all") for one in (config["callbacks"] or {}).values()]
    except HydraException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"callbacks: {one_line(error)}") from error
    return TrainingJob.from_config(config, extras=extras, command=command, callbacks=callbacks)


def _compose(door: str, overrides: list[str], study: dict[str, Any], logger: dict[str, Any]) -> dict[str, Any]:
    config = plain(compose(door, overrides=overrides))
    return config | {"study": study["name"], "logger": logger}


def _chosen(patterns: list[str] | None, names: Iterable[str]) -> list[str | None]:
    if patterns is None:
        return [None]
    chosen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        raise UserError(f"study.attack names the networks {patterns}, but study.train has only {', '.join(names)}")
    return list(chosen)


def _word(value: Any) -> str:
    return "null" if value is None else str(value)
