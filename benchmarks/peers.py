"""The attacks that benchmarks/attacks.py compares: ours, adv-lib's, SuperDeepFool, SciPy's and the exact programme."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from superdeepfool import superdeepfool
from torch import Tensor, nn

from intriguing.attacks import closest, lbfgs, nearest

# (model, inputs, classes, pool) -> adv_inputs: classes are labels to leave or targets to reach; pool holds the images
# of the whole batch, from which an attack may start, when it is given one image alone
Attack = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]

LIMITS = {"fast": 60, "default": 300, "thorough": 2000}  # propagations of an image, by effort of `nearest`
WITH_STARTS = "nearest with starts"  # the family that starts from other images of the batch too
LARGEST_RADIUS = 8.0  # L2, of the search with APGD
USUAL: dict[str, tuple[str, dict[str, Any]]] = {  # adv-lib's attacks: family and settings
    "DDN-100": ("DDN", {"steps": 100}),
    "DDN-1000": ("DDN", {"steps": 1000}),
    "ALMA-1000": ("ALMA", {"num_steps": 1000}),
    "FMN-1000": ("FMN", {"steps": 1000}),
    "PDGD-1000": ("PDGD", {"num_steps": 1000}),
    "PDPGD-1000": ("PDPGD", {"num_steps": 1000}),
    "C&W 9x1000": ("C&W", {"max_iterations": 1000}),
    "FAB-100": ("FAB", {"n_iter": 100}),
    "APGD 14x100": ("APGD", {"n_iter": 100, "binary_search_steps": 14}),
}
UNTARGETED = ("FAB", "APGD")  # without a targeted form in adv-lib
SCIPY_IMAGES = 16  # SciPy takes a tenth of a second and more for each
LBFGS_OF_FEW = "lbfgs, SciPy's images"


@dataclass(frozen=True)
class Method:
    """An attack with its settings.

    Attributes:
        name: with the settings, as in "DDN-100".
        family: without them: the curve to which it belongs.
        attack: see ``Attack``.
        budget: propagations after which nothing that it finds counts; None for no limit.
        images: number of images that are attacked at most; None for all.
        without_limit: with a budget to which its settings limit it anyway, the name of this attack without a budget.
        reads_pool: whether it makes a forward pass of the whole pool, which all images of the batch share.
    """

    name: str
    family: str
    attack: Attack
    budget: int | None = None
    images: int | None = None
    without_limit: str | None = None
    reads_pool: bool = False


def methods(targeted: bool, linear: bool) -> list[Method]:
    """Return every attack at the settings that are usual for it; with a linear network also the exact programme."""
    found = [one for effort in LIMITS for one in ours(effort, targeted)]
    found.append(Method("lbfgs", "lbfgs", partial(penalty, targeted)))
    if targeted:
        found.append(Method(LBFGS_OF_FEW, "lbfgs", partial(penalty, True), images=SCIPY_IMAGES))
        found.append(Method("SciPy L-BFGS-B", "SciPy L-BFGS-B", scipy_lbfgs, images=SCIPY_IMAGES))
        if linear:
            found.append(Method("exact QP", "exact QP", exact_programme))
    else:
        found.append(Method("SuperDeepFool", "SuperDeepFool", of_labels(superdeepfool)))
    package = adv_lib()
    if package is None:
        return found
    for name, (family, settings) in USUAL.items():
        if not targeted or family not in UNTARGETED:
            found.append(Method(name, family, partial(peer, package, family, settings, targeted)))
    return found


def within(budget: int, targeted: bool, num_classes: int) -> list[Method]:
    """Return every attack with settings for a number of propagations; what it finds later does not count."""
    found = []
    if efforts := [effort for effort in LIMITS if LIMITS[effort] <= budget]:
        largest = max(efforts, key=LIMITS.__getitem__)
        found = [limited(one, budget) for one in ours(largest, targeted)]
    if not targeted:
        found.append(Method("SuperDeepFool", "SuperDeepFool", of_labels(superdeepfool), budget))
    package = adv_lib()
    if package is None:
        return found
    steps, rounds = max(2, budget // 2), 1 if budget < 200 else 3
    radii = 5 if budget < 200 else 10 if budget < 1000 else 14
    settings: dict[str, dict[str, Any]] = {
        "DDN": {"steps": steps},
        "ALMA": {"num_steps": steps},
        "FMN": {"steps": steps},
        "PDGD": {"num_steps": steps},
        "PDPGD": {"num_steps": steps},
        # from the usual .001, nine rounds do not reach a constant that succeeds; few steps want longer ones
        "C&W": {"initial_const": 10.0, "learning_rate": 0.1, "binary_search_steps": rounds}
        | {"max_iterations": max(1, steps // rounds), "abort_early": False},
    }
    if not targeted:
        settings["FAB"] = {"n_iter": max(1, budget // (num_classes + 1))}
        settings["APGD"] = {"binary_search_steps": radii, "n_iter": max(2, steps // radii - 1)}
    for family, one in settings.items():
        alike = [name for name, usual in USUAL.items() if usual == (family, one)]
        attack = partial(peer, package, family, one, targeted)
        found.append(Method(family, family, attack, budget, without_limit=alike[0] if alike else None))
    return found


def adv_lib() -> ModuleType | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its imports
        try:
            return importlib.import_module("adv_lib.attacks")
        except ImportError:
            return None


def ours(effort: str, targeted: bool) -> list[Method]:
    """Return `nearest` at an effort, alone and with the other images of the batch as further starts."""

    def attack(starts: bool, model: nn.Module, inputs: Tensor, classes: Tensor, pool: Tensor) -> Tensor:
        targets = classes if targeted else None
        given = pool if starts else None
        return nearest(model, inputs, classes, targets=targets, effort=effort, starts=given).adv_inputs

    return [
        Method(f"nearest, {effort}", "nearest", partial(attack, False)),
        Method(f"{WITH_STARTS}, {effort}", WITH_STARTS, partial(attack, True), reads_pool=True),
    ]


def limited(method: Method, budget: int) -> Method:
    """Return one of our attacks with a budget that its effort keeps to."""
    return replace(method, name=method.family, budget=budget, without_limit=method.name)


def penalty(targeted: bool, model: nn.Module, inputs: Tensor, classes: Tensor, pool: Tensor) -> Tensor:
    if targeted:
        return lbfgs(model, inputs, classes).adv_inputs
    return closest(lbfgs, model, inputs, classes).adv_inputs


def of_labels(attack: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Attack:
    return lambda model, inputs, classes, pool: attack(model, inputs, classes)


def peer(
    package: ModuleType,
    family: str,
    settings: dict[str, Any],
    targeted: bool,
    model: nn.Module,
    inputs: Tensor,
    classes: Tensor,
    pool: Tensor,
) -> Tensor:
    """Run an attack of adv-lib for L2 distances, without rounding to an image file's values."""
    if family == "APGD":
        search = importlib.import_module("adv_lib.attacks.auto_pgd").minimal_apgd
        return search(model, inputs, classes, norm=2, max_eps=LARGEST_RADIUS / 2, **settings)  # it begins with half
    attack, more = {
        "DDN": (package.ddn, {"levels": None}),
        "ALMA": (package.alma, {"distance": "l2"}),
        "FMN": (package.fmn, {"norm": 2}),
        "PDGD": (package.pdgd, {}),
        "PDPGD": (package.pdpgd, {"norm": 2}),
        "FAB": (package.fab, {"norm": 2}),
        "C&W": (package.carlini_wagner_l2, {}),
    }[family]
    return attack(model, inputs, classes, targeted=targeted, **more, **settings)


