"""Check the arguments of an attack, and run it over chunks of images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from intriguing.attacks.chunk import ChunkResult, Goal, margin
from intriguing.attacks.levels import check_levels, round_for, search_grid
from intriguing.attacks.network import NOISE_IMAGES, Model, Network, under_attack
from intriguing.attacks.progress import portion
from intriguing.attacks.result import AttackResult
from intriguing.metrics import distortion
from intriguing.nn.nonfinite import check_logits

_STRETCHES = 1.0003, 1.001, 1.003, 1.01, 1.03, 1.1
"""Factors that lengthen a perturbation if the network's answer has changed in the final check."""
OVERSHOOT = 1e-5  # image decoders and resizing exceed [0, 1] by up to this; half precision cannot represent it


class AttackWarning(UserWarning):
    """Warn that the inputs of an attack look wrong, or that its result is no evidence of robustness."""


def as_batch(inputs: Tensor, classes: Tensor | int) -> tuple[Tensor, Tensor]:
    """Make a batch of a single image, which comes with a single class.

    Args:
        inputs: (N, ...), or one image (C, H, W).
        classes: (N,) integers, or one integer.

    Returns:
        The arguments, or the image and its class with a first dimension of 1.
    """
    known = torch.tensor(classes) if isinstance(classes, int) else classes  # of bool it stays one, and is refused
    if isinstance(known, Tensor) and known.dim() == 0 and isinstance(inputs, Tensor):
        return inputs[None], known[None]
    return inputs, known


