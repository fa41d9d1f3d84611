"""Build what a training config names by ``_target_``: the optimiser, the scheduler, the callbacks.

``_target_`` is honoured here alone, so from the command line and config files, never from a checkpoint.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import get_object, get_original_cwd, instantiate

from intriguing.cli.main import one_line
from intriguing.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from intriguing.models import Scheduler

_WHEN = ("interval", "frequency", "monitor", "strict")  # when Lightning steps a scheduler; no setting of the scheduler


def optimizer(config: Mapping[str, Any]) -> partial[Any]:
    """Return the factory of the optimiser, which takes parameters or parameter groups.

    Raises:
        UserError: there is no such class.
    """
    return _factory("optimizer", config["optimizer"])


def scheduler(config: Mapping[str, Any]) -> Scheduler | None:
    """Return the factory of the scheduler, with when it is stepped; None where the learning rate is constant.

    Raises:
        UserError: there is no such class.
    """
    from intriguing.models import Scheduler

    given = config["scheduler"] or {}
    if given.get("_target_") is None:
        if unread := sorted(set(given) - {"_target_"}):
            raise UserError(f"scheduler.{unread[0]} is read by nothing without scheduler._target_=<class>")
        return None
    settings = {key: value for key, value in given.items() if key not in _WHEN}
    return Scheduler(_factory("scheduler", settings), {key: given[key] for key in _WHEN if key in given})


def network(config: Mapping[str, Any]) -> Callable[..., nn.Module] | None:
    """Return the class of ``model._target_``, which builds the network; None for a network of the project.

    Raises:
        UserError: there is no such class.
    """
    target = config["model"].get("_target_")
    return None if target is None else _found("model._target_", target)


def networks(config: Mapping[str, Any]) -> tuple[Callable[..., nn.Module], ...]:
    """Return the classes of ``model._target_`` by which ``attack.py`` and ``analyze.py`` open checkpoints.

    Raises:
        UserError: there is no such class, or another key of ``model``.
    """
    from intriguing.validation import refuse_unknown

    refuse_unknown("model", config["model"], ("_target_",))
    given = config["model"]["_target_"]
    targets = given if isinstance(given, list) else [] if given is None else [given]
    return tuple(_found("model._target_", one) for one in targets)


def callbacks(config: Mapping[str, Any]) -> list[Any]:
    """Build the callbacks; those that are null are left out.

    Raises:
        UserError: one has no ``_target_``, or cannot be built.
    """
    found = {name: one for name, one in (config["callbacks"] or {}).items() if one is not None}
    return [_built(f"callbacks.{name}", one) for name, one in found.items()]


def _factory(name: str, given: Mapping[str, Any]) -> partial[Any]:
    return _built(name, {**given, "_partial_": True})


def _found(name: str, target: Any) -> Callable[..., Any]:
    """Import a class or a function by its full name."""
    _find_the_users_modules()
    if not isinstance(target, str):
        raise UserError(f"{name} must be the full name of a class, such as mine.Net, got {target!r}")
    try:
        found = get_object(target)
    except Exception as error:  # of the user's module, which is run now
        cause = error.__cause__ if isinstance(error, ImportError | HydraException) and error.__cause__ else error
        raise UserError(f"{name}={target}: {one_line(cause)}") from error
    if not callable(found):
        raise UserError(f"{name}={target} is a {type(found).__name__}, not a class or a function")
    return found


def _find_the_users_modules() -> None:
    """Make modules importable that lie in the folder in which the command was started."""
    working = get_original_cwd() if HydraConfig.initialized() else os.getcwd()
    if working not in sys.path:
        sys.path.append(working)


def _built(name: str, given: Any) -> Any:
    _find_the_users_modules()
    if not isinstance(given, dict) or not given.get("_target_"):
        raise UserError(f"{name}: expected {{_target_: <class>, ...}} or null, got {given!r}")
    try:
        return instantiate(given, _convert_="all")
    except HydraException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{name}: {one_line(error.__cause__ or error)}") from error