def scipy_lbfgs(model: nn.Module, inputs: Tensor, targets: Tensor, pool: Tensor) -> Tensor:
    """`lbfgs`'s problem and search by SciPy, an image at a time; the nearest success of all it evaluated."""
    return torch.cat([scipy_one(model, x[None], t[None]) for x, t in zip(inputs, targets, strict=True)])


def scipy_one(model: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    origin = image.flatten().double().cpu().numpy()
    best, best_distance = origin, math.inf

    def objective(point: np.ndarray, c: float) -> tuple[float, np.ndarray]:
        nonlocal best, best_distance
        x = torch.from_numpy(point).to(image).view_as(image).requires_grad_()
        logits = model(x)
        loss = F.cross_entropy(logits, target)
        (gradient,) = torch.autograd.grad(loss, x)
        squared = float((point - origin) @ (point - origin))
        if int(logits.argmax()) == int(target) and squared < best_distance:
            best, best_distance = point.copy(), squared
        gradient = gradient.double().flatten().cpu().numpy()
        return float(loss.detach()) + c * squared, gradient + 2 * c * (point - origin)

    c, low, high, point = 0.1, 0.0, math.inf, origin
    for _ in range(40):
        bounds = [(0, 1)] * len(origin)
        point = minimize(objective, point, args=(c,), jac=True, method="L-BFGS-B", bounds=bounds).x
        with torch.no_grad():
            success = int(model(torch.from_numpy(point).to(image).view_as(image)).argmax()) == int(target)
        low, high = (c, high) if success else (low, c)
        if low > 0 and high <= 1.01 * low:
            break
        c = c * 10 if high == math.inf else c / 10 if low == 0 else math.sqrt(low * high)
        if not 1e-8 < c < 1e8:
            break
    return torch.from_numpy(best).to(image).view_as(image)


def exact_programme(model: nn.Module, inputs: Tensor, targets: Tensor, pool: Tensor) -> Tensor:
    """The nearest image of the target class for an affine model: a quadratic programme, by SciPy on its dual."""
    zero = torch.zeros_like(inputs[:1])
    bias = model(zero)[0].detach().double().cpu().numpy()
    basis = torch.eye(zero.numel(), device=zero.device).view(-1, *zero.shape[1:])
    weight = (model(basis).double() - model(zero).double()).detach().T.cpu().numpy()
    found = []
    for image, target in zip(inputs.flatten(1).double().cpu().numpy(), targets.tolist(), strict=True):
        others = [k for k in range(len(bias)) if k != target]
        normals, offsets = weight[target] - weight[others], bias[others] - bias[target] + 1e-5

        def dual(multipliers: np.ndarray, origin=image, normals=normals, offsets=offsets):
            x = np.clip(origin + normals.T @ multipliers, 0, 1)
            lacking = offsets - normals @ x
            return -(0.5 * ((x - origin) @ (x - origin)) + multipliers @ lacking), -lacking

        exact = {"ftol": 1e-16, "gtol": 1e-10, "maxiter": 5000}
        bounds = [(0, None)] * len(offsets)
        answer = minimize(dual, np.zeros(len(offsets)), jac=True, method="L-BFGS-B", bounds=bounds, options=exact)
        found.append(np.clip(image + normals.T @ answer.x, 0, 1))
    return torch.from_numpy(np.stack(found)).to(inputs).view_as(inputs)