def check_inputs(inputs: Tensor) -> Tensor:
    """Check that images lie in [0, 1], and clamp rounding errors.

    Args:
        inputs: (N, ...), images.

    Returns:
        The images in [0, 1]; a copy if values had to be clamped.

    Raises:
        TypeError: ``inputs`` is not a floating-point tensor.
        ValueError: ``inputs`` has no dimension of pixels, or values outside [0, 1] by more than rounding.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError(f"expected inputs as a floating-point tensor, got {_kind(inputs)}{_conversion(inputs)}")
    if inputs.dim() < 2 or 0 in inputs.shape[1:]:
        raise ValueError(f"expected inputs of shape (N, ...), got {tuple(inputs.shape)}")
    if len(inputs) == 0:
        return inputs
    low, high = (float(end) for end in inputs.detach().aminmax())
    if low >= 0 and high <= 1:
        return inputs
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        with torch.inference_mode(False), torch.no_grad():
            return inputs.detach().clone().clamp_(0, 1)
    remedy = ""
    if low < 0:
        remedy = "; leave normalisation to the network's first layer"
    elif 2 < high <= 255:
        remedy = "; divide by 255"
    raise ValueError(f"expected inputs in [0, 1], got values from {low:.9g} to {high:.9g}{remedy}")


def check_classes(name: str, classes: Tensor, logits: Tensor) -> None:
    """Check that targets or labels are class indices that fit the logits.

    Args:
        name: "targets" or "labels", for the message.
        classes: (N,) integers in 0..K-1.
        logits: (N, K).

    Raises:
        TypeError: ``classes`` is not an integer tensor.
        ValueError: a shape is wrong, or a class is out of range.
    """
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(f"expected the model to return logits of shape (N, K) with K >= 2, got {tuple(logits.shape)}")
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.is_complex():
        remedy = "" if isinstance(classes, Tensor) else f"; pass torch.as_tensor({name})"
        raise TypeError(f"expected {name} as an integer tensor, got {_kind(classes)}{remedy}")
    if classes.dtype == torch.bool:
        raise TypeError(f"expected {name} as an integer tensor, got {_kind(classes)}")
    if classes.shape != logits.shape[:1]:
        raise ValueError(f"expected {name} of shape {(len(logits),)}, got {tuple(classes.shape)}")
    if len(classes):
        low, high = (int(end) for end in classes.long().aminmax())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(f"expected {name} in 0..{logits.shape[1] - 1}, got {low} to {high}")


def check_setting(condition: bool, expected: str, got: object) -> None:
    """Check that a setting is in its range.

    Raises:
        ValueError: ``condition`` is False; the message gives the expected range and the value.
    """
    if not condition:
        raise ValueError(f"expected {expected}, got {got}")


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """Reshape values (N,) so that they broadcast against images (N, ...)."""
    return values.view(-1, *[1] * (images.dim() - 1))


def clean_logits(net: Network, model: Model, inputs: Tensor) -> Tensor:
    """Compute and check the logits (N, K) of the unperturbed images.

    Logits may be -inf for classes that the network never predicts.

    Raises:
        NotFiniteError: a logit is nan or +inf, or all logits of an image are -inf.
    """
    logits = torch.cat([net.first_logits, net.logits(inputs[1:].flatten(1).to(net.dtype))])
    largest = logits.amax(dim=1)
    if not bool(largest.isfinite().all()):  # amax of nan is nan
        check_logits(model, inputs, logits)
    return logits


def attack_in_chunks(
    attack: Callable[[Network, Tensor, Goal, Tensor], ChunkResult],
    model: Model,
    inputs: Tensor,
    classes: Tensor | int,
    *,
    name: str,
    chunk_size: int | None,
    floats_per_pixel: int,
    levels: int | None = None,
    has_c: bool = False,
) -> AttackResult:
    """Check the arguments, attack the images that do not meet the goal yet, and recompute the success on the result.

    The attack works on copies: no argument is modified.

    Args:
        attack: maps the network, flat images (M, n) in its dtype, their goal and their indices (M,) among all images to
            a ``ChunkResult``.
        model: images in [0, 1] to logits (N, K).
        inputs: (N, ...) in [0, 1]; one image without N if ``classes`` is a single number.
        classes: (N,) targets or labels, as ``name`` says.
        name: "targets" or "labels".
        chunk_size: images per chunk; None chooses as many as fit in the memory of the device.
        floats_per_pixel: floating-point numbers that the attack itself holds per input value.
        levels: number of values of a pixel; None for any in [0, 1].
        has_c: whether the attack returns a constant of the penalty.

    Returns:
        The result for all N images.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: a shape or a value is wrong, or the network cannot be attacked.
    """
    inputs, classes = as_batch(inputs, classes)
    inputs = check_inputs(inputs)
    levels = check_levels(levels, inputs.dtype)
    with under_attack(model, inputs, chunk_size=chunk_size, floats_per_pixel=floats_per_pixel) as net:
        inputs = inputs.detach().clone()
        classes = classes.detach().to(inputs.device) if isinstance(classes, Tensor) else classes
        logits = clean_logits(net, model, inputs)
        check_classes(name, classes, logits)
        goal = Goal(classes.long().clone(), targeted=name == "targets")
        warn_of_strange_outputs(logits, None if goal.targeted else goal.classes)
        already = goal.reached(logits)
        flat = inputs.flatten(1).to(net.dtype)
        net.observe(flat, logits)
        _warn_of_instability(net)
        if levels is not None:  # an image beside the grid is no result
            already &= (round_for(net, flat, levels) == flat).all(dim=1)
        best = flat.clone()
        success = already.clone()
        c = torch.where(already, torch.inf, torch.nan).to(net.dtype)
        unrounded = None if levels is None else torch.where(goal.reached(logits), 0.0, torch.inf).to(net.dtype)
        num_forwards, num_backwards = torch.ones_like(goal.classes), torch.zeros_like(goal.classes)
        num_forwards[:NOISE_IMAGES] += net.noise_passes
        again, passes = net.called_again
        num_forwards[:again] += passes
        pending = (~already).nonzero().squeeze(1)
        for number, rows in enumerate(pending.split(net.max_rows) if len(pending) else ()):
            subgoal = goal.take(rows)
            with portion(number * net.max_rows / len(pending), (number * net.max_rows + len(rows)) / len(pending)):
                found = _attack_chunk(attack, net, flat[rows], subgoal, rows, levels)
            x, reached, checks = _recheck(net, flat[rows], found, subgoal, levels)
            best[rows], success[rows] = x, reached
            num_forwards[rows] += found.num_forwards + checks
            num_backwards[rows] += found.num_backwards
            if found.c is not None:
                c[rows] = torch.where(reached, found.c, torch.nan)
            if unrounded is not None and found.unrounded_distortion is not None:
                unrounded[rows] = found.unrounded_distortion
        failed = (~success).nonzero().squeeze(1)
        if len(failed):
            num_forwards[failed] += 1
            num_backwards[failed] += 1
            _warn_of_zero_gradients(net, flat[failed], goal.take(failed), failed)
        adv_inputs = torch.where(per_image(success, inputs), best.view_as(inputs).to(inputs.dtype), inputs)
        size = distortion(inputs.to(net.dtype), adv_inputs.to(net.dtype))
        return AttackResult(
            adv_inputs=adv_inputs,
            success=success,
            distortion=torch.where(success, size, torch.inf),
            c=c if has_c else None,
            num_forwards=num_forwards,
            num_backwards=num_backwards,
            inputs=inputs,
            labels=None if goal.targeted else goal.classes,
            targets=goal.classes if goal.targeted else None,
            unrounded_distortion=unrounded,
        )


def _attack_chunk(
    attack: Callable[[Network, Tensor, Goal, Tensor], ChunkResult],
    net: Network,
    origin: Tensor,
    goal: Goal,
    rows: Tensor,
    levels: int | None,
) -> ChunkResult:
    """Attack a chunk of images, and search the grid near the examples."""
    if levels is None:
        return attack(net, origin, goal, rows)
    beside = goal.reached(net.logits(origin))  # images that meet the goal, but beside the grid
    part = (~beside).nonzero().squeeze(1)
    forwards, backwards = torch.ones_like(rows), torch.zeros_like(rows)
    c, unrounded = torch.full_like(origin[:, 0], torch.inf), torch.zeros_like(origin[:, 0])
    x, success = origin.clone(), beside.clone()
    if len(part):
        with portion(0, 0.7):
            found = attack(net, origin[part], goal.take(part), rows[part])
        x[part], success[part] = found.x, found.success
        checked, reached, checks = _recheck(net, origin[part], found, goal.take(part))  # as without a grid
        unrounded[part] = torch.where(reached, distortion(origin[part], checked), torch.inf).to(unrounded.dtype)
        forwards[part] += found.num_forwards + checks
        backwards[part] += found.num_backwards
        if found.c is not None:
            c[part] = found.c
    with portion(0.7, 1):
        moved = search_grid(net, origin, ChunkResult(x, success, forwards, backwards, c), goal, levels)
    return replace(moved, unrounded_distortion=unrounded)


def _recheck(
    net: Network, origin: Tensor, found: ChunkResult, goal: Goal, levels: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Recompute the success of a chunk's images after conversion to the images' dtype.

    Where the network's answer changed with the batch size, the perturbation is lengthened a little.

    Returns:
        The final images (M, n), their success (M,), and the forward passes that the check took (M,).
    """
    x = found.x.to(net.image_dtype).to(net.dtype)
    reached = found.success & goal.reached(net.logits(x))
    checks = torch.ones_like(goal.classes)
    for stretch in _STRETCHES:
        failed = (found.success & ~reached).nonzero().squeeze(1)
        if len(failed) == 0:
            break
        longer = torch.lerp(origin[failed], found.x[failed], stretch).clamp_(0, 1).to(net.image_dtype).to(net.dtype)
        longer = longer if levels is None else round_for(net, longer, levels)
        again = goal.take(failed).reached(net.logits(longer))
        checks[failed] += 1
        x[failed[again]], reached[failed[again]] = longer[again], True
    return torch.where(reached[:, None], x, origin), reached, checks


