"""Record the code, versions, kind of machine and command that made a result."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("intriguing", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "omegaconf", "wandb")
PACKAGES += ("numpy", "scipy", "scikit-learn", "safetensors", "matplotlib")
PROJECT = Path(__file__).resolve().parents[3]  # <project>/src/intriguing/runs/provenance.py
CODE = ("src", "conf", "pyproject.toml", ":(glob)*.py")
"""Paths of a checkout that can change a result, as git takes them."""
ORIGIN = ("commit", "dirty", "versions", "python", "platform", "cpus", "cpu_capability")
"""Facts of ``provenance`` that describe code and machine, whatever the command."""


def provenance() -> dict[str, Any]:
    """Collect the facts that are needed to reproduce a result.

    Returns:
        ``commit`` (None outside git), ``dirty`` (whether code or configs differ from it, new files too), ``versions``,
        ``python``, ``platform``, ``cpus``, ``cpu_capability`` (the kernels that PyTorch chooses on this processor, such
        as ``AVX512``: others sum in another order), ``utc`` (ISO 8601) and ``command`` (see ``command_line``). No name
        of a machine or user.
    """
    from torch.backends.cpu import get_cpu_capability  # here: a command that only skips finished runs needs no torch

    commit, dirty = git_commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": dict(versions()),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "cpus": os.cpu_count(),
        "cpu_capability": get_cpu_capability(),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Look up the installed versions of the packages that can change a number, without importing them."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache  # the code of a process does not change after it was loaded
def git_commit(project: Path = PROJECT) -> tuple[str | None, bool | None]:
    """Return the commit of the project's checkout and whether its code differs; None and None without one.

    Files of code and configs that git does not know count as a difference; those that it ignores (``conf/local``) and
    files elsewhere (``results``, ``docs``) do not.
    """
    # A wheel inside another repository: the commit of that repository does not describe this code.
    top = _git(project, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != project.resolve():
        return None, None
    commit = _git(project, "rev-parse", "--verify", "HEAD")
    status = _git(project, "status", "--porcelain", "--untracked-files=all", "--", *CODE)
    if commit is None or status is None:
        return None, None
    return commit, bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # the jobs of a sweep run git at the same time
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def command_line(argv: Sequence[str] | None = None) -> str:
    """Return the command as typed, with paths relative to the working folder or cut to their last part."""
    arguments = list(sys.argv if argv is None else argv)
    if arguments:
        arguments[0] = Path(arguments[0]).name
    return shlex.join(map(without_absolute_paths, arguments))


def without_absolute_paths(text: str, folder: Path | None = None) -> str:
    """Replace the absolute paths in an argument, see ``relative_path``."""
    return re.sub(
        r"(?<![^\s=,:'\"\[({])[/~](?!/)[^,'\"\])}]*", lambda found: relative_path(found.group(), folder), text
    )


def relative_path(text: str, folder: Path | None = None) -> str:
    """Make a path relative, so that it may be recorded; leave other texts as they are.

    Args:
        text: A path or another value.
        folder: The folder that paths below it are written relative to; None: the working folder.

    Returns:
        The relative path; for a path outside the folder ``.../`` and its last part.
    """
    if not text.startswith(("/", "~/")):
        return text  # among them Hydra's deletion of a key, ~callbacks.back_feeding
    path = Path(os.path.expanduser(text))
    try:
        return str(path.relative_to(folder or Path.cwd()))
    except ValueError:
        return f".../{path.name}"
