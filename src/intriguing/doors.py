"""What the three doors have in common: from a Hydra config to a typed job, from an error to one line.

Nothing heavy is imported here, so that ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from intriguing import overrides as texts
from intriguing import sweep
from intriguing.errors import Stopped, UserError
from intriguing.overrides import name_extras, override
from intriguing.signals import listening
from intriguing.streams import unfailing
from intriguing.tracking import is_first_process

_FILES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.ENAMETOOLONG)
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
    with unfailing(), _folder_for_matplotlib():
        _run(door, full=full)


def _run(door: Callable[[], Any], *, full: bool) -> None:
    try:
        with listening():
            sys.argv[:] = texts.arranged(sys.argv)
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


@contextmanager
def _folder_for_matplotlib() -> Iterator[None]:
    """Give matplotlib a folder for its cache where the home folder is not known or not writable; it would warn."""
    home = os.path.expanduser("~")
    named = {"MPLCONFIGDIR", "XDG_CONFIG_HOME"} & set(os.environ)
    if named or (os.path.isabs(home) and os.access(home, os.W_OK)):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="matplotlib-", ignore_cleanup_errors=True) as folder:
        os.environ["MPLCONFIGDIR"] = folder  # also for the processes that are started
        try:
            yield
        finally:
            os.environ.pop("MPLCONFIGDIR", None)


def task(job: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wrap the body of a door: an error in a single run ends it here, before Hydra adds lines of its own.

    In a sweep it is named and recorded, and the other jobs still run, whichever process the launcher put this one in.
    """

    @functools.wraps(job)
    def body(cfg: DictConfig) -> Any:
        full, sweeping = os.environ.get(_FULL) == "1", HydraConfig.get().mode == RunMode.MULTIRUN
        with unfailing(), listening():  # also where a launcher runs this in a process of its own
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


def _say(message: str) -> None:
    visible = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
    print(f"error: {visible if len(visible) <= LONGEST else visible[:LONGEST] + '...'}", file=sys.stderr)


def _reason(error: BaseException) -> str:
    """What is printed of an error: its message; with its kind, if it is none that was foreseen."""
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be a string"):
        groups = [text for text in sys.argv[1:] if text.endswith("=null") and "." not in text]
        return f"{' '.join(groups) or 'a group'} cannot be: such a group needs one of its options, see --help"
    if isinstance(error, UserError | HydraException | OmegaConfBaseException | YAMLError):
        return one_line(error)
    if isinstance(error, OSError) and error.filename and error.errno in _FILES:
        return f"cannot use {error.filename}: {error.strerror}; give a folder that can be written, with space"
    return f"{type(error).__name__}: {one_line(error)} (HYDRA_FULL_ERROR=1 shows where)"


def one_line(error: BaseException) -> str:
    """An error's message as one line; of a chain, the innermost message, which says what was wrong."""
    cause = error
    while isinstance(cause, HydraException) and cause.__cause__ is not None and not str(cause).strip():
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).partition("Config search path:")[0].splitlines()]
    noise = ("Set the environment variable", "full_key:", "object_type=", "reference_type=")
    text = "; ".join(line for line in lines if line and not line.startswith(noise))
    return text.replace(":; ", ": ") or type(error).__name__


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the config as plain, resolved values. Every ``???`` is an error here, before any work.

    Paths are those of the folder in which the command was started, also where Hydra has changed the working folder.
    Tags are a list of texts, however they were given.

    Raises:
        UserError: a mandatory value is missing, a setting was deleted, or a path or a tag cannot be one.
    """
    texts.check(task_overrides())
    try:
        container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value; give {error.full_key}=...") from error
    assert isinstance(container, dict)
    config = {str(key): value for key, value in container.items()}
    _check_kinds(config)
    config["tags"] = _tags(config["tags"])
    start = started_in()
    for name in (*_PATHS, *_WORDS_OR_PATHS):
        *sections, key = name.split(".")
        section: Any = config
        for one in sections:
            section = section.get(one) if isinstance(section, dict) else None
        if isinstance(section, dict) and section.get(key) is not None:
            section[key] = _placed(name, section[key], start, always=name in _PATHS)
    return config


_PATHS = ("runs", "data.root", "checkpoints", "networks", "sets", "study.results")
_WORDS_OR_PATHS = ("data.folder", "model.settings.weights", "settings.stability.alexnet")  # or relative to a path


def _placed(name: str, value: Any, start: Path, *, always: bool) -> Any:
    """A path without ``~``; absolute where the working folder is no longer the one in which the command was started.

    ``always`` is False for what may be a word, or relative to something else: then only what is there is a path.
    """
    if isinstance(value, list):
        return [_placed(name, one, start, always=always) for one in value]
    text = os.path.expanduser(str(value))
    if text.startswith("~") and always:
        raise UserError(f"{name}={value}: the home folder of {text.split('/')[0]} is not known; give the path in full")
    if text.startswith("wandb:") or start == Path.cwd() or not (always or (start / text).is_file()):
        return text
    return str(start / text)


_MAPPING = re.compile(
    r"data|split|model(\.settings)?|weight_decay|spectral_penalty|trainer|logger|debug|attack|settings(\.\w+)?"
    r"|study\.settings\.\w+"
)
_KINDS = {
    "model.label": (str | None, "a text or null"),
    "model.weight_decay": (list, "a list of numbers"),
    "runs": (str, "a folder"),
}


def _check_kinds(config: dict[str, Any]) -> None:
    """Raises UserError for a section that is none, and for a value that no stage checks itself."""
    for name, value in _sections(config):
        kind, words = (dict, "a mapping of settings") if _MAPPING.fullmatch(name) else _KINDS.get(name, (object, ""))
        if not isinstance(value, kind):
            raise UserError(f"{name} must be {words}, got {value!r}")


def _sections(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict) and prefix.count(".") < 2:
            yield from _sections(value, f"{prefix}{key}.")


def _tags(value: Any) -> list[str]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in values):
        raise UserError(f"tags must be a word or a list of words, such as tags=[paper,mnist], got {value!r}")
    return [str(one) for one in values if one != ""]


def started_in() -> Path:
    """The folder in which the command was started."""
    return Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()


def task_overrides() -> list[str]:
    """The overrides of this job, as typed or as the sweep made them; none outside of an entry point."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def command(script: str, overrides: Sequence[str]) -> str:
    """The command line that makes this job alone, for the record."""
    return texts.command(script, overrides, started_in())


