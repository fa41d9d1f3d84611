"""Weights & Biases: the project's only import of wandb, and never something a result depends on.

Offline unless WANDB_MODE or the config says otherwise, so no account is needed. Whatever W&B does wrong costs one
warning line and W&B's own record, never the run: metrics.csv and run.json stand beside it.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from intriguing.errors import UserError
from intriguing.runs.names import slug

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

MODES = ("offline", "online", "disabled")
AXIS = "trainer/global_step"  # the one Lightning's logger uses: all curves of a run share it
log = logging.getLogger(__name__)


def start_wandb(
    *,
    folder: Path | str,
    name: str,
    title: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    config: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    mode: str | None = None,
    project: str | None = None,
    entity: str | None = None,
) -> "WandbRun":
    """Start a W&B run of its own, whatever other runs this process has had; close it with `finish` or as a context.

    W&B's environment variables count where an argument is None: WANDB_NAME, WANDB_RUN_GROUP, WANDB_MODE, WANDB_PROJECT,
    WANDB_ENTITY, and WANDB_TAGS where there are none. WANDB_RUN_ID, WANDB_NOTES, WANDB_JOB_TYPE and WANDB_DIR count
    always.

    Args:
        folder: The run folder; everything W&B writes goes below its wandb/, unless WANDB_DIR names another.
        name: The run's name, the same as the folder's.
        title: What W&B calls the run; None: WANDB_NAME, else the name.
        group: The study.
        job_type: The stage.
        config: Plain hyper-parameters.
        tags: Free words.
        mode: offline, online or disabled; None: as WANDB_MODE says, else offline.
        project: W&B project; None: WANDB_PROJECT, else intriguing.
        entity: W&B user or team; None: WANDB_ENTITY, else the account's own.

    Returns:
        A handle; a silent one that does nothing when disabled or when W&B could not start (one warning line).

    Raises:
        UserError: an unknown mode.
    """
    asked = mode or os.environ.get("WANDB_MODE") or "offline"
    # "dryrun" and "run" are W&B's older words
    asked = {"dryrun": "offline", "run": "online"}.get(asked, asked)
    if asked not in MODES:
        raise UserError(
            f"W&B mode {asked!r} is unknown; expected one of {', '.join(MODES)} (WANDB_MODE, or the config)"
        )
    home = Path(folder) / "wandb"
    if asked == "disabled":
        return WandbRun(None, home)
    about = {
        "name": title or _unless("WANDB_NAME", name),
        "group": group,
        "job_type": _unless("WANDB_JOB_TYPE", job_type),
        "project": project or _unless("WANDB_PROJECT", "intriguing"),
        "entity": entity,
        "config": dict(config or {}),
        "tags": [str(tag)[:64] for tag in tags] or None,  # W&B refuses longer ones
        "dir": _unless("WANDB_DIR", str(home.parent)),
    }
    for attempt in dict.fromkeys((asked, "offline")):
        try:
            with _environment(home, attempt):
                return WandbRun(_init(home, attempt, about), home, name)
        except Exception as error:  # no service, no disk, no account: the run matters more
            _warn("start", error, "offline instead" if attempt == "online" else "this run has no W&B record")
    return WandbRun(None, home)


def _unless(variable: str, value: str | None) -> str | None:
    """The value, or None, by which W&B reads the environment variable, where that is set."""
    return None if os.environ.get(variable) else value


def _init(home: Path, mode: str, about: dict[str, Any]) -> Any:
    import wandb

    home.mkdir(parents=True, exist_ok=True)
    online = mode == "online"
    mark = home / "id"  # online, a resumed run goes on in its own W&B run
    settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
    run = wandb.init(
        mode="online" if online else "offline",
        id=_unless("WANDB_RUN_ID", mark.read_text().strip() if online and mark.is_file() else None),
        resume="allow" if online else None,
        reinit="finish_previous",  # without it the jobs of a sweep become one run
        settings=settings,
        **about,
    )
    if online:
        mark.write_text(run.id)
    run.define_metric(AXIS)
    run.define_metric("*", step_metric=AXIS, step_sync=True)
    return run


def online(what: str, mode: str | None = None) -> None:
    """Raises UserError where W&B was switched off and `what` cannot be without it."""
    asked = mode or os.environ.get("WANDB_MODE")
    if asked in ("offline", "disabled", "dryrun"):
        raise UserError(f"{what}, but W&B is {asked}: set WANDB_MODE=online, with an account (wandb login)")


@contextlib.contextmanager
def without_lookups() -> Iterator[None]:
    """W&B asks for a host of its own error reports even before it is used; not here."""
    with _added({"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}):
        yield


@contextlib.contextmanager
def _environment(home: Path, mode: str) -> Iterator[None]:
    """Point W&B's caches below the run folder, unless the user has pointed them elsewhere; undone afterwards."""
    wanted = {f"WANDB_{kind}_DIR": str((home / kind.lower()).absolute()) for kind in ("DATA", "CACHE", "CONFIG")}
    if mode == "offline":
        wanted["WANDB_ERROR_REPORTING"] = "false"  # W&B would look a host up even offline
    with _added(wanted):
        yield


