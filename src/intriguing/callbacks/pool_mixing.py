"""Mix pools of perturbed layer outputs into training steps, and renew the pools from these steps (section 4.2)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.attacks import lbfgs
from intriguing.callbacks.pool import Pool
from intriguing.callbacks.split_network import InjectionLayer, SplitNetwork
from intriguing.metrics import difference, distortion, root_mean_square
from intriguing.nn import evaluating

ATTACKS = ("gradient", "noise", "lbfgs")
TURNS = ("alternate", "together")


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Set how the examples of all pools are made and used.

    Attributes:
        size: examples in a pool.
        refresh: share of a pool that a renewal replaces; at most one example for each image of the batch is made.
        every: renew a pool every ``every`` uses.
        mix: examples of a pool in a step, for each original image.
        weight: weight of a pool's mean loss, relative to the mean loss of the original images.
        keep_scale: divide the whole loss by 1 + weight * (number of pools in the step), so that the learning rate keeps
            its meaning; otherwise the loss is a plain sum.
        turns: ``alternate`` (one pool per step, in turn, as in the paper) or ``together`` (all pools in every step).
        attack: ``gradient`` (normalised ascent on the loss; the first step is free, because it uses the gradient of the
            training step), ``noise`` (Gaussian of equal norm) or ``lbfgs`` (the paper's attack towards random
            classes, for layers with values in [0, 1]).
        num_steps: steps of the ascent.
        max_iter, c_tolerance: budget of ``lbfgs``, see ``intriguing.attacks.lbfgs``.
    """

    size: int
    refresh: float
    every: int
    mix: float
    weight: float
    keep_scale: bool
    turns: str
    attack: str
    num_steps: int
    max_iter: int
    c_tolerance: float


@dataclass
class LayerPool:
    """Hold a layer, its pool and the size of its perturbations.

    Attributes:
        layer: where the examples enter the network.
        distortion: RMS over the layer's values of a perturbation (with lbfgs the largest that is kept).
        pool: the examples.
        turns: number of steps in which the pool was used, or with ``alternate`` was next in turn.
    """

    layer: InjectionLayer
    distortion: float
    pool: Pool
    turns: int = 0


@dataclass
class _Epoch:
    """Hold the sums of an epoch: losses (scalars), steps, and the seconds spent on renewals."""

    steps: int = 0
    clean: Tensor | None = None
    mixed_steps: int = 0
    mixed: Tensor | None = None
    renewal_seconds: float = 0.0


