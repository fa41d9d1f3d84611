"""What the three doors have in common: from a Hydra config to a typed job, from an error to one line.

Nothing heavy is imported here, so that ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose
from hydra._internal.utils import get_args_parser  # the parser that hydra.main uses; no public name has it
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from intriguing import sweep
from intriguing.errors import Stopped, UserError
from intriguing.signals import listening
from intriguing.tracking import is_first_process

LONGEST = 2000  # characters of a line that is printed
_FULL = "INTRIGUING_FULL_ERROR"


def run(door: Callable[[], Any]) -> None:
    """Run a ``@hydra.main`` function; a user's mistake becomes one line and status 1, not a traceback.

    With ``HYDRA_FULL_ERROR=1`` every error is raised as it is. Ctrl-C ends with status 130, SIGTERM with 143, a sweep
    of which a job failed with 1.
    """
    # a further process of a distributed run finds in its environment what this one has put there below
    full = os.environ.get(_FULL, os.environ.get("HYDRA_FULL_ERROR")) == "1"
    os.environ[_FULL] = str(int(full))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print over many lines
    sweep.forget()
    try:
        with listening():
            _check_options()
            door()
        if failures := sweep.failures():
            _say(failures)
            sys.exit(1)
    except Stopped as stop:
        if "lightning" in sys.modules and not is_first_process():
            sys.exit(0)  # the first process speaks, and Lightning would kill it for another status here
        saved = "; ".join(part for part in (sweep.standing(), stop.saved or "what was finished is saved") if part)
        print(f"stopped by {stop.by}: {saved}; the same command goes on there", file=sys.stderr)
        sys.exit(stop.code)
    except Exception as error:
        if full:
            raise
        _say("; ".join(part for part in (_reason(error), sweep.failures()) if part))
        sys.exit(1)
    finally:
        os.environ.pop(_FULL, None)
        if not full:
            os.environ.pop("HYDRA_FULL_ERROR", None)


def task(job: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wrap the body of a door: an error in a single run ends it here, before Hydra adds lines of its own.

    In a sweep it is named and recorded, and the other jobs still run, whichever process the launcher put this one in.
    """

    @functools.wraps(job)
    def body(cfg: DictConfig) -> Any:
        full, sweeping = os.environ.get(_FULL) == "1", HydraConfig.get().mode == RunMode.MULTIRUN
        with listening():  # also where a launcher runs this in a process of its own
            try:
                with sweep.recording(_reason) if sweeping else nullcontext():
                    return job(cfg)
            except Exception as error:
                if full and not sweeping:
                    raise
                if full:
                    traceback.print_exc()
                _say(sweep.job_name() + _reason(error))
                if not sweeping:
                    raise SystemExit(1) from error
                if sweep.wants_exceptions():
                    raise
                return None

    return body


def _check_options() -> None:
    """Raises UserError for an option that Hydra does not have, where argparse would print its usage over many lines."""

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; settings are given as name=value, --help lists the options")

    parser = get_args_parser()
    parser.error = refuse
    parser.parse_args()


def _say(message: str) -> None:
    visible = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
    print(f"error: {visible if len(visible) <= LONGEST else visible[:LONGEST] + '...'}", file=sys.stderr)


def _reason(error: BaseException) -> str:
    """What is printed of an error: its message; with its kind, if it is none that was foreseen."""
    if isinstance(error, UserError | HydraException | OmegaConfBaseException | YAMLError):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)} (HYDRA_FULL_ERROR=1 shows where)"


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
    "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar", "test_curve", "spectral_penalty",
    "spectral_penalty.kind", "spectral_penalty.value",
)  # fmt: skip
_GROUPS_BY_VALUE = ("callbacks", "weight_decay", "experiment")


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
    from intriguing.study import Step, check_study
    from intriguing.training import TrainingJob

    check_study(study)  # said now, not after the networks were trained
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
    from hydra.utils import get_original_cwd, instantiate

    from intriguing.training import TrainingJob

    _check_sweep(config)
    working = get_original_cwd() if HydraConfig.initialized() else os.getcwd()
    if working not in sys.path:
        sys.path.append(working)  # a callback may be a class of the user's, in a file beside their data
    callbacks = []
    for name, one in (config["callbacks"] or {}).items():
        if one is None:
            continue
        try:
            if not isinstance(one, dict) or "_target_" not in one:
                raise UserError(f"callbacks.{name}: expected {{_target_: <class>, ...}} or null, got {one!r}")
            callbacks.append(instantiate(one, _convert_="all"))
        except HydraException as error:
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise UserError(f"callbacks.{name}: {one_line(error.__cause__ or error)}") from error
    return TrainingJob.from_config(config, extras=extras, command=command, callbacks=callbacks)


def objective(folder: Path) -> float | None:
    """What a sweeper minimises: the share of wrong answers on the images set apart; None where there are none."""
    from intriguing.tracking import read_run

    wrong, images = read_run(folder).result.get("errors", {}).get("val", (0, 0))
    return wrong / images if images else None


def _check_sweep(config: dict[str, Any]) -> None:
    """What a job cannot be as a part of a sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    if "BasicSweeper" not in HydraConfig.get().sweeper["_target_"] and not config["data"]["validation"]:
        raise UserError("a sweeper that chooses needs images set apart to choose by: data.validation=10000 or the like")
    # Lightning starts further processes by the command line, and that of a sweep is not the one of its job.
    trainer, started = config["trainer"], {"SLURM_NTASKS", "LOCAL_RANK"} & set(os.environ)  # by srun or torchrun
    if not started and (trainer["devices"] not in (1, "1", "auto") or trainer["num_nodes"] != 1):
        raise UserError(
            f"trainer.devices={trainer['devices']} in a sweep needs hydra/launcher=slurm with "
            f"hydra.launcher.tasks_per_node={trainer['devices']}; elsewhere run the jobs one by one, without -m"
        )


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