@contextlib.contextmanager
def _added(wanted: Mapping[str, str]) -> Iterator[None]:
    added = {key: value for key, value in wanted.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def _warn(what: str, error: BaseException, consequence: str) -> None:
    line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    log.warning("W&B could not %s (%s): %s", what, line, consequence)


class WandbRun:
    """A handle on one W&B run, or on none (`active` False); no method raises for W&B's sake.

    Every `log_*` takes the step of the shared axis, or None for the run as a whole.
    """

    def __init__(self, run: Any | None, home: Path, name: str | None = None) -> None:
        self._run = run
        self._name = name  # of the run's folder, which W&B's may not be
        self._home = home
        self._broken = False

    @property
    def active(self) -> bool:
        return self._run is not None and not self._broken

    @property
    def raw(self) -> Any | None:
        """wandb's own run object, None when there is none."""
        return self._run

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Numbers by key (`train/loss`)."""
        self._try("log", lambda run: run.log(_at(metrics, step)))

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """The distribution of an array's finite values (a failed attack's distortion is inf)."""

        def send(run: Any) -> None:
            import numpy as np
            import wandb

            array = np.asarray(values, dtype=np.float64).ravel()
            array = array[np.isfinite(array)]
            if array.size:
                run.log(_at({key: wandb.Histogram(array.tolist())}, step))

        self._try("log a histogram", send)

    def log_images(self, key: str, images: Any, captions: Sequence[str] | None = None, step: int | None = None) -> None:
        """Pictures: files, or an array (N, C, H, W) or (N, H, W) in [0, 1] (values outside are cut)."""

        def send(run: Any) -> None:
            import wandb

            texts = captions if captions is not None else [None] * len(images)
            run.log(_at({key: [wandb.Image(_pixels(i), caption=t) for i, t in zip(images, texts, strict=True)]}, step))

        self._try("log images", send)

    def log_table(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None
    ) -> None:
        """A table, such as the transfer matrix."""

        def send(run: Any) -> None:
            import wandb

            run.log(_at({key: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step))

        self._try("log a table", send)

    def log_artifact(self, path: Path | str, *, kind: str, metadata: Mapping[str, Any] | None = None) -> None:
        """A finished file, not copied, as `<kind>-<run name>`; kind is e.g. `checkpoint` or `adversarial_set`."""

        def send(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(
                slug(f"{kind}-{self._name or run.name}").replace("+", "_").replace("=", "_"), kind
            )
            artifact.metadata.update(metadata or {})
            artifact.add_file(str(Path(path).absolute()), name=Path(path).name, policy="immutable", skip_cache=True)
            run.log_artifact(artifact)

        self._try("log an artifact", send)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """The run's final numbers."""
        self._try("write its summary", lambda run: run.summary.update(dict(values)))

    def configure(self, values: Mapping[str, Any]) -> None:
        """More hyper-parameters."""
        self._try("write its config", lambda run: run.config.update(dict(values), allow_val_change=True))

    def finish(self, *, failed: bool = False) -> None:
        """End the run; call it in `finally`, or the next one in this process joins it. Safe to call twice."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            with _environment(self._home, "offline" if run.offline else "online"):
                run.finish(exit_code=int(failed))
        except Exception as error:
            if not self._broken:
                _warn("finish", error, "its record of this run may lack the end")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(failed=error is not None)

    def _try(self, what: str, action: Callable[[Any], None]) -> None:
        if self._run is None or self._broken:
            return
        try:
            with _environment(self._home, "offline" if self._run.offline else "online"):
                action(self._run)
        except Exception as error:  # whatever it is, the run goes on without W&B
            self._broken = True
            _warn(what, error, "the run goes on without it; metrics.csv and run.json are complete")


def _at(values: Mapping[str, Any], step: int | None) -> dict[str, Any]:
    return dict(values) if step is None else {**values, AXIS: step}


def _pixels(image: Any) -> Any:
    """One picture as wandb.Image takes it: a file's path, or (H, W) or (H, W, C) bytes."""
    if isinstance(image, str | Path):
        return str(image)
    import numpy as np

    array = np.asarray(image, dtype=np.float32)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def lightning_logger(run: WandbRun) -> "WandbLogger | None":
    """A Lightning logger that writes to the same W&B run, None when there is none; it too never stops a training."""
    if not run.active:
        return None
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.loggers import WandbLogger

    class SafeWandbLogger(WandbLogger):
        """Lightning's own, its two calls sent through the handle."""

        @rank_zero_only
        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            run.log(metrics, step)

        @rank_zero_only
        def log_hyperparams(self, params: Any) -> None:
            run.configure(params if isinstance(params, Mapping) else vars(params))

    raw: Any = run.raw
    return SafeWandbLogger(experiment=raw, name=raw.name, version=raw.id, save_dir=raw.dir, project=raw.project)
