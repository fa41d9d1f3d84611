"""Measure how stable, and how meaningful, the inside of a neural network is.

The package reproduces "Intriguing properties of neural networks" (Szegedy et al., arXiv 1312.6199) and goes past it.
The names of ``__all__`` are imported when they are first used, so ``import intriguing`` costs nothing.

- ``fit(model, data)`` trains a network, ``load_model(path)`` opens one that ``train.py`` has trained.
- ``craft(net, images, labels)`` makes an ``AdversarialSet``, ``transfer_table(nets, sets)`` shows it to other networks.
- ``robustness_card(model, images, labels)`` puts on one page how stable a network is.
- ``lbfgs``, ``nearest`` and ``adam_l1`` are the attacks as plain functions, ``gaussian`` is noise.
- ``operator_norm``, ``lipschitz_bounds`` and ``Certifier`` bound what a perturbation can do.
- ``models``, ``data``, ``units``, ``optim``, ``spectral``, ``statistics``, ... are the packages behind them.

Example:
    >>> import intriguing as ig
    >>> ig.lbfgs is ig.attacks.lbfgs
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time __getattr__ imports a name when it is used
    from intriguing import adversarial_set as adversarial_set
    from intriguing import attacks as attacks
    from intriguing import callbacks as callbacks
    from intriguing import checkpoints as checkpoints
    from intriguing import data as data
    from intriguing import metrics as metrics
    from intriguing import models as models
    from intriguing import nn as nn
    from intriguing import optim as optim
    from intriguing import results as results
    from intriguing import spectral as spectral
    from intriguing import statistics as statistics
    from intriguing import units as units
    from intriguing.adversarial_set import AdversarialSet as AdversarialSet
    from intriguing.analysis.card import RobustnessCard as RobustnessCard
    from intriguing.attacks import AttackResult as AttackResult
    from intriguing.attacks import AttackWarning as AttackWarning
    from intriguing.attacks import adam_l1 as adam_l1
    from intriguing.attacks import amplify as amplify
    from intriguing.attacks import choose_targets as choose_targets
    from intriguing.attacks import closest as closest
    from intriguing.attacks import gaussian as gaussian
    from intriguing.attacks import lbfgs as lbfgs
    from intriguing.attacks import nearest as nearest
    from intriguing.callbacks import BackFeeding as BackFeeding
    from intriguing.checkpoints import load_model as load_model
    from intriguing.data import ImageData as ImageData
    from intriguing.interface.card import robustness_card as robustness_card
    from intriguing.interface.craft import craft as craft
    from intriguing.interface.fit import fit as fit
    from intriguing.interface.transfer import transfer_table as transfer_table
    from intriguing.metrics import distortion as distortion
    from intriguing.optim import MinimizeResult as MinimizeResult
    from intriguing.optim import minimize_box as minimize_box
    from intriguing.spectral import Certifier as Certifier
    from intriguing.spectral import lipschitz_bounds as lipschitz_bounds
    from intriguing.spectral import operator_norm as operator_norm

__version__ = "0.1.0"

_PACKAGES = ("attacks", "callbacks", "data", "models", "nn", "optim", "spectral", "statistics", "units")
_MODULES = ("adversarial_set", "checkpoints", "metrics", "results")
_HOMES = {
    **dict.fromkeys(("AttackResult", "AttackWarning", "adam_l1", "amplify", "choose_targets", "closest"), "attacks"),
    **dict.fromkeys(("gaussian", "lbfgs", "nearest"), "attacks"),
    **dict.fromkeys(("MinimizeResult", "minimize_box"), "optim"),
    **dict.fromkeys(("Certifier", "lipschitz_bounds", "operator_norm"), "spectral"),
    "AdversarialSet": "adversarial_set",
    "BackFeeding": "callbacks",
    "ImageData": "data",
    "RobustnessCard": "analysis.card",
    "craft": "interface.craft",
    "distortion": "metrics",
    "fit": "interface.fit",
    "load_model": "checkpoints",
    "robustness_card": "interface.card",
    "transfer_table": "interface.transfer",
}
"""The package or module that each public name comes from."""

__all__ = ["__version__", *_PACKAGES, *_MODULES, *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # with it, a type checker would take every name for one that is there

    def __getattr__(name: str) -> Any:
        if name in _PACKAGES or name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name in _HOMES:
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
