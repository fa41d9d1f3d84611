"""What every attack shares: its result, the state of the model around it, its checks, and chunks that bound memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from intriguing.finite import check_logits
from intriguing.metrics import distortion

_CPU_CHUNK_BYTES = 512 * 2**20
_CUDA_FRACTION = 0.4  # of the free memory; the rest is for autograd's and the allocator's own


@dataclass(frozen=True)
class AttackResult:
    """Adversarial examples for N images, in the order of the images.

    Attributes:
        adv_inputs: (N, ...) in [0, 1]; the image itself where the attack failed.
        success: (N,) bool, recomputed on `adv_inputs`.
        distortion: (N,) per-pixel RMS of the perturbation (section 4.1); inf where the attack failed.
        c: (N,) the constant of the penalty at which the example was found; inf where the image was already there, nan
            where the attack failed. None for attacks that have none.
        num_forwards: (N,) int64, forward passes that this image took part in.
        num_backwards: (N,) int64.
    """

    adv_inputs: Tensor
    success: Tensor
    distortion: Tensor
    c: Tensor | None
    num_forwards: Tensor
    num_backwards: Tensor

    def __len__(self) -> int:
        return len(self.success)

    @staticmethod
    def cat(results: list[AttackResult]) -> AttackResult:
        """One result from those of consecutive chunks."""
        constants = [result.c for result in results if result.c is not None]
        return AttackResult(
            adv_inputs=torch.cat([result.adv_inputs for result in results]),
            success=torch.cat([result.success for result in results]),
            distortion=torch.cat([result.distortion for result in results]),
            c=torch.cat(constants) if constants else None,
            num_forwards=torch.cat([result.num_forwards for result in results]),
            num_backwards=torch.cat([result.num_backwards for result in results]),
        )


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """No parameter of `model` asks for a gradient inside; each gets its own earlier setting back."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield model
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """`model` is in evaluation mode inside; each of its modules gets its own earlier mode back."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield model
    finally:
        for module, training in before:
            module.training = training


def check_inputs(inputs: Tensor) -> None:
    """Raises TypeError or ValueError unless `inputs` are images (N, ...) in [0, 1]."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError(f"expected inputs as a floating-point tensor, got {_kind(inputs)}")
    if inputs.dim() < 2:
        raise ValueError(f"expected inputs of shape (N, ...), got {tuple(inputs.shape)}")
    if inputs.numel():
        low, high = (float(end) for end in inputs.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"expected inputs in [0, 1], got values from {low:g} to {high:g}")


def check_classes(name: str, classes: Tensor, logits: Tensor) -> None:
    """Raises TypeError or ValueError unless `classes` are integers (N,) in 0..K-1 for `logits` (N, K)."""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(f"expected the model to return logits of shape (N, K) with K >= 2, got {tuple(logits.shape)}")
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.dtype == torch.bool:
        raise TypeError(f"expected {name} as an integer tensor, got {_kind(classes)}")
    if classes.shape != logits.shape[:1]:
        raise ValueError(f"expected {name} of shape {(len(logits),)}, got {tuple(classes.shape)}")
    if len(classes) and not (int(classes.min()) >= 0 and int(classes.max()) < logits.shape[1]):
        raise ValueError(
            f"expected {name} in 0..{logits.shape[1] - 1}, got {int(classes.min())} to {int(classes.max())}"
        )


def check_setting(condition: bool, expected: str, got: object) -> None:
    """Raises ValueError unless a setting is in its range."""
    if not condition:
        raise ValueError(f"expected {expected}, got {got}")


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """(N,) the logit of the class less the largest other one; positive where the model answers that class."""
    column = classes[:, None]
    return logits.gather(1, column).squeeze(1) - logits.scatter(1, column, -torch.inf).amax(dim=1)


def least_margin(logits: Tensor) -> Tensor:
    """(N,) the margin below which an answer is not trusted: another batch size may round it the other way."""
    return 64 * torch.finfo(logits.dtype).eps * logits.abs().amax(dim=1)


