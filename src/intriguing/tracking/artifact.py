"""Download checkpoints from W&B by name, once, and keep them with the runs."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from intriguing.commands import command_name
from intriguing.errors import UserError, error_summary
from intriguing.tracking.wandb_run import online, without_lookups

PREFIX = "wandb:"
FILE = "model.ckpt"
_REFERENCE = re.compile(r"wandb:([\w.-]+)/([\w.-]+)/([\w.-]+):([\w.-]+)")
_VERSION = re.compile(r"v\d+")


def fetch_checkpoint(reference: str, runs: Path | str, *, mode: str | None = None) -> Path:
    """Download a checkpoint from W&B, unless its version was downloaded before.

    Args:
        reference: ``wandb:entity/project/artifact:alias``; the alias is a version (``v3``) or a word (``latest``).
        runs: The folder of all runs; the file goes below its ``artifacts/``, in a folder named like its run.
        mode: W&B's mode of this job; None: that of WANDB_MODE, else online.

    Returns:
        ``<runs>/artifacts/<entity>/<project>/<version>/<run>/model.ckpt``, which the caller verifies.

    Raises:
        UserError: Another form, no such artifact, or W&B is switched off or out of reach.
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
    except Exception as error:  # no key, no network, no such artifact: W&B has many kinds
        why = error_summary(error)
        raise UserError(
            f"{reference} cannot be had from W&B ({why}); wandb login or WANDB_API_KEY, and a network, are needed"
        ) from error
    return kept


def _find(name: str) -> Any:
    import wandb

    return wandb.Api(timeout=20).artifact(name)


def _download(artifact: Any, target: Path) -> None:
    """Download an artifact's file into a temporary folder, and move it to its place when it is whole."""
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent.parent))
    try:
        artifact.download(root=str(part), skip_cache=True)
        if not (part / FILE).is_file():
            raise UserError(f"the artifact {artifact.name} holds no {FILE}: {command_name('train')} did not write it")
        target.parent.mkdir(exist_ok=True)
        (part / FILE).replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
