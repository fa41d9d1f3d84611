"""Call a network during an attack: flat images to checked logits, in batches that fit in memory."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from intriguing.nn import evaluating, frozen, modules_of, pick_output
from intriguing.nn.repeat import UNSTABLE, Instability, find_instability, largest_change, logit_spread
from intriguing.validation import whole_number

Model = Callable[[Tensor], Any]

_CPU_CHUNK_BYTES = 512 * 2**20
_CUDA_FRACTION = 0.4  # of the free memory; the rest is for the overhead of autograd and of the allocator
_ROUNDINGS = 64  # a margin may change with the batch size by this many roundings of the logits' spread,
_LOGIT_ROUNDINGS = 0.5  # and by this many of the largest logit
NOISE_IMAGES = 16  # on which the change of the logits with the batch size is measured
_CALLED_AGAIN = 4  # images that are called again where the change is too large for rounding in full precision
_NOISE_FACTOR = 2.0  # an example must exceed the largest measured change by this factor


class Network:
    """Map flat images to logits during an attack, both in the dtype of the attack.

    The attack computes in the finer of the dtypes of images and logits, at least in float32; the network receives
    images of the caller's dtype. A network that modifies its input in place receives copies. If the caller has autocast
    on, it is on while the network runs and off for the attack's arithmetic.

    Attributes:
        shape: shape of one image.
        image_dtype: dtype of the images that the network receives.
        dtype: dtype in which the attack computes.
        num_classes: K.
        max_rows: largest number of images in one call of the network.
        first_logits: (1, K), logits of the first image.
        noise_passes: forward passes that the measurement of the rounding took for each of the first images.
        called_again: how many of the first images were called again, and the further forward passes for each of them.
        instability: how the network gives an image other logits in another call, as ``observe`` found; None if it does
            not.
    """

    noise_passes = 0

    def __init__(
        self, model: Model, inputs: Tensor, *, chunk_size: int | None, floats_per_pixel: int, autocast: _Autocast
    ) -> None:
        """Run the network on the first image, to learn its dtype, its classes and its memory.

        Args:
            model: images (N, ...) to logits (N, K).
            inputs: (N, ...), N >= 1.
            chunk_size: images per call of the network; None chooses as many as fit in the memory of the device.
            floats_per_pixel: floating-point numbers that the attack itself holds per input value.
            autocast: state of the caller's autocast.

        Raises:
            TypeError: the network does not return a floating-point tensor.
            ValueError: the network cannot run on the images, its logits have a wrong shape or no gradient.
        """
        self._model, self._autocast = model, autocast
        self.shape, self.image_dtype = inputs.shape[1:], inputs.dtype
        self._fill = 1
        logits, kept, in_place = self._probe(inputs, chunk_size)
        self._in_place = in_place
        self.num_classes = logits.shape[1]
        self._eps = torch.finfo(logits.dtype).eps
        self._is_half = torch.finfo(logits.dtype).bits < 32
        self.dtype = torch.promote_types(torch.promote_types(self.image_dtype, logits.dtype), torch.float32)
        self.first_logits = logits.to(self.dtype)
        affordable = chunk_size or _affordable_rows(inputs, kept, floats_per_pixel)
        self.max_rows = self._fill if self._fill > 2 else max(self._fill, affordable)

    def logits(self, x: Tensor) -> Tensor:
        """Compute logits (R, K) of flat images (R, n), without gradients."""
        with torch.no_grad():
            return torch.cat([self._run(part) for part in x.split(self.max_rows)]) if len(x) else self._no_logits(x)

    def differentiate(
        self,
        x: Tensor,
        objective: Callable[..., Tensor],
        *columns: Tensor,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate functions of the logits and their gradients.

        Args:
            x: (R, n), flat images.
            objective: maps logits (r, K) and the rows of ``columns`` to values (r, q).
            columns: (R, ...) each, further arguments of the objective, one row per image.
            reduce: maps a gradient (r, n) to the result to keep of it, (r, ...); None keeps the gradient.

        Returns:
            Logits (R, K), values (R, q) and gradients (R, q, n), or (R, q, ...) with ``reduce``. Entries of a gradient
            that are nan or inf are set to 0, so that the other entries move the image.

        Raises:
            ValueError: the logits have no gradient.
        """
        parts = zip(*(column.split(self.max_rows) for column in (x, *columns)), strict=True)
        results = [self._differentiate(part[0], objective, part[1:], reduce) for part in parts]
        if len(results) == 1:
            return results[0]
        logits, values, slopes = (torch.cat(column) for column in zip(*results, strict=True))
        return logits, values, slopes

    def least_margin(self, logits: Tensor) -> Tensor:
        """Return the margin (R,) that logits (R, K) must exceed to be trusted, since rounding may change smaller ones.

        The rounding changes with the batch size. Its size is estimated from the precision of the network: from the
        usual spread of its logits, because a number added to all logits changes no margin, and from the spacing of
        floating-point numbers near the largest logit. Networks in half precision round each result once, not every
        partial sum. What was measured (see ``observe``) counts where it is more.
        """
        largest = logits.amax(dim=1).abs()
        if self._is_half:
            return (self._eps * largest).clamp_min(self._noise)
        return (self._eps * (_ROUNDINGS * self._spread + _LOGIT_ROUNDINGS * largest)).clamp_min(self._noise)

    _spread = 0.0
    _noise = 0.0
    instability: Instability | None = None
    called_again = (0, 0)

    def observe(self, x: Tensor, logits: Tensor) -> None:
        """Record the scale and the rounding of the logits of unperturbed images.

        The scale is the mean spread, without classes at -inf. The rounding is measured on the first images, one by one:
        no formula knows how large the numbers are that cancel in a logit. Devices other than the CPU also choose among
        algorithms, of which some round the factors to fewer digits: there, and where reduced precision is asked for,
        it is measured in full precision too. Where the change is large, further calls tell whether it is rounding, or
        the network is random or its logits depend on the other images of the batch.

        Args:
            x: (N, n), flat images.
            logits: (N, K), as computed for all of them at once.
        """
        self._spread = logit_spread(logits)
        sample, expected = x[:NOISE_IMAGES], logits[:NOISE_IMAGES]
        with torch.no_grad():
            others = [torch.cat([self._run(row) for row in sample.split(1)])]
            if x.device.type != "cpu" or matmul_precision() != "highest" or self._autocast.enabled:
                with full_precision():
                    others.append(torch.cat([self._run(part) for part in sample.split(self.max_rows)]))
        self.noise_passes = len(others)
        noise = [largest_change(found, expected) for found in others]
        self._noise = max(self._noise, *(_NOISE_FACTOR * one for one in noise))
        if noise[0] > UNSTABLE * self._spread:
            self._look_for_instability(sample[:_CALLED_AGAIN], expected[:_CALLED_AGAIN])

    def _look_for_instability(self, x: Tensor, expected: Tensor) -> None:
        """Tell whether a change of the logits (M, K) of the first images (M, n) is more than rounding."""
        rows = 0

        def call(batch: Tensor) -> Tensor:
            nonlocal rows
            rows += len(batch)
            with torch.no_grad():
                return self._run(batch)

        self.instability = find_instability(call, x, expected)
        self.called_again = len(x), rows // len(x)

    def _no_logits(self, x: Tensor) -> Tensor:
        """Return logits of no image, (0, K)."""
        return x.new_zeros(0, self.num_classes)

    def _differentiate(
        self,
        x: Tensor,
        objective: Callable[..., Tensor],
        columns: tuple[Tensor, ...],
        reduce: Callable[[Tensor], Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the objective and its gradients for one batch."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self._run(x)
            values = objective(logits, *columns)
            slopes = []
            for i in range(values.shape[1]):
                more = i + 1 < values.shape[1]
                try:
                    (slope,) = torch.autograd.grad(values[:, i].sum(), x, retain_graph=more, allow_unused=True)
                except (RuntimeError, NotImplementedError) as error:
                    raise _no_gradient(error) from error
                if slope is None:
                    raise _no_gradient()
                slope = slope.nan_to_num(0.0, 0.0, 0.0)  # in place it fails on an expanded gradient, as of x.sum()
                slopes.append(slope if reduce is None else reduce(slope))
        slopes = slopes[0][:, None] if len(slopes) == 1 else torch.stack(slopes, dim=1)
        return logits.detach(), values.detach(), slopes

    def _run(self, x: Tensor) -> Tensor:
        """Compute logits (r, K) of one batch."""
        rows = len(x)
        images = x.view(-1, *self.shape).to(self.image_dtype)
        if rows < self._fill:
            images = torch.cat([images, images[-1:].expand(self._fill - rows, *self.shape)])
        elif self._in_place and images.data_ptr() == x.data_ptr():
            images = images.clone()
        with self._autocast.on():
            logits = self._model(images)
        if not isinstance(logits, Tensor):
            logits = _as_logits(logits)
        return (logits if len(logits) == rows else logits[:rows]).to(self.dtype)

    def _probe(self, inputs: Tensor, chunk_size: int | None) -> tuple[Tensor, int, bool]:
        """Run the network on the first image, with a gradient.

        Some networks cannot take a single image, because they squeeze the batch dimension or were exported for one
        batch size; those receive full batches.

        Returns:
            Logits (1, K), the bytes that autograd keeps per image, and whether the network modifies its input in place.
        """
        kept = 0

        def count(tensor: Tensor) -> None:
            nonlocal kept
            kept += tensor.nbytes  # only its size: a reference from the tensor's own graph would never be freed

        trials = [1, 2] + ([chunk_size or len(inputs)] if (chunk_size or len(inputs)) > 2 else [])
        first: Exception | None = None
        for size in trials:
            images = inputs.detach()[:1].expand(size, *inputs.shape[1:]).clone().requires_grad_()
            kept = 0
            try:
                with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
                    given = images.view_as(images) * 1
                    version = given._version
                    with self._autocast.on():
                        logits = self._model(given)
                    logits = _check_logits(_as_logits(logits), size)
            except Exception as error:
                first = first or error
                if not _may_be_the_batch(error):
                    break
                continue
            self._fill = size
            if not logits.requires_grad:
                raise _no_gradient()
            # autograd also keeps the weights, but once per batch
            weights = sum(p.nbytes for module in modules_of(self._model) for p in module.parameters())
            return logits.detach()[:1], max(0, kept - weights) // size, given._version != version
        assert first is not None
        if isinstance(first, _OutputError):
            raise type(first.error)(str(first.error)) from first
        raise ValueError(_cannot_run(inputs, first)) from first


def matmul_precision() -> str:
    """Return PyTorch's setting for products of float32 matrices; "unknown" if it was set for single operations."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "unknown"


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute products of float32 numbers in float32, not with factors of fewer digits (TF32, bfloat16)."""
    before = matmul_precision()
    if before == "unknown":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class _OutputError(Exception):
    """Signal that the network ran, but its output cannot be logits."""

    def __init__(self, error: Exception, *, may_be_the_batch: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.may_be_the_batch = error, may_be_the_batch


class _Autocast:
    """Hold the caller's autocast: off during the attack, on while the network runs."""

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type
        self.enabled = torch.is_autocast_enabled(device_type)
        self.dtype = torch.get_autocast_dtype(device_type)

    def on(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context with the caller's autocast."""
        if not self.enabled:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def off(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context without autocast."""
        return torch.autocast(self.device_type, enabled=False) if self.enabled else contextlib.nullcontext()


@contextlib.contextmanager
def under_attack(
    model: Model, inputs: Tensor, *, chunk_size: int | None = None, floats_per_pixel: int = 1
) -> Iterator[Network]:
    """Prepare a network for an attack: freeze it and put it into evaluation mode.

    This works under ``torch.no_grad``, ``torch.inference_mode`` and autocast, and in several threads at once.
    Afterwards the state of the network is restored.

    Args:
        model: images (N, ...) to logits (N, K), a module or a function.
        inputs: (N, ...), N >= 1.
        chunk_size: images per call of the network; None chooses as many as fit in the memory of the device.
        floats_per_pixel: floating-point numbers that the attack itself holds per input value.

    Yields:
        The ``Network``.

    Raises:
        TypeError: the model is not callable, or does not return a floating-point tensor.
        ValueError: there is no image, or the network cannot be attacked; the message names a remedy.
    """
    if not callable(model):
        raise TypeError(f"expected the network as a torch module or a function, got {type(model).__name__}")
    if len(inputs) == 0:
        raise ValueError(f"expected at least one image, got inputs of shape {tuple(inputs.shape)}")
    chunk_size = None if chunk_size is None else whole_number("chunk_size", chunk_size, 1)
    autocast = _Autocast(inputs.device.type)
    with torch.inference_mode(False), autocast.off(), torch.no_grad():
        model = _differentiable(model)
        with frozen(model), evaluating(model):
            yield Network(model, inputs, chunk_size=chunk_size, floats_per_pixel=floats_per_pixel, autocast=autocast)


def _differentiable(model: Model) -> Model:
    """Return the model, or a copy if it has weights that were made in inference mode.

    Autograd does not work with such weights.
    """
    if isinstance(model, torch.nn.Module):
        weights = itertools.chain(model.parameters(), model.buffers())
        if any(weight.is_inference() for weight in weights):
            return copy.deepcopy(model)
    return model


def _affordable_rows(inputs: Tensor, kept: int, floats_per_pixel: int) -> int:
    """Return the number of images that fit in the memory of the device."""
    pixels = inputs[0].numel() * max(4, inputs.element_size())
    per_image = floats_per_pixel * pixels + 3 * kept
    if inputs.device.type == "cuda":
        budget = int(_CUDA_FRACTION * torch.cuda.mem_get_info(inputs.device)[0])
    else:
        budget = _CPU_CHUNK_BYTES
    return max(1, budget // max(1, per_image))


def _as_logits(output: Any) -> Tensor:
    """Take the logits out of a network's output: the tensor itself, or the entry or attribute ``logits``."""
    try:
        return pick_output(output)
    except TypeError as error:
        raise _OutputError(error) from error


def _check_logits(logits: Tensor, size: int) -> Tensor:
    """Check that logits are floating-point numbers of shape (size, K), K >= 2."""
    if not logits.is_floating_point():
        error = f"expected the network to return logits (N, K) as floating-point numbers, got dtype {logits.dtype}"
        raise _OutputError(TypeError(error))
    if logits.dim() == 2 and logits.shape[0] == size and logits.shape[1] >= 2:
        return logits
    shape = tuple(logits.shape)
    error = f"expected the network to return logits of shape (N, K) with K >= 2, got {shape} for N = {size}"
    if logits.numel() == size:
        error += "; for one logit z pass a function that returns torch.stack([-z, z], dim=1)"
    raise _OutputError(ValueError(error), may_be_the_batch=logits.dim() < 2)


def _may_be_the_batch(error: Exception) -> bool:
    """Return whether the batch size may be the cause of an error."""
    return error.may_be_the_batch if isinstance(error, _OutputError) else True


def _no_gradient(error: Exception | None = None) -> ValueError:
    """Make the error of logits that have no gradient."""
    why = "" if error is None else f" ({_first_line(error)})"
    return ValueError(
        f"the network's logits have no gradient with respect to the images{why}: it detaches or rounds them, runs "
        "under no_grad, is quantised or constant; attack a differentiable version of it"
    )


def _cannot_run(inputs: Tensor, error: Exception) -> str:
    """Make the message for a network that cannot run on the images."""
    shape = (1, *inputs.shape[1:])
    return (
        f"the network cannot take images of shape {shape}, {inputs.dtype}, on {inputs.device}: {_first_line(error)}; "
        "pass images of the shape, dtype and device that it expects, and set chunk_size if its batch size is fixed"
    )


def _first_line(error: Exception) -> str:
    """Return the type of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
