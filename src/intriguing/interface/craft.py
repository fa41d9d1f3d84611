"""Craft an adversarial set in memory, of any network and images at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from intriguing.adversarial_set import AdversarialSet
from intriguing.attacks import ATTACKS, Attack, as_attack, choose_targets
from intriguing.attacks.function import FunctionAttack
from intriguing.attacks.network import Model
from intriguing.attacks.progress import watching
from intriguing.attacks.starts import BATCH
from intriguing.attacks.targets import RULES
from intriguing.interface.network import answers, device_of, name_of, taking_float32
from intriguing.nn.nonfinite import check_logits
from intriguing.validation import choice, whole_number

_CLOSEST = "closest"
_FIRST_SHARD = 1_000_003  # times the seed: that of attack.py's first shard, so that both make one set


def craft(
    net: Model | None,
    images: Any,
    labels: Any,
    *,
    attack: str | Callable[..., Any] = "nearest",
    targets: Tensor | Sequence[int] | str | None = None,
    starts: Any = None,
    limit: int | None = None,
    seed: int = 0,
    progress: bool | Callable[[float], None] = False,
    **settings: Any,
) -> AdversarialSet:
    """Craft the adversarial set of a network: attack images and keep what belongs together.

    Args:
        net: a torch module, or a function of modules, from images in [0, 1] to logits (N, K), of any floating-point
            type and on any device; None for noise, which needs none.
        images: (N, C, H, W) in [0, 1], or one image (C, H, W): a tensor or an array. The set holds them in float32.
        labels: (N,) classes 0..K-1 of the images: a tensor, an array or a list.
        attack: ``nearest`` (the strongest), ``lbfgs`` (the paper's), ``adam_l1`` or ``gaussian`` (noise); or a function
            ``(model, inputs, labels, **settings)`` that returns adversarial images, see
            ``intriguing.attacks.as_attack``.
        targets: the classes to reach, (N,), or a rule that chooses one wrong class for each image: ``random``,
            ``runner_up`` or ``least_likely``. None: any class but the label; ``lbfgs`` and ``adam_l1`` then attack
            every wrong class.
        starts: of ``nearest``: images in [0, 1], of which those of other classes are further points to begin from: a
            tensor or an array (P, C, H, W), for example ``data.train.images``; or ``"batch"``, the other ones of
            ``images``, so that the example of an image depends on these.
        limit: number of images to attack, drawn by the seed, in their order; None: all.
        seed: of whatever is random: which images, which targets, the attack's own choices.
        progress: True for a progress bar, or a function of the share of the attack that is done, from 0 to 1.
        settings: of the attack, see its function (``intriguing.attacks.nearest``): ``effort``, ``levels`` and others.

    Returns:
        The set, on the CPU. Its ``targets`` are the classes that were asked for, or else those that were reached; its
        ``indices`` are places in ``images``. An image that the network gets wrong already is its own example, of
        distortion 0, where no target is asked for.

    Raises:
        UserError: an unknown rule for targets.
        TypeError: an argument has a wrong type, the attack has no such setting, or the network returns no logits.
        ValueError: an unknown attack, a shape or a value that is wrong, or a network that cannot be attacked.

    Example:
        >>> import intriguing as ig, torch
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, dtype=torch.float64))
        >>> images = torch.rand(5, 1, 2, 2)
        >>> found = ig.craft(net, images, net(images.double()).argmax(1), attack="nearest")
        >>> len(found), bool((net(found.adv_inputs.double()).argmax(1) == found.targets)[found.success].all())
        (5, True)
    """
    method = as_attack(attack)
    if isinstance(method, FunctionAttack):
        settings |= {} if starts is None else {"starts": starts}
    settings = method.defaults | method.check(settings)
    images, labels = checked_images(images, labels)
    if targets is not None and not isinstance(targets, str):
        targets = _checked_classes("targets", targets, len(images))
    indices = torch.arange(len(images))
    if limit is not None and whole_number("limit", limit, 1) < len(images):
        indices = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:limit].sort().values
        images, labels = images[indices], labels[indices]
        targets = targets[indices] if isinstance(targets, Tensor) else targets
    device = device_of(net)
    if isinstance(method, Attack):
        settings |= _starts(method, starts, images, device)
    inputs, classes = images.to(device), labels.to(device)
    model = None if net is None else taking_float32(net, inputs)
    wanted = _targets(targets, model, inputs, classes, seed)
    generator = torch.Generator().manual_seed(seed * _FIRST_SHARD)
    with _watched(progress):
        result = method(model, inputs, classes, targets=wanted, generator=generator, **settings)
    reached = answers(model, result.adv_inputs).argmax(1) if wanted is None and model is not None else wanted
    rule = targets if isinstance(targets, str) else _CLOSEST if targets is None else "given"
    return AdversarialSet.from_result(
        result,
        images,
        labels,
        indices=indices,
        targets=reached,
        metadata={
            "source": None if net is None else {"name": name_of(net), "label": name_of(net)},
            "attack": _described(method, settings, rule, limit),
            "clip": bool(settings.get("clip", True)),
            "seed": seed,
        },
    )


@contextmanager
def _watched(progress: bool | Callable[[float], None]) -> Iterator[None]:
    """Show, or report to a function, how much of an attack is done."""
    if callable(progress):
        with watching(progress):
            yield
    elif progress:
        from rich.progress import Progress

        with Progress() as bar:
            task = bar.add_task("attacking", total=1.0)
            with watching(lambda share: bar.update(task, completed=share)):
                yield
            bar.update(task, completed=1.0)
    else:
        yield


def _described(
    method: Attack | FunctionAttack, settings: dict[str, Any], rule: str, limit: int | None
) -> dict[str, Any]:
    """Describe an attack in plain values."""
    plain = {key: value if _is_plain(value) else _kind(value) for key, value in settings.items()}
    if not method.reads_model:
        return {"name": method.name, **plain}
    function = {"function": method.path} if isinstance(method, FunctionAttack) else {}
    return {"name": method.name, **function, "targets": rule, "settings": plain, "limit": limit}


def _kind(value: Any) -> str:
    """Describe a value that is no plain one: "5000 images (a1b2c3d4)", with a digest, or its type."""
    if not isinstance(value, Tensor) or value.dim() < 2:
        return f"a {type(value).__name__}"
    content = value.detach().cpu().float().contiguous().numpy().tobytes()
    return f"{len(value)} images ({hashlib.sha256(content).hexdigest()[:8]})"


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def checked_images(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W) in float32 and labels (N,) in int64, on the CPU.

    Raises:
        TypeError: the images are no floating-point numbers, or the labels no whole ones.
        ValueError: a shape is wrong.
    """
    images, labels = torch.as_tensor(images).detach().cpu(), torch.as_tensor(labels)
    if images.dim() == 3 and labels.dim() == 0:
        images, labels = images[None], labels[None]
    if not images.is_floating_point():
        raise TypeError(f"expected images as floating-point numbers in [0, 1], got {images.dtype}; divide by 255")
    if images.dim() != 4:
        raise ValueError(f"expected images of shape (N, C, H, W), got {tuple(images.shape)}")
    return images.float(), _checked_classes("labels", labels, len(images))


