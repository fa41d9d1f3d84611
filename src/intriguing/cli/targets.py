"""Find what a ``_target_`` names, which may lie in the working folder, and say what is wrong with a name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from typing import Any

from hydra._internal.utils import _locate  # hydra.utils.get_object, without its lines in the log
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd

from intriguing.errors import UserError, did_you_mean, error_message, error_summary


def located(name: str, target: str) -> Any:
    """Import a class or a function by its full name.

    Args:
        name: of the setting, for messages.
        target: such as ``mine.Net``.

    Raises:
        UserError: there is none; the line names the nearest.
    """
    _find_the_users_modules()
    try:
        return _locate(target)
    except Exception as error:  # of the user's module, which is run now
        raise UserError(f"{name}={target}: {_why_not(target) or error_message(error)}") from error


def _why_not(target: str) -> str | None:
    """Write which part of a full name is not there, and the nearest that is; None if a module fails by itself."""
    first, *parts = target.split(".")
    if not all(part.isidentifier() for part in (first, *parts)):
        return "expected the full name of a class or a function, such as mine.Net"
    if importlib.util.find_spec(first) is None:
        names = {one.name for one in pkgutil.iter_modules([_working_folder()])}
        return f"there is no module {first} in {_working_folder()}, nor is one installed{did_you_mean(first, names)}"
    place, found = first, None
    try:
        found = importlib.import_module(first)
        for part in parts:
            if not hasattr(found, part):
                importlib.import_module(f"{place}.{part}")  # a module below that its package has not imported
            found, place = getattr(found, part), f"{place}.{part}"
    except ModuleNotFoundError as error:
        missing = str(error.name).removeprefix(f"{place}.")
        if missing == error.name or found is None:
            return f"importing {place} failed with ModuleNotFoundError: {error}"
        return f"{place} has no {missing}{did_you_mean(missing, dir(found))}"
    except Exception as error:
        return f"importing {place} failed with {error_summary(error)}"
    return None


def arguments(found: Any) -> list[str] | None:
    """List the names of the arguments of a class or a function; None if it takes any, or has no signature."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # code without a signature
        return None
    return None if any(one.kind is one.VAR_KEYWORD for one in parameters) else [one.name for one in parameters]


def _working_folder() -> str:
    return get_original_cwd() if HydraConfig.initialized() else os.getcwd()


def _find_the_users_modules() -> None:
    """Make modules importable that lie in the folder in which the command was started."""
    working = _working_folder()
    if working not in sys.path:
        sys.path.append(working)
