"""Set the mode and freeze the parameters of networks inside a context, also of functions that call modules."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

_DEPTH = 3  # levels of functions that call functions
_lock = threading.RLock()
_held: dict[tuple[int, str], _Held] = {}


class _Held:
    """Hold the value of an attribute from before the first of several overlapping contexts."""

    def __init__(self, owner: Any, before: Any) -> None:
        self.owner = owner  # this reference keeps the owner alive, so that its id is not reused
        self.before = before
        self.count = 0


def modules_of(model: Callable[..., Any]) -> list[nn.Module]:
    """List the modules that a network consists of.

    Args:
        model: a module, or a function that calls modules: a ``functools.partial``, a bound method, an object with
            modules among its attributes, or a function that refers to them in its closure or by global names.

    Returns:
        The outermost modules; empty for a function without modules.
    """
    return _search(model, _DEPTH)


def _search(value: Any, depth: int) -> list[nn.Module]:
    """Find the modules in a value, through at most ``depth`` levels of functions."""
    if isinstance(value, nn.Module):
        return [value]
    if depth == 0 or not callable(value) or isinstance(value, type):
        return []
    inner: list[Any] = []
    if isinstance(value, functools.partial):
        inner = [value.func, *value.args, *value.keywords.values()]
    elif inspect.ismethod(value):
        inner = [value.__self__]
    elif inspect.isfunction(value):
        with contextlib.suppress(ValueError):  # an empty closure cell
            names = inspect.getclosurevars(value)
            inner = [*names.nonlocals.values(), *names.globals.values()]
    elif hasattr(value, "__dict__"):
        inner = list(vars(value).values())
    found: list[nn.Module] = []
    for one in inner:
        found += [module for module in _search(one, depth - 1) if not any(module is other for other in found)]
    return found


@contextlib.contextmanager
def frozen(model: Callable[..., Any]) -> Iterator[None]:
    """Freeze all parameters of a network inside the context, and restore the ``requires_grad`` of each one afterwards.

    Contexts may overlap, also in several threads: when the last one ends, it restores the state from before the first
    one.

    Args:
        model: a module, or a function that calls modules (see ``modules_of``).
    """
    parameters = [p for module in modules_of(model) for p in module.parameters() if not p.is_inference()]
    held = _hold([(p, "requires_grad") for p in parameters])
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        _release(held)


@contextlib.contextmanager
def evaluating(model: Callable[..., Any]) -> Iterator[None]:
    """Put a network into evaluation mode inside the context, and restore the mode of each submodule afterwards.

    Contexts may overlap, also in several threads: when the last one ends, it restores the state from before the first
    one. Modules without a mode (frozen TorchScript, exported programs) are left unchanged.

    Args:
        model: a module, or a function that calls modules (see ``modules_of``).
    """
    roots = [module for module in modules_of(model) if getattr(module, "training", None) is not None]
    held = _hold([(one, "training") for root in roots for one in root.modules() if hasattr(one, "training")])
    try:
        for root in roots:
            if any(getattr(one, "training", False) for one in root.modules()):
                with contextlib.suppress(NotImplementedError):  # exported programs have no modes
                    root.eval()
        yield
    finally:
        _release(held)


def _hold(attributes: list[tuple[Any, str]]) -> list[tuple[_Held, str]]:
    """Store the values of attributes, unless another context has stored them already."""
    held: list[tuple[_Held, str]] = []
    with _lock:
        for owner, name in attributes:
            entry = _held.setdefault((id(owner), name), _Held(owner, getattr(owner, name)))
            entry.count += 1
            held.append((entry, name))
    return held


def _release(held: list[tuple[_Held, str]]) -> None:
    """Restore the values of attributes that no other context holds."""
    with _lock:
        for entry, name in held:  # a module comes before its submodules, because it sets their modes too
            entry.count -= 1
            if entry.count == 0:
                del _held[id(entry.owner), name]
                if getattr(entry.owner, name) != entry.before:
                    _restore(entry.owner, name, entry.before)


def _restore(owner: Any, name: str, before: Any) -> None:
    """Set an attribute; call ``train`` on modules that override it."""
    if name == "training" and getattr(type(owner), "train", None) is not nn.Module.train:
        owner.train(before)  # a ``train`` that does more, for example splits weights that ``eval`` has merged
    setattr(owner, name, before)