def warn_of_strange_outputs(logits: Tensor, labels: Tensor | None) -> None:
    """Warn of probabilities in the place of logits, and of labels that number the classes differently from the network.

    Args:
        logits: (N, K), of the unperturbed images.
        labels: (N,) int64; None for attacks that only have targets.
    """
    total = logits.sum(dim=1)
    if bool((logits >= 0).all()) and bool(((total - 1).abs() < 1e-3).all()):
        certain = float((logits.amax(dim=1) > 1 - 1e-6).double().mean())
        saturated = f"; for {certain:.0%} of the images they are 0 and 1, where gradients vanish" if certain else ""
        _warn(
            "the network seems to return probabilities, which are between 0 and 1 and sum to 1 for every image"
            f"{saturated}: attack its logits, without the softmax"
        )
    if labels is not None and len(labels) >= 10:
        _warn_of_permuted(logits.argmax(dim=1), labels)


def _warn_of_permuted(answers: Tensor, labels: Tensor) -> None:
    """Warn if the predictions (N,) seem to be a renumbering of the labels (N,)."""
    classes = labels.unique()
    if len(classes) < 2 or len(labels) < 3 * len(classes) or bool((answers == labels).double().mean() > 0.5):
        return
    usual = torch.stack([answers[labels == k].mode().values for k in classes])
    agreement = float(sum((answers[labels == k] == a).sum() for k, a in zip(classes, usual, strict=True)))
    if len(usual.unique()) == len(classes) and agreement >= 0.9 * len(labels):
        pairs = ", ".join(f"{int(k)} -> {int(a)}" for k, a in list(zip(classes, usual, strict=True))[:4])
        _warn(
            "the labels seem to number the classes differently from the network: "
            f"renumbered, they give {agreement / len(labels):.0%} of its answers (label -> answer: {pairs})"
        )


