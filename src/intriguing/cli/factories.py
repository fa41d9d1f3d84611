"""Build what a config names by ``_target_``: the optimiser, the scheduler, the callbacks, the images.

``_target_`` is honoured here alone, so from the command line and config files, never from a checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from hydra.utils import instantiate

from intriguing.cli.main import one_line
from intriguing.cli.targets import arguments, located
from intriguing.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from intriguing.checkpoints import Network
    from intriguing.data import DatasetPair, OwnData
    from intriguing.models import Scheduler

# settings of the images that the project reads itself
_OF_IMAGES = ("name", "batch_size", "validation", "only", "mean", "std", "one_against_rest")
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


def networks(*configs: Mapping[str, Any]) -> tuple[Network, ...]:
    """Return the classes of ``model._target_`` and the files of ``model.path``, by which checkpoints are opened.

    Args:
        configs: of ``attack.py`` or ``analyze.py``, where each may be a list, or of ``train.py``.

    Raises:
        UserError: there is no such class.
    """
    found: dict[Any, None] = {}
    for config in configs:
        for key in ("_target_", "path"):
            given = config["model"].get(key)
            for one in given if isinstance(given, list) else [] if given is None else [given]:
                found[_found("model._target_", one) if key == "_target_" else str(one)] = None
    return tuple(found)


def attack(config: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return the function of ``attack._target_`` with ``attack=module``; None for an attack of the project.

    Raises:
        UserError: there is no such function.
    """
    given = config["attack"]
    return _found("attack._target_", given["_target_"]) if given.get("name") == "module" else None


def callbacks(config: Mapping[str, Any]) -> list[Any]:
    """Build the callbacks; those that are null are left out.

    Raises:
        UserError: one has no ``_target_``, or cannot be built.
    """
    found = {name: one for name, one in (config["callbacks"] or {}).items() if one is not None}
    return [built(f"callbacks.{name}", one) for name, one in found.items()]


def images(config: Mapping[str, Any]) -> OwnData | None:
    """Return what opens the Datasets of ``data=module``, once, when they are first needed; None for other data.

    Raises:
        UserError: there is no class or function to open them.
    """
    given = config["data"]
    if given.get("name") != "module":
        return None
    from intriguing.data import from_given, target_of

    target = target_of(given)
    settings = {key: value for key, value in given.items() if key not in _OF_IMAGES}

    @functools.cache
    def opened() -> DatasetPair:
        if given.get("_target_"):
            return from_given(built("data", settings), target)
        if unread := sorted(set(settings) - {"train", "test", "_target_"}):
            raise UserError(f"data.{unread[0]} is read by nothing; data.train.{unread[0]} is for the training Dataset")
        parts = {key: settings.get(key) for key in ("train", "test")}
        return from_given(
            tuple(None if part is None else built(f"data.{key}", part) for key, part in parts.items()),
            target,
        )

    return opened


def _factory(name: str, given: Mapping[str, Any]) -> partial[Any]:
    return built(name, {**given, "_partial_": True})


def _found(name: str, target: Any) -> Callable[..., Any]:
    """Import a class or a function by its full name."""
    if not isinstance(target, str):
        raise UserError(f"{name} must be the full name of a class, such as mine.Net, got {target!r}")
    found = located(name, target)
    if not callable(found):
        raise UserError(f"{name}={target} is a {type(found).__name__}, not a class or a function")
    return found


def built(name: str, given: Any) -> Any:
    """Build what a part of a config names by ``_target_``, which may lie in the working folder.

    Args:
        name: of the part, for messages.
        given: plain values: ``_target_`` and its arguments.

    Raises:
        UserError: there is no ``_target_``, no such class or function, or it does not take the arguments.
    """
    if not isinstance(given, dict) or not given.get("_target_"):
        raise UserError(f"{name}: expected {{_target_: <class>, ...}} or null, got {given!r}")
    target = given["_target_"]
    known = arguments(located(f"{name}._target_", target)) if isinstance(target, str) else None
    if known is not None and (unread := [key for key in given if not key.startswith("_") and key not in known]):
        near = did_you_mean(unread[0], known, f"{name}.") or f"; it has {', '.join(known)}"
        raise UserError(f"{name}.{unread[0]} is read by nothing: {target} has no such argument{near}")
    try:
        return instantiate(given, _convert_="all")
    except HydraException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{name}: {one_line(error.__cause__ or error)}") from error