def study_steps(config: dict[str, Any], given: Sequence[str] = ()) -> list[Any]:
    """Compose every step of a study from its overrides, exactly as train.py and attack.py would.

    Args:
        config: the resolved config of ``analyze.py`` with a study.
        given: the overrides that came with it. Those of ``data`` and ``trainer`` go to every step that has such a
            setting, after the study's own.

    Returns:
        ``study.Step`` in the order in which they are to start.

    Raises:
        UserError, HydraException: an override that is wrong or that no step reads, a network that no step trains.
    """
    from intriguing.study import Step, check_study
    from intriguing.training import TrainingJob

    study, runs = config["study"], config["runs"]
    check_study(study)  # said now, not after the networks were trained
    wanted = [text for text in given if texts.split(text)[1].split(".")[0] in ("data", "trainer")]
    unread = dict.fromkeys([*wanted, *(text for text in given if texts.split(text)[1] in ("networks", "sets"))])
    common = [override("runs", runs), override("threads", config["threads"]), override("tags", config["tags"])]
    common += [] if config["data"]["root"] is None else [override("data.root", config["data"]["root"])]

    def composed(
        stage: str, own: list[str], *quiet: str, network: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """The config of a step, and its own overrides with those that were given and that it reads."""
        found = _compose(stage, [*common, *own, *quiet], config)
        taken = {text: texts.for_stage(text, stage, found, network) for text in wanted}
        for text in taken:
            if taken[text]:
                unread.pop(text, None)
        if not any(taken.values()):
            return found, own
        own = [*own, *(text for text in taken.values() if text)]
        return _compose(stage, [*common, *own, *quiet], config), own

    steps: list[Step] = []
    for seed in study["seeds"]:
        checkpoints: dict[str, str] = {}
        trained: dict[str, dict[str, Any]] = {}
        for key, own in study["train"]["networks"].items():
            overrides = [*study["overrides"], *study["train"]["all"], *own, override("seed", seed)]
            made, overrides = composed("train", overrides, "trainer.enable_progress_bar=false")
            trained[key] = made
            extras = tuple(name_extras(overrides))
            name = TrainingJob.from_config(made, extras=extras).name
            checkpoints[key] = f"{runs}/train/{name}/model.ckpt"
            steps.append(Step(f"{key} seed {seed}", "train", made, extras, command("train.py", overrides)))
        before: dict[str, str] = {key: f"{key} seed {seed}" for key in checkpoints}
        for number, entry in enumerate(study["attack"]):
            for key in _chosen(entry["networks"], checkpoints):
                overrides = [*study["overrides"], *entry["overrides"], override("seed", seed)]
                overrides += [override("limit", study["limit"])]
                source = [] if key is None else [override("checkpoints", checkpoints[key])]
                network = None if key is None else trained[key]
                made, overrides = composed("attack", overrides, *source, network=network)
                step = Step(
                    f"attack {number + 1} on {key or 'noise'} seed {seed}",
                    "attack",
                    made,
                    tuple(name_extras(overrides)),
                    command("attack.py", [*source, *overrides]),
                    () if key is None else (before[key],),
                )
                if key is not None:
                    before[key] = step.key  # one attack of a network after the other: amplifying reads the plain set
                steps.append(step)
    if unread:
        raise UserError(f"{next(iter(unread))} is read by no step of study={study['name']}; leave it out")
    return steps


def check_without_study(given: Sequence[str]) -> None:
    """Refuse overrides that only the steps of a study read.

    Raises:
        UserError: there is one.
    """
    for text in given:
        if texts.split(text)[1].split(".")[0] in ("trainer", "processes"):
            raise UserError(f"{text} is for the steps of a study; give study=... or leave it out")


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


def _compose(stage: str, overrides: list[str], config: dict[str, Any]) -> dict[str, Any]:
    overrides = texts.accepted(overrides)
    texts.check(overrides)
    logger = config["logger"] | {"name": None}  # the analysis' own
    return plain(compose(stage, overrides=overrides)) | {"study": config["study"]["name"], "logger": logger}


def _chosen(patterns: list[str] | None, names: Iterable[str]) -> list[str | None]:
    if patterns is None:
        return [None]
    chosen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        raise UserError(f"study.attack names the networks {patterns}, but study.train has only {', '.join(names)}")
    return list(chosen)