def predict(model: nn.Module, inputs: Tensor, chunk_size: int) -> Tensor:
    """Logits (N, K) without gradients, a chunk at a time."""
    with torch.no_grad():
        return torch.cat([model(chunk) for chunk in inputs.split(max(1, chunk_size))])


def default_chunk_size(model: nn.Module, inputs: Tensor, floats_per_pixel: int) -> int:
    """How many images to attack at once: what the device's memory holds.

    Args:
        model: called once, on one image, to see how much autograd keeps for it.
        inputs: (N, ...), N >= 1.
        floats_per_pixel: working numbers of the attack itself per input value.
    """
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    image = inputs[:1].detach().clone().requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model(image)
    # autograd also keeps the weights, once per batch and not per image
    kept = max(0, kept - sum(parameter.nbytes for parameter in model.parameters()))
    per_image = floats_per_pixel * image.nbytes + 3 * kept
    if inputs.device.type == "cuda":
        budget = int(_CUDA_FRACTION * torch.cuda.mem_get_info(inputs.device)[0])
    else:
        budget = _CPU_CHUNK_BYTES
    return max(1, budget // max(1, per_image))


def run_in_chunks(
    attack: Callable[[Tensor, Tensor, int], AttackResult],
    model: nn.Module,
    inputs: Tensor,
    classes: Tensor,
    *,
    name: str,
    chunk_size: int | None,
    floats_per_pixel: int,
) -> AttackResult:
    """Check the arguments, then attack chunk by chunk with the model frozen and in evaluation mode.

    Args:
        attack: maps a chunk of (inputs, classes) and the index of its first image to the chunk's AttackResult.
        model, inputs: see the attacks.
        classes: (N,) targets or labels; `name` says which.
        name: "targets" or "labels".
        chunk_size: images at once; None takes what the device's memory holds.
        floats_per_pixel: see `default_chunk_size`.

    Raises:
        TypeError, ValueError: in one line, what was expected and what came.
    """
    check_inputs(inputs)
    check_setting(chunk_size is None or chunk_size >= 1, "chunk_size >= 1 or None", chunk_size)
    if len(inputs) == 0:
        raise ValueError("expected at least one image, got inputs of shape " + str(tuple(inputs.shape)))
    with frozen(model), evaluating(model):
        size = chunk_size or default_chunk_size(model, inputs, floats_per_pixel)
        classes = classes.to(inputs.device) if isinstance(classes, Tensor) else classes
        logits = predict(model, inputs, size)
        check_classes(name, classes, logits)
        check_logits(model, inputs, logits)
        inputs, classes = inputs.detach(), classes.long()
        starts = range(0, len(inputs), size)
        return AttackResult.cat([attack(inputs[i : i + size], classes[i : i + size], i) for i in starts])


def finish(
    model: nn.Module,
    inputs: Tensor,
    adv_inputs: Tensor,
    answers: Callable[[Tensor], Tensor],
    *,
    c: Tensor | None,
    num_forwards: Tensor,
    num_backwards: Tensor,
) -> AttackResult:
    """The result of a chunk; success is what the model says now, on the very images that are returned.

    Args:
        model: in evaluation mode.
        inputs, adv_inputs: (N, ...).
        answers: maps logits (N, K) to (N,) bool, True where the model answers what the attack was after.
        c, num_forwards, num_backwards: see AttackResult; one forward pass is added for the check made here.
    """
    with torch.no_grad():
        success = answers(model(adv_inputs))
    adv_inputs = torch.where(success.view(-1, *[1] * (inputs.dim() - 1)), adv_inputs, inputs)
    return AttackResult(
        adv_inputs=adv_inputs,
        success=success,
        distortion=torch.where(success, distortion(inputs, adv_inputs), torch.inf),
        c=None if c is None else torch.where(success, c, torch.nan),
        num_forwards=num_forwards + 1,
        num_backwards=num_backwards,
    )


def _kind(value: object) -> str:
    return f"dtype {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