def _warn_of_instability(net: Network) -> None:
    """Warn of a network that gives an image other logits in another call."""
    if net.instability is None:
        return
    share = f"{net.instability.size:.2g} times the usual difference between the largest and the smallest"
    if net.instability.kind == "random":
        _warn(
            f"the network is random in evaluation mode: two calls with the same images change the logits by {share}; "
            "an example may succeed in one call and fail in the next. Attack the mean of the logits over several calls "
            "(expectation over transformation), or fix the random state inside forward"
        )
    else:
        _warn(
            f"the logits of an image depend on the other images of its batch, by {share}, so that an example that "
            "succeeds alone may fail in a batch. Set chunk_size=1, or make the network treat each image by itself "
            "(batch normalisation with running statistics)"
        )


def _warn_of_zero_gradients(net: Network, x: Tensor, goal: Goal, rows: Tensor) -> None:
    """Warn of images on which the attack failed and whose gradient is zero or not finite."""

    def class_margin(logits: Tensor, classes: Tensor) -> Tensor:
        return margin(logits, classes)[:, None]

    _, _, slopes = net.differentiate(x, class_margin, goal.classes)
    flat = rows[(slopes.flatten(1) == 0).all(dim=1)].tolist()
    if flat:
        some = ", ".join(map(str, flat[:5])) + (", ..." if len(flat) > 5 else "")
        _warn(
            f"no adversarial example was found for {len(flat)} images whose gradient is zero or not finite "
            f"(rows {some}): that is no evidence of robustness"
        )


def _warn(message: str) -> None:
    """Issue an ``AttackWarning``."""
    warnings.warn(message, AttackWarning, stacklevel=3)


def _conversion(inputs: object) -> str:
    """Name the way from images of another kind to a floating-point tensor in [0, 1]; empty where it is not known."""
    if isinstance(inputs, Tensor):
        return "; pass inputs.float() / 255" if inputs.dtype == torch.uint8 else ""
    kind = type(inputs).__module__.partition(".")[0]
    return {
        "numpy": "; pass torch.from_numpy(inputs), as floats (N, C, H, W) in [0, 1]",
        "PIL": "; pass torchvision.transforms.functional.to_tensor(inputs)",
    }.get(kind, "")


def _kind(value: object) -> str:
    """Describe the type of a value."""
    return f"dtype {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
