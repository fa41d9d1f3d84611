"""Checkpoints that lie in W&B: found by name, downloaded once, kept with the runs."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from intriguing.errors import UserError
from intriguing.tracking.wandb_run import online, without_lookups

PREFIX = "wandb:"
FILE = "model.ckpt"
_REFERENCE = re.compile(r"wandb:([\w.-]+)/([\w.-]+)/([\w.-]+):([\w.-]+)")
_VERSION = re.compile(r"v\d+")


def fetch_checkpoint(reference: str, runs: Path | str, *, mode: str | None = None) -> Path:
    """The checkpoint that W&B has under a name; what was downloaded before is not asked for again.

    Args:
        reference: `wandb:entity/project/artifact:alias`; the alias is a version (`v3`) or a word such as `latest`.
        runs: the folder of all runs; the file goes below its artifacts/, in a folder named like its run.
        mode: W&B's mode of this job; None: as WANDB_MODE says, else online, since that is what is asked for.

    Returns:
        `<runs>/artifacts/<entity>/<project>/<version>/<run>/model.ckpt`. The caller verifies it as any other.

    Raises:
        UserError: no such form or artifact, W&B switched off or out of reach.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise UserError(
            f"{reference} names no artifact; expected wandb:entity/project/artifact:alias, "
            "for example wandb:me/intriguing/checkpoint-fc100_100_10_full_seed0:latest"
        )
    entity, project, name, alias = found.groups()
    home = Path(runs) / "artifacts" / entity / project
    kept = home / alias / name.removeprefix("checkpoint-") / FILE
    if _VERSION.fullmatch(alias) and kept.is_file():
        return kept
    online(f"{reference} has to be fetched", mode)
    try:
        with without_lookups():
            artifact = _find(f"{entity}/{project}/{name}:{alias}")
            if artifact.type != "checkpoint":
                raise UserError(f"{reference} is an artifact of type {artifact.type}; expected one of type checkpoint")
            kept = home / str(artifact.version) / kept.parent.name / FILE
            if not kept.is_file():
                _download(artifact, kept)
    except UserError:
        raise
    except Exception as error:  # no key, no network, no such artifact: all of W&B's own kinds
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"{reference} cannot be had from W&B ({line}); wandb login or WANDB_API_KEY, and a network, are needed"
        ) from error
    return kept


def _find(name: str) -> Any:
    import wandb

    return wandb.Api(timeout=20).artifact(name)


def _download(artifact: Any, target: Path) -> None:
    """Beside its place first: after an interruption the whole file is there or none."""
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent.parent))
    try:
        artifact.download(root=str(part), skip_cache=True)
        if not (part / FILE).is_file():
            raise UserError(f"the artifact {artifact.name} holds no {FILE}: it was not written by train.py")
        target.parent.mkdir(exist_ok=True)
        (part / FILE).replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
