"""Measure how stable, and how meaningful, the inside of a neural network is.

The package reproduces "Intriguing properties of neural networks" (Szegedy et al., arXiv 1312.6199) and goes past it.
The names of ``__all__`` are imported when they are first used, so ``import intriguing`` costs nothing.

Example:
    >>> import intriguing as ig
    >>> ig.lbfgs is ig.attacks.lbfgs
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PACKAGES = ("attacks", "callbacks", "data", "models", "nn", "optim", "spectral", "statistics", "units")
_MODULES = ("adversarial_set", "checkpoints", "metrics", "results")
_HOMES = {
    **dict.fromkeys(("AttackResult", "AttackWarning", "adam_l1", "amplify", "choose_targets", "closest"), "attacks"),
    **dict.fromkeys(("gaussian", "lbfgs", "nearest"), "attacks"),
    **dict.fromkeys(("MinimizeResult", "minimize_box"), "optim"),
    **dict.fromkeys(("Certifier", "lipschitz_bounds", "operator_norm"), "spectral"),
    "craft": "interface.craft",
    "fit": "interface.fit",
    "transfer_table": "interface.transfer",
    "AdversarialSet": "adversarial_set",
    "BackFeeding": "callbacks",
    "ImageData": "data",
    "distortion": "metrics",
    "load_model": "checkpoints",
}
"""The package or module that each public name comes from."""

__all__ = ["__version__", *_PACKAGES, *_MODULES, *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES or name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
