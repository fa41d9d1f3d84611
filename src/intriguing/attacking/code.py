"""Identify the code behind a shard, so that one that other code has made is made again."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from torch import nn

from intriguing import attacks, optim
from intriguing.attacking.job import AttackJob
from intriguing.attacks import FunctionAttack

_PACKAGES = (attacks, optim)
_MODULES = ("intriguing.attacking.shards", "intriguing.attacking.starts", "intriguing.metrics")


def code_digest(job: AttackJob) -> str:
    """Compute a sha256 over the source of everything that computes a shard of a job.

    That is the attack (of the project, or the module of a user's function), the modules in which the layers of the
    network are defined, and the version of PyTorch. Modules that a user's module imports are not looked at.

    Args:
        job: the attack.

    Returns:
        The digest in hex.
    """
    names: set[str] = set(_MODULES)
    if isinstance(job.attack.attack, FunctionAttack):
        names.add(job.attack.attack.path.rpartition(".")[0])
    if job.source is not None:
        names |= _modules_of(job.source.model)
    files = {name: _source(name) for name in names}
    for package in _PACKAGES:
        folder = Path(str(package.__file__)).parent
        files |= {f"{package.__name__}.{file.stem}": file for file in folder.glob("*.py")}
    digest = hashlib.sha256(torch.__version__.encode())
    for name, file in sorted(files.items()):
        digest.update(f"\n{name}\n".encode())
        if file is not None and file.is_file():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _modules_of(network: nn.Module) -> set[str]:
    """Name the modules that define the layers of a network, without PyTorch's own."""
    found = {type(layer).__module__ for layer in network.modules()}
    return {name for name in found if name.partition(".")[0] != "torch"}


def _source(name: str) -> Path | None:
    """Return the source file of an imported module; None where there is none."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return None if file is None else Path(file)