def _checked_classes(name: str, classes: Any, count: int) -> Tensor:
    """Return labels or targets (N,) in int64, on the CPU."""
    classes = torch.as_tensor(classes).detach().cpu()
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise TypeError(f"expected {name} as whole numbers, got {classes.dtype}")
    if classes.shape != (count,):
        raise ValueError(f"expected {name} of shape {(count,)}, one for each image, got {tuple(classes.shape)}")
    return classes.long()


def _starts(method: Attack, starts: Any, images: Tensor, device: torch.device) -> dict[str, Tensor | str]:
    """Return the keyword ``starts`` of an attack, with images (P, C, H, W) in float32; none where none are given.

    Raises:
        TypeError: the attack takes none, or they are no images.
        ValueError: they have another shape than the images under attack.
    """
    if starts is None:
        return {}
    if not method.takes("starts"):
        takers = [name for name, one in ATTACKS.items() if one.takes("starts")]
        raise TypeError(f"{method.name} takes no starts; {', '.join(takers)} does")
    if isinstance(starts, str):
        if starts != BATCH:
            raise ValueError(f"expected starts as images, such as data.train.images, or {BATCH!r}, got {starts!r}")
        return {"starts": starts}
    starts = torch.as_tensor(starts).detach()
    if not starts.is_floating_point():
        raise TypeError(f"expected starts as floating-point numbers in [0, 1], got {starts.dtype}; divide by 255")
    if starts.shape[1:] != images.shape[1:]:
        expected = f"(P, {', '.join(map(str, images.shape[1:]))})"
        raise ValueError(f"expected starts of shape {expected}, that of the images, got {tuple(starts.shape)}")
    return {"starts": starts.float().to(device)}


def _targets(
    targets: Tensor | str | None, model: Model | None, images: Tensor, labels: Tensor, seed: int
) -> Tensor | None:
    """Return the classes to reach (N,), on the images' device; None for any class but the label."""
    if targets is None or (isinstance(targets, str) and targets == _CLOSEST):
        return None
    if isinstance(targets, str):
        choice("targets", targets, (*RULES, _CLOSEST))
        if model is None:
            raise ValueError(f"targets={targets!r} asks for a network's classes, and there is none")
        logits = answers(model, images)
        check_logits(model, images, logits)
        return choose_targets(targets, labels, logits, generator=torch.Generator().manual_seed(seed))
    return targets.to(images.device)