class PoolMixing:
    """Compute the loss of a training step with the examples of pools mixed in, and renew the pools.

    A perturbed example of a hidden layer enters above this layer, so it trains only the layers above (section 4.2). The
    original images are always part of the step. New examples are made from the images of the step with the current
    weights.

    Args:
        network: images (N, C, H, W) to logits (N, K).
        pools: one for each layer, from below.
        settings: see ``PoolSettings``.
        seed: seed of the noise and of the target classes of lbfgs.
    """

    def __init__(
        self,
        network: nn.Sequential,
        pools: Sequence[LayerPool],
        settings: PoolSettings,
        seed: int,
    ) -> None:
        self.pools, self.settings = list(pools), settings
        self._network = network
        self._split = SplitNetwork(network, [one.layer for one in pools])
        self._generator = torch.Generator().manual_seed(seed)
        self._step = 0
        self._due: list[tuple[LayerPool, Tensor, Tensor]] = []
        self._epoch = _Epoch()

    def step(
        self,
        images: Tensor,
        labels: Tensor,
        criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss of a training step.

        Args:
            images: (N, C, H, W); not written to.
            labels: (N,) of any integer dtype.
            criterion: the mean loss of logits (N, K) and labels (N,) that the network is trained with.

        Returns:
            The loss to minimise, the part of it that belongs to the originals, and the logits (N, K) of the originals.
        """
        labels = labels.long()
        if images.is_inference():  # autograd cannot save tensors made in inference mode
            images = images.clone()
        together = self.settings.turns == "together"
        now = self.pools if together else [self.pools[self._step % len(self.pools)]]
        # the examples of the next step are made from this step
        soon = self.pools if together else [self.pools[(self._step + 1) % len(self.pools)]]
        self._step += 1
        renewing = []
        for one in soon:
            one.turns += 1
            if (one.turns - 1) % self.settings.every == 0:
                renewing.append(one)
        count = max(1, round(self.settings.mix * len(images)))
        drawn = {one.layer.name: one.pool.draw(count) for one in now if len(one.pool)}
        if any(one.layer.position == 0 for one in renewing) and self.settings.attack == "gradient":
            images = images.detach().requires_grad_()
        logits, outputs = self._split(images, {name: examples for name, (examples, _) in drawn.items()})
        clean = criterion(logits[: len(images)], labels)
        loss, mixed, first = clean, None, len(images)
        for _, truth in drawn.values():
            part = criterion(logits[first : first + len(truth)], truth)
            first += len(truth)
            mixed = part if mixed is None else mixed + part
        if mixed is not None:
            loss = clean + self.settings.weight * mixed
            if self.settings.keep_scale:
                loss = loss / (1 + self.settings.weight * len(drawn))
        self._note(clean, mixed, len(drawn))
        self._due = []
        for one in renewing:
            output = outputs[one.layer.name]
            if self.settings.attack == "gradient" and output.requires_grad and not output.is_leaf:
                output.retain_grad()
            self._due.append((one, output, labels))
        return loss, clean, logits[: len(images)]

    def _note(self, clean: Tensor, mixed: Tensor | None, parts: int) -> None:
        """Add the losses of a step to the sums of the epoch."""
        epoch = self._epoch
        epoch.steps += 1
        value = clean.detach()
        epoch.clean = value if epoch.clean is None else epoch.clean + value
        if mixed is not None:
            mean = mixed.detach() / parts
            epoch.mixed_steps += 1
            epoch.mixed = mean if epoch.mixed is None else epoch.mixed + mean

    def renew(self) -> None:
        """Replace the share of each pool that is due; call this after the backward pass of the step."""
        start = time.perf_counter()
        for one, output, labels in self._due:
            count = min(max(1, round(self.settings.refresh * one.pool.size)), len(labels))
            # autocast may have made the outputs half precision; it is off here
            values, truth = output.detach()[:count].to(self._dtype(output)), labels[:count]
            slope = self._step_gradient(output, count)
            examples, kept = self._perturbed(one, values, truth, slope)
            size = distortion(values, examples)
            if kept is not None:
                examples, truth, size = examples[kept], truth[kept], size[kept]
            if len(examples):
                one.pool.renew(examples, truth, size)
        self._due = []
        self._epoch.renewal_seconds += time.perf_counter() - start

    @staticmethod
    def _step_gradient(output: Tensor, count: int) -> Tensor | None:
        """Return the gradient that the backward pass of the step left at the originals, None if there is none."""
        has_gradient = output.requires_grad and (output.is_leaf or output.retains_grad)
        return output.grad[:count] if has_gradient and output.grad is not None else None

    def _perturbed(
        self, one: LayerPool, values: Tensor, labels: Tensor, slope: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Perturb values within the range of the layer.

        Returns:
            The examples, and which of them to keep (M,) bool, or None for all.
        """
        length = one.distortion * math.sqrt(values[0].numel())
        if self.settings.attack == "lbfgs":
            return self._lbfgs(one, values, labels)
        if self.settings.attack == "noise":
            noise = torch.randn(values.shape, generator=self._generator).to(values)
            return _stepped(values, noise, length, one.layer), None
        if slope is None:  # the layers below are not trained, so the step did not compute this gradient
            slope = self._gradient(one, values, labels)
        steps = self.settings.num_steps
        if steps == 1:
            return _stepped(values, slope, length, one.layer), None
        examples = _stepped(values, slope, 2 * length / steps, one.layer)
        for _ in range(steps - 1):
            examples = _stepped(examples, self._gradient(one, examples, labels), 2 * length / steps, one.layer)
            shrink = (one.distortion / distortion(values, examples)).clamp(max=1)
            moved = difference(values, examples) * shrink.view(-1, *[1] * (values.dim() - 1))
            examples = (values + moved).to(values.dtype)
        return examples, None

    def _dtype(self, output: Tensor) -> torch.dtype:
        """Return the dtype of the network's weights, in which it takes the values of a layer outside autocast."""
        weights = (one.dtype for one in self._network.parameters() if one.is_floating_point())
        return next(weights, output.dtype)

    def _gradient(self, one: LayerPool, values: Tensor, labels: Tensor) -> Tensor:
        """Compute the gradient of the loss with respect to values (M, ...) of a layer."""
        with torch.enable_grad(), evaluating(self._network):
            values = values.detach().requires_grad_()
            loss = F.cross_entropy(self._split.above(one.layer.name, values), labels, reduction="sum")
            return torch.autograd.grad(loss, values)[0]

    def _lbfgs(self, one: LayerPool, values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Attack values (M, ...) of a layer with L-BFGS towards random classes.

        Returns:
            The examples, and which of them to keep (M,) bool.
        """
        above = _Above(self._split, one.layer.name)
        with torch.no_grad(), evaluating(self._network):
            num_classes = above(values[:1]).shape[1]
        step = torch.randint(1, num_classes, labels.shape, generator=self._generator).to(labels)
        found = lbfgs(
            above,
            values,
            (labels + step) % num_classes,
            max_iter=self.settings.max_iter,
            c_tolerance=self.settings.c_tolerance,
        )
        return found.adv_inputs, found.success & (distortion(values, found.adv_inputs) <= one.distortion)

    @torch.no_grad()
    def epoch_metrics(self) -> dict[str, float]:
        """Return the metrics of the epoch, and start the counts of the next.

        Returns:
            ``pool/clean_loss``, ``pool/loss`` (mean over the pools), ``pool/renewal_seconds``, and by layer
            ``pool/fooled_<layer>`` (share of the pool that is misclassified now), ``pool/distortion_<layer>``
            (mean RMS) and ``pool/replaced_<layer>``.
        """
        epoch, self._epoch = self._epoch, _Epoch()
        metrics = {"pool/renewal_seconds": epoch.renewal_seconds}
        if epoch.clean is not None:
            metrics["pool/clean_loss"] = float(epoch.clean) / epoch.steps
        if epoch.mixed is not None:
            metrics["pool/loss"] = float(epoch.mixed) / epoch.mixed_steps
        for one in self.pools:
            if not len(one.pool) or one.pool.examples is None:
                continue
            name, filled = one.layer.name, len(one.pool)
            with evaluating(self._network):
                answers = self._split.above(name, one.pool.examples[:filled]).argmax(dim=1)
            metrics[f"pool/fooled_{name}"] = float((answers != one.pool.labels[:filled]).double().mean())
            metrics[f"pool/distortion_{name}"] = float(one.pool.distortion[:filled].double().mean())
            metrics[f"pool/replaced_{name}"] = float(one.pool.replaced)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return the pools, the generator and the counters."""
        return {
            "step": self._step,
            "generator": self._generator.get_state(),
            "pools": {one.layer.name: {"turns": one.turns, "pool": one.pool.state_dict()} for one in self.pools},
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        """Restore a state.

        Raises:
            ValueError: the state of other layers or of pools of another size.
        """
        names = [one.layer.name for one in self.pools]
        if list(state["pools"]) != names:
            raise ValueError(f"the saved pools are of {', '.join(state['pools'])}, these of {', '.join(names)}")
        for one in self.pools:
            saved = state["pools"][one.layer.name]
            one.turns = saved["turns"]
            one.pool.load_state_dict(saved["pool"], device)
        self._step = state["step"]
        self._generator.set_state(state["generator"].cpu())


class _Above(nn.Module):
    """Present the layers above a layer as a module."""

    def __init__(self, split: SplitNetwork, layer: str) -> None:
        super().__init__()
        self._split, self._layer = split, layer
        self.segments = nn.ModuleList(split.segments)

    def forward(self, values: Tensor) -> Tensor:
        """Compute logits (M, K) from values (M, ...) of the layer."""
        return self._split.above(self._layer, values)


def _stepped(values: Tensor, direction: Tensor, length: float, layer: InjectionLayer) -> Tensor:
    """Move each row by a Euclidean length along its direction, and clamp it into the range of the layer.

    Entries of the direction that are not finite count as zero; a row whose direction is zero does not move.
    """
    each = (-1, *[1] * (values.dim() - 1))
    direction = torch.where(direction.isfinite(), direction, 0).to(torch.promote_types(direction.dtype, torch.float32))
    largest = direction.flatten(1).abs().amax(dim=1).view(each)
    direction = torch.where(largest == 0, 0.0, direction / largest)
    size = root_mean_square(direction).view(each) * math.sqrt(values[0].numel())
    step = torch.where(size == 0, 0.0, length / size) * direction
    return (values + step).clamp_(layer.lower, layer.upper).to(values.dtype)
