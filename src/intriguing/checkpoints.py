"""The only place that opens checkpoints.

A checkpoint is data: it is read with ``weights_only=True``, the network is looked up by name in the project's own
registry, and the digest of the weights is compared, because torch loads a flipped byte without a word.
"""

from __future__ import annotations

import glob
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from intriguing import __version__
from intriguing.errors import UserError
from intriguing.models import REGISTRY, Classifier, weights_sha256
from intriguing.tracking import natural_key
from intriguing.tracking.artifact import PREFIX, fetch_checkpoint

HEADER = {"version", "model", "weights_sha256", "data", "seed"}  # what every checkpoint of the project says of itself


def load_model(path: str | Path) -> Classifier:
    """Load a trained network, on the CPU, in eval mode.

    Args:
        path: a checkpoint of train.py (``model.ckpt``, ``checkpoints/best.ckpt``, ``checkpoints/last.ckpt``).

    Returns:
        The LightningModule; ``.label`` names it, ``.hparams`` holds its settings.

    Raises:
        UserError: no file, an empty, truncated, damaged or foreign one, or one from another version of the project.
    """
    checkpoint = read_checkpoint(path)
    header = checkpoint["intriguing"]
    network = REGISTRY[header["model"]]
    try:
        model = network(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{path} does not fit {header['model']} of version {__version__} (it was written by version "
            f"{header['version']}): {_first_line(error)}"
        ) from error
    return model.eval()


def find_checkpoints(patterns: str | Sequence[str], *, runs: str = "runs", wandb_mode: str | None = None) -> list[Path]:
    """The checkpoints that patterns name, in natural order, each once.

    Args:
        patterns: a file, a run folder (its ``model.ckpt``), a glob of either, ``wandb:entity/project/artifact:alias``,
            or a list of them.
        runs: the folder of all runs, which keeps what is fetched from W&B.
        wandb_mode: ``offline`` or ``disabled``: nothing is fetched; None: as WANDB_MODE says.

    Raises:
        UserError: a pattern that matches nothing, or an artifact that cannot be had.
    """
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else list(patterns):
        if str(pattern).startswith(PREFIX):
            found[fetch_checkpoint(str(pattern), runs, mode=wandb_mode)] = None
            continue
        text = str(Path(str(pattern)).expanduser())
        matches = [text] if Path(text).exists() else glob.glob(text, recursive=True)
        files = [path / "model.ckpt" if path.is_dir() else path for path in map(Path, matches)]
        files = [path for path in files if path.is_file()]
        if not files:
            raise UserError(
                f"checkpoints={pattern} matches no checkpoint; expected a file, a run folder or a glob such as "
                "'runs/train/*/model.ckpt'"
            )
        found |= dict.fromkeys(sorted(files, key=lambda path: natural_key(str(path))))
    return list(found)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read and verify a checkpoint; nothing in it is executed.

    Raises:
        UserError: see ``load_model``.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}; train.py writes runs/train/<name>/model.ckpt")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty, not a checkpoint; train the network again")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is not a checkpoint that loads safely (weights_only=True refused it)") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, BadZipFile) as error:
        raise UserError(f"{path} is truncated, damaged or no checkpoint at all: {_first_line(error)}") from error
    header = checkpoint.get("intriguing") if isinstance(checkpoint, dict) else None
    if not isinstance(header, dict) or not header.keys() >= HEADER:
        raise UserError(f"{path} is a foreign checkpoint: it was not written by train.py of this project")
    if header["model"] not in REGISTRY:
        raise UserError(f"{path} holds the unknown network '{header['model']}'; known: {', '.join(sorted(REGISTRY))}")
    state_dict = checkpoint.get("state_dict")
    if not isinstance(state_dict, dict) or weights_sha256(state_dict) != header["weights_sha256"]:
        raise UserError(f"{path} is damaged: its weights do not have the sha256 that was stored with them")
    return checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there: after a kill the old file or the new one is there."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
