"""Train a network of any architecture with the objective of section 4."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, Protocol, Self

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, distributed, nn, optim
from torchmetrics.classification import MulticlassAccuracy

from intriguing import __version__
from intriguing.errors import UserError, plural
from intriguing.models._not_finite import check_weights, not_finite
from intriguing.models._tally import Tally
from intriguing.models.fit_size import planned_epochs, planned_steps, world_size
from intriguing.models.normalize import Normalize
from intriguing.models.optimization import Scheduler, build_optimizer, is_coupled, step_by_metric, stepped_by_metric
from intriguing.nn import evaluating
from intriguing.nn.nonfinite import NotFiniteError
from intriguing.spectral import LipschitzMargin, LogProductPenalty, with_margin
from intriguing.spectral.operator_norm import CONVOLUTIONS, TRANSPOSED

PENALTIES = {"log_product": LogProductPenalty, "margin": LipschitzMargin}
CHECKPOINT_FORMAT = 3  # raised when an older checkpoint can no longer be read
DECAYED = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
"""The kinds of layers to which weight decay applies."""
REGISTRY: dict[str, type[Classifier]] = {}
"""The architectures by name. A checkpoint names its network, and only networks of this registry are ever built."""

Criterion = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of logits (N, K) and labels (N,)."""


class Mixing(Protocol):
    """Compute the loss of a training step with further examples mixed in (``intriguing.callbacks.PoolMixing``)."""

    def step(self, images: Tensor, labels: Tensor, criterion: Criterion) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss to minimise, the part of it that belongs to the images, and their logits (N, K)."""
        ...

    def renew(self) -> None:
        """Renew the examples, after the backward pass of the step."""
        ...


class Classifier(lightning.LightningModule):
    """Classify images in [0, 1], trained with cross-entropy and the paper's weight decay (section 4).

    The objective is ``cross-entropy + sum over layers of lambda_l * sum(w_l^2) / k_l``. An optimiser with a coupled
    ``weight_decay`` (SGD, Adam) takes ``weight_decay = 2 lambda / k``, which has exactly that gradient and costs
    nothing. For any other optimiser (AdamW, LBFGS) the term is added to the loss.

    An architecture is a subclass with a ``name`` and a ``build_network``. Its own settings are the keyword arguments of
    ``build_network``.

    Without ``input_shape`` and ``num_classes`` the network is built later: by ``build``, by ``intriguing.fit``, or by a
    Trainer whose data module has attributes of these names.

    Args:
        label: the network's name in tables, for example ``FC100-100-10``; None: see ``architecture_label``.
        input_shape: (C, H, W); None: known later.
        num_classes: K; None: known later.
        weight_decay: lambda of every decayed layer, in order; one number goes to all of them.
        normaliser: k of the decay. ``units`` takes the number of units of the layer (the paper's words, literally); a
            number is used for every layer, 2 being the usual ``lambda / 2 * sum(w^2)``. docs/howto/training.md
            says how the default was chosen.
        spectral_penalty: strength of the penalty on the layers' operator norms (section 4.3); 0 is none, and costs
            nothing.
        spectral_penalty_kind: ``log_product`` adds ``spectral_penalty * log(1 + product of norms)`` to the loss;
            ``margin`` takes the cross-entropy of the worst case that the product bound allows within an L2 distance of
            ``spectral_penalty`` from each image (``LipschitzMargin``).
        mean: of the pixels of each channel, or one number; with ``std`` the first layer computes (images - mean) / std,
            so that the images themselves stay in [0, 1]. None: no such layer.
        std: standard deviation of the pixels, likewise.
        optimizer: takes parameters or parameter groups; None: Adam. No hyper-parameter, so no part of a checkpoint.
        scheduler: of the learning rate; None keeps it constant. No hyper-parameter either.
        **settings: of the architecture, see ``build_network``.

    Raises:
        ValueError: a setting that is out of range.

    Example:
        >>> from intriguing.models import FullyConnected
        >>> model = FullyConnected(widths=[100, 100])
        >>> model.build((1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
        >>> model.label
        'FC100-100-10'
    """

    name: ClassVar[str]
    is_trainable: ClassVar[bool] = True
    trains_in_parts: ClassVar[bool] = False  # whether a step may leave parameters without a gradient
    draws_by_layer: ClassVar[bool] = False  # whether reset_parameters of its layers draws the weights it starts with
    mixing: Mixing | None = None
    trained_on: dict[str, Any] | None = None  # of a network from a checkpoint: its images, in plain values
    first_seed: int | None = None  # of the fit
    random_layers: tuple[str, ...] = ()  # that a file of weights left as they started; empty where no file was read
    epochs_before = 0  # of a fit that a finished one goes on in
    steps_before = 0

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "name" in vars(cls):
            REGISTRY[cls.name] = cls

    def __init__(
        self,
        *,
        label: str | None = None,
        input_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        weight_decay: float | Sequence[float] = 0.0,
        normaliser: str | float = 2.0,
        spectral_penalty: float = 0.0,
        spectral_penalty_kind: str = "log_product",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        optimizer: partial[Any] | None = None,
        scheduler: Scheduler | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer", "scheduler", "network"])
        self.settings = settings
        self.optimizer = partial(optim.Adam, lr=1e-3) if optimizer is None else optimizer
        self.scheduler = scheduler
        self.label = type(self).__name__ if label is None else label
        self.batch_images, self.share = 0, 1.0
        self._tally = Tally()
        self.operator_norms: LogProductPenalty | LipschitzMargin | None = None
        self.network: nn.Module = _NotBuilt(type(self).__name__)
        if input_shape is None or num_classes is None:
            self._check_objective()
        else:
            self.build(input_shape, num_classes)

    @property
    def is_built(self) -> bool:
        """Whether the network has its layers."""
        return not isinstance(self.network, _NotBuilt)

    def build(self, input_shape: Sequence[int], num_classes: int, **changes: Any) -> Self:
        """Build the network, with weights from torch's global seed; of a built one set only the objective anew.

        Args:
            input_shape: (C, H, W).
            num_classes: K.
            **changes: arguments of the constructor that replace what it was given: ``label``, ``weight_decay``,
                ``normaliser``, ``spectral_penalty``, ``spectral_penalty_kind``, ``mean``, ``std``, ``optimizer``,
                ``scheduler``.

        Returns:
            This classifier.

        Raises:
            ValueError: a setting that is out of range, or a built network of another shape.
        """
        shape = tuple(input_shape)
        if self.is_built and (shape, num_classes) != (self.input_shape, self.num_classes):
            raise ValueError(
                f"{self.label} is built for images of shape {self.input_shape} in {self.num_classes} classes, so not "
                f"for {shape} in {num_classes}"
            )
        for key in ("optimizer", "scheduler"):
            if key in changes:
                setattr(self, key, changes.pop(key))
        self.hparams.update(changes | {"input_shape": list(shape), "num_classes": num_classes})
        self._check_objective()
        self.input_shape, self.num_classes = shape, num_classes
        self.label = self.hparams["label"] or self.architecture_label(self.settings, num_classes)
        self.hparams["label"] = self.label
        if not self.is_built:
            with with_memory():
                self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
                self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
            self.network = self._normalised(self.build_network(**self.settings))
        self._set_objective()
        return self

    def _check_objective(self) -> None:
        given = self.hparams
        normaliser, penalty, kind = given["normaliser"], given["spectral_penalty"], given["spectral_penalty_kind"]
        if normaliser != "units" and not (isinstance(normaliser, int | float) and normaliser > 0):
            raise ValueError(f"weight_decay.normaliser must be 'units' or a number above 0, got {normaliser!r}")
        if not (math.isfinite(penalty) and penalty >= 0):
            raise ValueError(f"spectral_penalty must be a finite number of at least 0, got {penalty}")
        if kind not in PENALTIES:
            raise ValueError(f"unknown spectral_penalty_kind '{kind}'; known: {', '.join(PENALTIES)}")
        mean, std = given["mean"], given["std"]
        if (mean is None) != (std is None):
            Normalize(0.0 if mean is None else mean, 1.0 if std is None else std)  # whether the one given is numbers
            raise ValueError("data.mean and data.std belong together: give both or none")

    def _set_objective(self) -> None:
        """Take weight decay and spectral penalty from the hyper-parameters."""
        given = self.hparams
        self.normaliser = given["normaliser"]
        self.weight_decay = self._one_a_layer(given["weight_decay"])
        self._computed = not all(isinstance(weight, nn.Parameter) for weight, _ in self.decayed_weights())
        self.spectral_penalty, self.spectral_penalty_kind = (
            float(given["spectral_penalty"]),
            given["spectral_penalty_kind"],
        )
        self.operator_norms = None
        if self.spectral_penalty:
            norms = PENALTIES[self.spectral_penalty_kind](self.network, self.input_shape)
            self.operator_norms = norms.to(floating_dtype(self.network))

    def _normalised(self, network: nn.Module) -> nn.Module:
        """Put the normalisation by ``mean`` and ``std`` before a network."""
        mean, std = self.hparams["mean"], self.hparams["std"]
        if mean is None:
            return network
        first = Normalize(mean, std, self.input_shape[0]).to(floating_dtype(network))
        return nn.Sequential(OrderedDict(normalize=first, model=network))

    @classmethod
    def architecture_label(cls, settings: Mapping[str, Any], num_classes: int | None) -> str:
        """Return the name of an architecture in tables where none was given.

        Args:
            settings: keyword arguments of ``build_network``.
            num_classes: K; None while the images are not read.
        """
        return cls.__name__

    @classmethod
    def image_size(cls, settings: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return the side of the images that published weights want, and the shorter side before the crop.

        Args:
            settings: keyword arguments of ``build_network``.

        Returns:
            Two numbers of pixels; None for an architecture that has no published weights.
        """
        return None

    def another(self) -> Self | None:
        """Build the network again, with new random weights; None where only the code that made it could."""
        return type(self)(**self.hparams)

    def build_network(self, *args: Any, **settings: Any) -> nn.Module:
        """Build the modules from images (N, C, H, W) to logits (N, K); the only method an architecture must have.

        ``self.input_shape`` and ``self.num_classes`` are known. The keyword arguments are the architecture's settings.

        Raises:
            ValueError: a setting that is out of range.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W)."""
        return self.network(images)

    # -- objective ---------------------------------------------------------------------------------------------------

    def decayed_layers(self) -> list[nn.Module]:
        """List the layers to which weight decay applies: those of the kinds ``DECAYED`` at any depth, in order.

        Of layers that share a weight the first one is listed: the objective has the weight once.
        """
        found: list[tuple[nn.Module, Tensor]] = []
        for module in self.network.modules():
            if isinstance(module, DECAYED) and not any(module.weight is weight for _, weight in found):
                found.append((module, module.weight))
        return [module for module, _ in found]

    def _one_a_layer(self, weight_decay: float | Sequence[float]) -> list[float]:
        count = len(self.decayed_layers())
        given = list(weight_decay) if isinstance(weight_decay, Sequence) else [weight_decay] * count
        if len(given) != count:
            raise ValueError(
                f"{self.label} has {plural(count, 'layer')} with weight decay, so weight_decay.value wants one number "
                f"or a list of {count}, got {given}"
            )
        if not all(math.isfinite(value) and value >= 0 for value in given):
            raise ValueError(f"weight_decay.value must hold finite numbers of at least 0, got {given}")
        return [float(value) for value in given]

    def decayed_weights(self) -> list[tuple[Tensor, float]]:
        """List the weight of each decayed layer, in order, with its coefficient lambda / k."""
        layers: list[Any] = self.decayed_layers()
        ks = [_units(layer) if self.normaliser == "units" else float(self.normaliser) for layer in layers]
        return [(layer.weight, value / k) for layer, value, k in zip(layers, self.weight_decay, ks, strict=True)]

    def penalty(self) -> Tensor:
        """Return the weight decay term of the objective, a scalar (section 4: lambda * sum(w^2) / k)."""
        return sum((c * w.square().sum() for w, c in self.decayed_weights()), torch.zeros((), device=self.device))

    def criterion(self, logits: Tensor, labels: Tensor, margin: Tensor | None = None) -> Tensor:
        """Return the mean loss of training examples, weighted by the process's share of the batch (``weighted``).

        Args:
            logits: (N, K).
            labels: (N,).
            margin: a scalar that raises every logit but the label's, see ``LipschitzMargin``.
        """
        raised = logits if margin is None else with_margin(logits, labels, margin)
        return self.weighted(F.cross_entropy(raised, labels))

    def weighted(self, mean: Tensor) -> Tensor:
        """Weight a mean over this process's images so that the mean over all processes is that of the whole batch.

        The gradients of a distributed fit are averaged over the processes. Where a batch does not divide evenly, each
        process's mean therefore counts by the number of its images.
        """
        return mean if self.share == 1 else mean * self.share

    @property
    def supervised(self) -> bool:
        """Whether labels are being learned now."""
        return True

    def objective(self, batch: list[Tensor]) -> Tensor:
        """Return the training loss of a batch without weight decay, a scalar, and add the batch to the epoch's curves.

        Args:
            batch: images (N, C, H, W) and labels (N,).
        """
        images, labels = batch
        strong = self._norm_term() if self.operator_norms is not None else None
        as_margin = self.spectral_penalty_kind == "margin"
        criterion = partial(self.criterion, margin=strong if as_margin else None)
        if self.mixing is None:
            logits = self(images)
            loss = own = criterion(logits, labels)
        else:
            loss, own, logits = self.mixing.step(images, labels, criterion)
        self._count(own / self.share if self.share else own, logits, labels)
        return loss if strong is None or as_margin else loss + strong

    def _norm_term(self) -> Tensor:
        """Return the spectral penalty: the term that is added to the loss, or to the logits as a margin."""
        assert self.operator_norms is not None
        with torch.autocast(self.device.type, enabled=False):  # rounded weights have other norms
            return self.spectral_penalty * self.operator_norms()

    # -- steps ---------------------------------------------------------------------------------------------------------

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss to minimise, a scalar."""
        self._take_share(len(batch[1]))
        if not len(batch[1]):  # a last batch of fewer images than processes: the step is made, and counts for nothing
            batch = [part.new_zeros(2, *part.shape[1:]) for part in batch]
        loss = self.objective(batch)
        if not math.isfinite(loss.item()):
            raise self._not_finite("train", loss, batch, batch_idx)
        if not any(self.weight_decay):
            return loss
        if not is_coupled(self.optimizer):
            return loss + self.penalty()
        return loss + self._computed_penalty() if self._computed else loss

    def _computed_penalty(self) -> Tensor:
        """Return the weight decay term of weights that are no parameters (weight_norm), which no optimiser sees."""
        computed = [(w, c) for w, c in self.decayed_weights() if not isinstance(w, nn.Parameter)]
        return sum((c * w.square().sum() for w, c in computed), torch.zeros((), device=self.device))

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log ``val/loss`` and ``val/acc``."""
        self._evaluate("val", self.val_accuracy, batch, batch_idx)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log ``test/loss`` and ``test/acc``."""
        self._evaluate("test", self.test_accuracy, batch, batch_idx)

    def _evaluate(self, stage: str, accuracy: MulticlassAccuracy, batch: list[Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        if not math.isfinite(loss.item()):
            raise self._not_finite(stage, loss, batch, batch_idx)
        accuracy.update(logits, labels)
        self.log(f"{stage}/loss", loss, on_epoch=True, on_step=False, batch_size=len(labels), sync_dist=True)
        self.log(f"{stage}/acc", accuracy, on_epoch=True, on_step=False, batch_size=len(labels))

    def _not_finite(self, stage: str, loss: Tensor, batch: list[Tensor], batch_idx: int) -> NotFiniteError:
        norms = self.operator_norms
        bad_norm = None if norms is None else norms.bad_layer()
        return not_finite(
            self, stage, loss, batch[0], batch_idx,
            objective=lambda: self.objective(batch), bad_norm=bad_norm, rate=self._rate,
        )  # fmt: skip

    @property
    def _rate(self) -> object:
        return self.optimizer.keywords.get("lr", "its default")

    def _take_share(self, images: int) -> None:
        """Note how many images the whole batch has, and which part of it this process has (1 is an even part)."""
        self.batch_images, self.share = images, 1.0
        if (processes := world_size()) > 1:
            count = torch.tensor(images, device=self.device)
            distributed.all_reduce(count)
            self.batch_images = int(count)
            self.share = images * processes / self.batch_images

    def on_fit_start(self) -> None:
        """Keep the seed of the fit, from which the random numbers of every epoch are derived."""
        self.first_seed = torch.initial_seed()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout at every epoch's first batch, so that a resumed fit leaves out the same units."""
        # Not at the epoch's start, because making the loader's iterator comes after it and draws a number.
        if batch_idx == 0 and any(isinstance(layer, nn.modules.dropout._DropoutNd) for layer in self.network.modules()):
            assert self.first_seed is not None
            seed = (self.first_seed % 2**31) * 1_000_003 + self.current_epoch
            torch.manual_seed(seed * self.trainer.world_size + self.global_rank)

    # -- curves: plain sums in the step, one self.log an epoch (a self.log a step costs a quarter of the epoch) --------

    def _count(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        if self.share:
            self._tally.add(loss.detach(), logits.detach(), labels)

    def on_train_epoch_start(self) -> None:
        """Start the sums of an epoch."""
        self._tally = Tally()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's curves, and step a scheduler that reads a metric."""
        sums = self._tally.sums().to(self.device)
        if world_size() > 1:
            distributed.all_reduce(sums)
        if not sums[2]:
            return
        loss, error = float(sums[0] / sums[2]), float(sums[1] / sums[2])
        check_weights(self, self._rate)  # before the checkpoint of this epoch takes the place of the last good one
        curves = {"train/loss": loss, "train/error": error, "train/penalty": float(self.penalty().detach())}
        if self.operator_norms is not None:
            curves["train/spectral_penalty"] = self._norm_term_now(self.operator_norms)
        self.log_dict(curves | self.weight_sizes())
        step_by_metric(self.trainer)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler, except those that ``on_train_epoch_end`` has stepped.

        Lightning steps a scheduler that reads a metric only after the epoch's checkpoint is written, from which a
        resumed fit would therefore differ.
        """
        if not any(config.scheduler is scheduler for config in stepped_by_metric(self.trainer)):
            super().lr_scheduler_step(scheduler, metric)

    def metric_keys(self) -> list[str]:
        """Return the keys that every epoch of training logs."""
        penalties = ["train/penalty", *(["train/spectral_penalty"] if self.operator_norms is not None else [])]
        return ["train/loss", "train/error", *penalties, *self.weight_sizes()]

    @torch.no_grad()
    def _norm_term_now(self, norms: nn.Module) -> float:
        """Return the spectral penalty of the current weights."""
        if not self.supervised:
            return 0.0
        with evaluating(norms):  # in training mode each call moves the singular vectors
            return float(self._norm_term())

    @torch.no_grad()
    def weight_sizes(self) -> dict[str, float]:
        """Return ``weights/rms_<layer>``: the root mean square of each layer's weights."""
        named = ((n.replace("._fsdp_wrapped_module", ""), m) for n, m in self.network.named_modules())
        layers = {n or "0": m for n, m in named if isinstance(m, DECAYED)}
        return {f"weights/rms_{name}": float(layer.weight.square().mean().sqrt()) for name, layer in layers.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook some fifty times a step, each through nn.Module's search for parameters:
        # a tenth of an epoch of these small networks.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def setup(self, stage: str) -> None:
        """Build the network for the images of the Trainer's data module, where that was left to it."""
        if not isinstance(self.trainer.strategy, FSDPStrategy):
            self.build_for_data()

    def build_for_data(self) -> None:
        """Build the network for the images of the Trainer's data module, if there are any and it is not built."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if not self.is_built and hasattr(data, "input_shape") and hasattr(data, "num_classes"):
            self.build(data.input_shape, data.num_classes)

    # -- optimiser -----------------------------------------------------------------------------------------------------

    def planned(self) -> dict[str, int]:
        """Return the lengths of the fit that the settings of a scheduler may name, without what was trained before."""
        return {
            "planned_steps": planned_steps(self.trainer) - self.steps_before,
            "planned_epochs": planned_epochs(self.trainer) - self.epochs_before,
        }

    def configure_optimizers(self) -> Any:
        """Build the optimiser, with the paper's weight decay, and the scheduler."""
        optimizer = build_optimizer(self.optimizer, self.decayed_weights(), list(self.parameters()), self._trainer)
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler.build(optimizer, self.planned(), self.trainer)}

    # -- checkpoints: every one says what it is; its file carries a sha256 (``intriguing.storage.checkpoint_file``) ----

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write into a checkpoint which network it is of, and which images the network was trained on."""
        data = getattr(self.trainer, "datamodule", None)
        checkpoint["intriguing"] = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "model": self.name,
            "data": getattr(data, "description", None),
            "seed": getattr(data, "seed", None),
        }


class _NotBuilt(nn.Sequential):
    """Stand where a network will be; a call says how to build it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, input: Any) -> Any:
        """Raise UserError."""
        raise UserError(
            f"{self.name} is not built yet, because it does not know the shape of its images: intriguing.fit builds it "
            "for its images, .build(input_shape, num_classes) at once"
        )


def floating_dtype(network: nn.Module) -> torch.dtype:
    """Return the type of a network's first floating-point parameter; float32 without one."""
    return next((one.dtype for one in network.parameters() if one.is_floating_point()), torch.float32)


def with_memory() -> AbstractContextManager[Any]:
    """Return a context in which tensors have memory, also while layers are built without (on the meta device)."""
    return torch.device("cpu") if torch.get_default_device().type == "meta" else nullcontext()


def _units(layer: Any) -> int:
    return layer.out_channels if isinstance(layer, TRANSPOSED) else layer.weight.shape[0]
