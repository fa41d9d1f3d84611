"""Log runs to Weights & Biases; the only import of wandb.

Offline unless WANDB_MODE or the config says otherwise, so no account is needed. Failures of W&B are logged once and
never stop a run; ``metrics.csv`` and ``run.json`` do not depend on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from intriguing.errors import UserError, error_summary
from intriguing.runs.names import slug

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

MODES = ("offline", "online", "disabled")
AXIS = "trainer/global_step"  # the axis of Lightning's logger, shared by all curves of a run
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
) -> WandbRun:
    """Start a new W&B run, also after others in this process; close it with ``finish`` or as a context manager.

    W&B's environment variables count where an argument is None: WANDB_NAME, WANDB_RUN_GROUP, WANDB_MODE, WANDB_PROJECT,
    WANDB_ENTITY, and WANDB_TAGS where there are none. WANDB_RUN_ID, WANDB_NOTES, WANDB_JOB_TYPE and WANDB_DIR count
    always.

    Args:
        folder: The run folder; W&B writes below its ``wandb/``, unless WANDB_DIR names another folder.
        name: Name of the run and its folder.
        title: Title in W&B; None: WANDB_NAME, else the name.
        group: The study.
        job_type: The stage.
        config: Plain hyper-parameters.
        tags: Free words.
        mode: ``offline``, ``online`` or ``disabled``; None: that of WANDB_MODE, else offline.
        project: W&B project; None: WANDB_PROJECT, else intriguing.
        entity: W&B user or team; None: WANDB_ENTITY, else the account's own.

    Returns:
        A handle; one that does nothing if W&B is disabled or could not start (one warning line).

    Raises:
        UserError: An unknown mode.
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
    """Return the value; None, by which W&B reads the environment variable, if that is set."""
    return None if os.environ.get(variable) else value


def _init(home: Path, mode: str, about: dict[str, Any]) -> Any:
    import wandb

    home.mkdir(parents=True, exist_ok=True)
    online = mode == "online"
    mark = home / "id"  # online, a resumed run continues its W&B run
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
    """Check that W&B is not switched off.

    Args:
        what: The work that needs it, for the message.
        mode: W&B's mode of this job; None: that of WANDB_MODE.

    Raises:
        UserError: It is.
    """
    asked = mode or os.environ.get("WANDB_MODE")
    if asked in ("offline", "disabled", "dryrun"):
        raise UserError(f"{what}, but W&B is {asked}: set WANDB_MODE=online, with an account (wandb login)")


@contextlib.contextmanager
def without_lookups() -> Iterator[None]:
    """Disable W&B's error reporting within the block, which does a DNS lookup even offline."""
    with _added({"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}):
        yield


@contextlib.contextmanager
def _environment(home: Path, mode: str) -> Iterator[None]:
    """Set W&B's caches below the run folder within the block, unless the user has set them."""
    wanted = {f"WANDB_{kind}_DIR": str((home / kind.lower()).absolute()) for kind in ("DATA", "CACHE", "CONFIG")}
    if mode == "offline":
        wanted["WANDB_ERROR_REPORTING"] = "false"  # it does a DNS lookup even offline
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
    log.warning("W&B could not %s (%s): %s", what, error_summary(error, 200), consequence)


class WandbRun:
    """Handle one W&B run, or none (``active`` is False); no failure of W&B raises.

    Every ``log_*`` takes the step of the shared axis, or None for the run as a whole.
    """

    def __init__(self, run: Any | None, home: Path, name: str | None = None) -> None:
        self._run = run
        self._name = name  # the folder's; the title in W&B may differ
        self._home = home
        self._broken = False

    @property
    def active(self) -> bool:
        """Whether W&B still records."""
        return self._run is not None and not self._broken

    @property
    def raw(self) -> Any | None:
        """The run object of wandb; None if there is none."""
        return self._run

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers by key (``train/loss``)."""
        self._try("log", lambda run: run.log(_at(metrics, step)))

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Log the distribution of an array's finite values (the distortion of a failed attack is inf)."""

        def send(run: Any) -> None:
            import numpy as np
            import wandb

            array = np.asarray(values, dtype=np.float64).ravel()
            array = array[np.isfinite(array)]
            if array.size:
                run.log(_at({key: wandb.Histogram(array.tolist())}, step))

        self._try("log a histogram", send)

    def log_images(self, key: str, images: Any, captions: Sequence[str] | None = None, step: int | None = None) -> None:
        """Log files of pictures, or an array (N, C, H, W) or (N, H, W) in [0, 1] (values outside are cut)."""

        def send(run: Any) -> None:
            import wandb

            texts = captions if captions is not None else [None] * len(images)
            run.log(_at({key: [wandb.Image(_pixels(i), caption=t) for i, t in zip(images, texts, strict=True)]}, step))

        self._try("log images", send)

    def log_table(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None
    ) -> None:
        """Log a table."""

        def send(run: Any) -> None:
            import wandb

            run.log(_at({key: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step))

        self._try("log a table", send)

    def log_artifact(self, path: Path | str, *, kind: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Log a finished file, without a copy, as ``<kind>-<run name>``, for example kind ``checkpoint``."""

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
        """Write final numbers of the run."""
        self._try("write its summary", lambda run: run.summary.update(dict(values)))

    def configure(self, values: Mapping[str, Any]) -> None:
        """Add hyper-parameters."""
        self._try("write its config", lambda run: run.config.update(dict(values), allow_val_change=True))

    def finish(self, *, failed: bool = False) -> None:
        """End the run, or the next run of this process joins it; a second call does nothing."""
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
        except Exception as error:  # of any kind: the run continues without W&B
            self._broken = True
            _warn(what, error, "the run continues without it; metrics.csv and run.json are complete")


def _at(values: Mapping[str, Any], step: int | None) -> dict[str, Any]:
    return dict(values) if step is None else {**values, AXIS: step}


def _pixels(image: Any) -> Any:
    """Convert a picture for wandb.Image: to a path, or to (H, W) or (H, W, C) bytes."""
    if isinstance(image, str | Path):
        return str(image)
    import numpy as np

    array = np.asarray(image, dtype=np.float32)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def lightning_logger(run: WandbRun) -> WandbLogger | None:
    """Make a Lightning logger that writes to a W&B run and never stops a training; None if the run is inactive."""
    if not run.active:
        return None
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.loggers import WandbLogger

    class SafeWandbLogger(WandbLogger):
        """Lightning's logger, whose two calls go through the handle."""

        @rank_zero_only
        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            """Log numbers at a step."""
            run.log(metrics, step)

        @rank_zero_only
        def log_hyperparams(self, params: Any) -> None:
            """Add hyper-parameters."""
            run.configure(params if isinstance(params, Mapping) else vars(params))

    raw: Any = run.raw
    return SafeWandbLogger(experiment=raw, name=raw.name, version=raw.id, save_dir=raw.dir, project=raw.project)
