"""The base that every network of the project shares: loss, weight decay, optimiser, schedule, counting."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Protocol

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, distributed, nn
from torchmetrics.classification import MulticlassAccuracy

from intriguing import __version__
from intriguing.errors import plural
from intriguing.nn import evaluating
from intriguing.nn.nonfinite import NotFiniteError, first_nonfinite_layer, first_nonfinite_weight
from intriguing.spectral import LipschitzMargin, LogProductPenalty, with_margin

SCHEDULES = ("cosine", "constant")
OPTIMIZERS = ("adam", "sgd")
PENALTIES = {"log_product": LogProductPenalty, "margin": LipschitzMargin}
CHECKPOINT_FORMAT = 2  # raised when a checkpoint of before can no longer be read


class Feed(Protocol):
    """What takes over the loss of a training step to mix further examples into it (`intriguing.callbacks`)."""

    def step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss to descend on, the images' own part of it, and the images' logits (N, K)."""
        ...

    def renew(self) -> None:
        """Called after the step's backward pass."""
        ...


class Classifier(lightning.LightningModule):
    """A classifier of images in [0, 1], trained with cross-entropy and the paper's weight decay (section 4).

    The objective is ``cross-entropy + sum over layers of lambda_l * sum(w_l^2) / k_l``. Its decay enters as the coupled
    L2 term of Adam or SGD (``weight_decay = 2 lambda / k``), which has exactly that gradient and costs nothing.

    A subclass sets ``self.network``, an ``nn.Sequential`` from images (N, C, H, W) to logits (N, K).

    Args:
        label: the network's name in tables, for example ``FC100-100-10``.
        input_shape: (C, H, W).
        num_classes: K.
        weight_decay: lambda of every layer with weights, in order.
        normaliser: k of the decay. ``units`` takes the number of units of the layer (the paper's words, literally); a
            number is used for every layer, 2 being the usual ``lambda / 2 * sum(w^2)``. README says how the default
            was chosen.
        optimizer: ``adam`` or ``sgd`` (Nesterov momentum .9).
        learning_rate: the highest rate.
        schedule: ``cosine`` (to 0 over the fit, by step) or ``constant``.
        spectral_penalty: how strong the penalty on the layers' operator norms is (section 4.3); 0 is none, and costs
            nothing.
        spectral_penalty_kind: ``log_product`` adds ``spectral_penalty * log(1 + product of norms)`` to the loss;
            ``margin`` takes the cross-entropy of the worst case that the product bound allows within an L2 distance of
            ``spectral_penalty`` from each image (`LipschitzMargin`).

    Raises:
        ValueError: a setting that is out of range.
    """

    name: ClassVar[str] = ""
    trains_in_parts: ClassVar[bool] = False  # whether a step may leave parameters without a gradient
    network: nn.Sequential
    feed: Feed | None = None
    trained_on: dict[str, Any] | None = None  # of a network from a checkpoint: its images, in plain values

    def __init__(
        self,
        *,
        label: str,
        input_shape: tuple[int, ...] | list[int],
        num_classes: int,
        weight_decay: list[float],
        normaliser: str | float = 2.0,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        schedule: str = "cosine",
        spectral_penalty: float = 0.0,
        spectral_penalty_kind: str = "log_product",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer '{optimizer}'; known: {', '.join(OPTIMIZERS)}")
        if schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule '{schedule}'; known: {', '.join(SCHEDULES)}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {learning_rate}")
        if normaliser != "units" and not (isinstance(normaliser, int | float) and normaliser > 0):
            raise ValueError(f"weight_decay.normaliser must be 'units' or a number above 0, got {normaliser!r}")
        if not all(math.isfinite(value) and value >= 0 for value in weight_decay):
            raise ValueError(f"weight_decay.value must hold finite numbers of at least 0, got {list(weight_decay)}")
        if not (math.isfinite(spectral_penalty) and spectral_penalty >= 0):
            raise ValueError(f"spectral_penalty must be a finite number of at least 0, got {spectral_penalty}")
        if spectral_penalty_kind not in PENALTIES:
            raise ValueError(f"unknown spectral_penalty_kind '{spectral_penalty_kind}'; known: {', '.join(PENALTIES)}")
        self.spectral_penalty, self.spectral_penalty_kind = float(spectral_penalty), spectral_penalty_kind
        self.layer_norms: LogProductPenalty | LipschitzMargin | None = None
        self._margin: Tensor | None = None
        self.batch_images = 0
        self.share = 1.0
        self.label, self.input_shape, self.num_classes = label, tuple(input_shape), num_classes
        self.weight_decay, self.normaliser = [float(value) for value in weight_decay], normaliser
        self.optimizer, self.learning_rate, self.schedule = optimizer, learning_rate, schedule
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self._tally = _Tally()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        return self.network(images)

    # -- objective ---------------------------------------------------------------------------------------------------

    def decayed_weights(self) -> list[tuple[Tensor, float]]:
        """The weight of each layer of the classifier, in order, with its coefficient lambda / k."""
        weights = [m.weight for m in self.network if isinstance(m, nn.Linear | nn.Conv2d)]
        if len(weights) != len(self.weight_decay):
            raise ValueError(
                f"{self.label} has {plural(len(weights), 'layer')} with weights, so weight_decay.value wants one "
                f"number or a list of {len(weights)}, got {self.weight_decay}"
            )
        units = [w.shape[0] if self.normaliser == "units" else float(self.normaliser) for w in weights]
        return [(w, value / k) for w, value, k in zip(weights, self.weight_decay, units, strict=True)]

    def penalty(self) -> Tensor:
        """The weight decay term of the objective, a scalar (section 4: lambda * sum(w^2) / k)."""
        return sum((c * w.square().sum() for w, c in self.decayed_weights()), torch.zeros((), device=self.device))

    def penalise_norms(self) -> None:
        """Make the spectral penalty's state, if there is one; a subclass calls this once its network is there."""
        if self.spectral_penalty:
            self.layer_norms = PENALTIES[self.spectral_penalty_kind](self.network, self.input_shape)

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of training examples: cross-entropy, with the step's margin where there is one.

        In a distributed fit it is weighted by the process's share of the batch, see ``weighted``.
        """
        raised = logits if self._margin is None else with_margin(logits, labels, self._margin)
        return self.weighted(F.cross_entropy(raised, labels))

    def weighted(self, mean: Tensor) -> Tensor:
        """Weight a mean over this process's images so that the mean over all processes is that of the whole batch.

        The gradients of a distributed fit are averaged over the processes. Where a batch does not divide evenly, each
        process's mean therefore counts by the number of its images.
        """
        return mean if self.share == 1 else mean * self.share

    def _step(self, batch: list[Tensor], stage: str, batch_idx: int = 0) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = self.criterion(logits, labels) if stage == "train" else F.cross_entropy(logits, labels)
        if stage == "train":
            self._count(self._unweighted(loss), logits, labels)
        elif not math.isfinite(loss.item()):
            raise self._not_finite(stage, loss, batch, batch_idx)
        else:
            metric = self.val_accuracy if stage == "val" else self.test_accuracy
            metric.update(logits, labels)
            self.log(f"{stage}/loss", loss, on_epoch=True, on_step=False, batch_size=len(labels), sync_dist=True)
            self.log(f"{stage}/acc", metric, on_epoch=True, on_step=False, batch_size=len(labels))
        return loss

    @property
    def supervised(self) -> bool:
        """Whether labels are being learned now."""
        return True

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self._take_share(len(batch[1]))
        if not len(batch[1]):  # a last batch of fewer images than processes: the step is made, and counts for nothing
            batch = [part.new_zeros(2, *part.shape[1:]) for part in batch]
        loss = self.objective(batch)
        if not math.isfinite(loss.item()):
            raise self._not_finite("train", loss, batch, batch_idx)
        return loss

    def _take_share(self, images: int) -> None:
        """Note how many images the whole batch has, and which part of it this process has (1 is an even part)."""
        self.batch_images, self.share = images, 1.0
        if (processes := world_size()) > 1:
            count = torch.tensor(images, device=self.device)
            distributed.all_reduce(count)
            self.batch_images = int(count)
            self.share = images * processes / self.batch_images

    def _unweighted(self, loss: Tensor) -> Tensor:
        return loss / self.share if self.share else loss

    def objective(self, batch: list[Tensor]) -> Tensor:
        """What a training step descends on, a scalar; the step's images are counted for the epoch's curves."""
        strong = self._norm_term() if self.spectral_penalty else None
        as_margin = strong is not None and self.spectral_penalty_kind == "margin"
        self._margin = strong if as_margin else None
        try:
            if self.feed is None:
                loss = self._step(batch, "train")
            else:
                loss, own, logits = self.feed.step(batch[0], batch[1])
                self._count(self._unweighted(own), logits, batch[1])
        finally:
            self._margin = None  # of this step alone: a module that keeps a part of a graph cannot be copied
        return loss if strong is None or as_margin else loss + strong

    def _norm_term(self) -> Tensor:
        if self.layer_norms is None:
            raise RuntimeError(f"{type(self).__name__} does not call penalise_norms once its network is there")
        with torch.autocast(self.device.type, enabled=False):  # norms of rounded weights would be other weights'
            return self.spectral_penalty * self.layer_norms()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._step(batch, "val", batch_idx)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._step(batch, "test", batch_idx)

    # -- a loss that is not finite ends the run; why is looked for only then -------------------------------------------

    def _not_finite(self, stage: str, loss: Tensor, batch: list[Tensor], batch_idx: int) -> NotFiniteError:
        where = first_nonfinite_layer(self, batch[0], [lambda: self(batch[0])])
        if where is None and self.layer_norms is not None and (layer := self.layer_norms.bad_layer()):
            where = f"the norm of network.{layer} in the spectral penalty is not finite"
        # More than once, because the pools of a feed may take turns. A distributed step would wait for other processes.
        if where is None and stage == "train" and world_size() == 1:
            where = first_nonfinite_layer(self, batch[0], [lambda: self.objective(batch)] * 16)
        where = where or "every layer gives finite numbers, and the loss made of them is not"
        return NotFiniteError(
            f"{stage}/loss is {loss.item()} at epoch {self.current_epoch}, batch {batch_idx} "
            f"(step {self.global_step}): {where}; {self._advice()}"
        )

    def _advice(self) -> str:
        if self.global_step == 0:
            return "no step was made yet, so look at the weights it started from, and at the data"
        return f"lower model.settings.learning_rate (now {self.learning_rate:g})"

    # -- curves: plain sums in the step, one self.log an epoch (a self.log a step costs a quarter of the epoch) --------

    def _count(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        if self.share:
            self._tally.add(loss.detach(), logits.detach(), labels)

    def on_train_epoch_start(self) -> None:
        self._tally = _Tally()

    def on_train_epoch_end(self) -> None:
        sums = self._tally.sums().to(self.device)
        if world_size() > 1:
            distributed.all_reduce(sums)
        if not sums[2]:
            return
        loss, error = float(sums[0] / sums[2]), float(sums[1] / sums[2])
        # before the checkpoint of this epoch replaces the last good one
        if weight := first_nonfinite_weight(self):
            raise NotFiniteError(
                f"{weight} is not finite at the end of epoch {self.current_epoch} (step {self.global_step}): the last "
                f"step went too far; {self._advice()}"
            )
        curves = {"train/loss": loss, "train/error": error, "train/penalty": float(self.penalty().detach())}
        if self.layer_norms is not None:
            curves["train/spectral_penalty"] = self._norm_term_now(self.layer_norms)
        self.log_dict(curves | self.weight_sizes())

    def metric_keys(self) -> list[str]:
        """Return the keys that every epoch of training logs."""
        penalties = ["train/penalty", *(["train/spectral_penalty"] if self.layer_norms is not None else [])]
        return ["train/loss", "train/error", *penalties, *self.weight_sizes()]

    @torch.no_grad()
    def _norm_term_now(self, norms: nn.Module) -> float:
        """The spectral penalty's term for the weights as they are: added to the loss, or to the logits as a margin."""
        if not self.supervised:
            return 0.0
        with evaluating(norms):  # in training mode each call moves the singular vectors
            return float(self._norm_term())

    @torch.no_grad()
    def weight_sizes(self) -> dict[str, float]:
        """``weights/rms_<layer>``: the root mean square of each layer's weights."""
        layers = {n: m for n, m in self.network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        return {f"weights/rms_{name}": float(layer.weight.square().mean().sqrt()) for name, layer in layers.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook some fifty times a step, each through nn.Module's search for parameters:
        # a tenth of an epoch of these small networks.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # -- optimiser -----------------------------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser: one for each coefficient of decay, what is not decayed last."""
        coefficients = {id(weight): 2 * c for weight, c in self.decayed_weights()}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            groups.setdefault(coefficients.get(id(parameter), 0.0), []).append(parameter)
        return [{"params": groups[c], "weight_decay": c} for c in sorted(groups, reverse=True)]

    def rate_factor(self, step: int, total: int) -> float:
        """The learning rate at ``step`` of ``total``, as a share of the highest."""
        return 0.5 * (1 + math.cos(math.pi * min(step, total) / max(total, 1))) if self.schedule == "cosine" else 1.0

    def configure_optimizers(self) -> Any:
        groups = self.parameter_groups()
        # Lightning clips no gradients under mixed precision for an optimiser that unscales them itself.
        trainer = self._trainer
        fused = trainer is None or not (trainer.gradient_clip_val and "mixed" in str(trainer.precision))
        if self.optimizer == "adam":
            optimizer = torch.optim.Adam(groups, lr=self.learning_rate, fused=fused)
        else:
            optimizer = torch.optim.SGD(groups, lr=self.learning_rate, momentum=0.9, nesterov=True, fused=fused)
        if self.schedule == "constant":
            return optimizer
        total = planned_steps(self.trainer)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate_factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # -- checkpoints: every one says what it is; its file carries a sha256 (`intriguing.checkpoint_file`) --------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = getattr(self.trainer, "datamodule", None)
        checkpoint["intriguing"] = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "model": self.name,
            "data": getattr(data, "description", None),
            "seed": getattr(data, "seed", None),
        }


def world_size() -> int:
    """Return the number of processes that train one network together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def planned_steps(trainer: lightning.Trainer) -> int:
    """Return the optimiser steps of a whole fit, also where the accumulation of gradients changes with the epoch."""
    total = int(trainer.estimated_stepping_batches)
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, GradientAccumulationScheduler):
            batches = trainer.num_training_batches
            epochs = (callback.get_accumulate_grad_batches(epoch) for epoch in range(trainer.max_epochs or 1))
            total = sum(math.ceil(batches / accumulated) for accumulated in epochs)
            total = total if trainer.max_steps == -1 else min(total, trainer.max_steps)
    return total


def planned_epochs(trainer: lightning.Trainer) -> int:
    """Return the epochs of a whole fit: ``max_epochs``, or fewer where ``max_steps`` ends it sooner."""
    epochs = trainer.max_epochs or 1
    if trainer.max_steps == -1:
        return epochs
    steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return min(epochs, math.ceil(planned_steps(trainer) / steps))


class _Tally:
    """Summed loss, wrong predictions and images of an epoch.

    Steps are put by and counted many at once: on batches of 20 images the counting would cost as much as a layer. What
    is summed stays on the device, so nothing waits for a number.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self._steps.append((loss, logits, labels))
        if len(self._steps) == 64:
            self._count()

    def _count(self) -> None:
        losses, logits, labels = zip(*self._steps, strict=True)
        self._steps = []
        stacked = torch.stack(losses)
        stacked = stacked.to(torch.promote_types(stacked.dtype, torch.float32))  # bfloat16 cannot count to 257
        sizes = torch.tensor([len(part) for part in labels], dtype=stacked.dtype, device=stacked.device)
        wrong = (torch.cat(logits).argmax(1) != torch.cat(labels)).sum().to(stacked.dtype)
        row = torch.stack([stacked.dot(sizes), wrong, sizes.sum()])
        self._sums = row if self._sums is None else self._sums + row

    def sums(self) -> Tensor:
        """(3,): loss times images, wrong, images."""
        if self._steps:
            self._count()
        return torch.zeros(3) if self._sums is None else self._sums
