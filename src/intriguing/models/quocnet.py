"""Define QuocNet: three stages of untied local filters, trained without labels, and a classifier on their outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from intriguing.errors import UserError
from intriguing.models.classifier import Classifier, with_memory
from intriguing.models.fit_size import planned_epochs
from intriguing.models.normalize import Normalize
from intriguing.nn.local import L2Pool2d, LocalContrastNorm2d, LocallyConnected2d, Standardize
from intriguing.spectral import with_margin


class Reconstruction(NamedTuple):
    """Hold the two terms of reconstruction topographic ICA, scalars: means over the images of a batch."""

    error: Tensor
    sparsity: Tensor


def reconstruction_ica(
    inputs: Tensor, filters: LocallyConnected2d, pool: L2Pool2d, decoder: Tensor | None = None
) -> Reconstruction:
    """Compute the objective of reconstruction topographic ICA (Le et al. 2012, equation 1), term by term.

    Of an input x: ``||W2 W1' x - x||^2`` and ``sum over pooled outputs of sqrt(eps + H (W1' x)^2)``, H the 0 and 1 of
    the pooling. The objective is the first plus a weight (the paper's is .1) times the second.

    Args:
        inputs: (N, C, H, W).
        filters: W1.
        pool: H and eps.
        decoder: W2, of the shape of ``filters.weight``; None: W1 itself.

    Returns:
        Mean reconstruction error and mean sparsity term.

    Example:
        >>> filters, pool = LocallyConnected2d(1, 1, size=(2, 2), kernel_size=1), L2Pool2d(1)
        >>> nn.init.ones_(filters.weight).shape
        torch.Size([4, 1, 1])
        >>> reconstruction_ica(torch.ones(3, 1, 2, 2), filters, pool).error.item()
        0.0
    """
    code = filters(inputs)
    error = (filters.adjoint(code, decoder) - inputs).square().flatten(1).sum(1).mean()
    return Reconstruction(error, pool(code).flatten(1).sum(1).mean())


class Stage(nn.Module):
    """Filter locally, pool, and normalise the contrast: one of QuocNet's three stages.

    Args:
        in_channels: maps of the input.
        maps: output maps.
        size: height and width of the input.
        kernel_size: side of the receptive fields.
        stride: distance of neighbouring receptive fields.
        pool: side of the pooling windows, which lie one apart.
        norm: side of the window of local contrast normalisation, odd.
        floor: smallest number that it divides by.
        tied: whether the decoder W2 is the filters W1 themselves.

    Raises:
        ValueError: a number that is out of range, or an input that is too small.
    """

    def __init__(
        self,
        in_channels: int,
        maps: int,
        size: Sequence[int],
        *,
        kernel_size: int,
        stride: int,
        pool: int,
        norm: int,
        floor: float,
        tied: bool,
    ) -> None:
        super().__init__()
        self.standardize = Standardize((in_channels, *size), center=False)
        # Small filters: of large ones, what the images do not hold would stay in the filters as noise.
        self.filter = LocallyConnected2d(in_channels, maps, size, kernel_size, stride, gain=0.1)
        self.pool, self.norm = L2Pool2d(pool), LocalContrastNorm2d(norm, floor)
        # Only its weight is used. It starts as another random matrix.
        self.decoder = None if tied else LocallyConnected2d(in_channels, maps, size, kernel_size, stride)
        self.out_size = tuple(n - pool + 1 for n in self.filter.out_size)
        if min(self.out_size) < 1:
            raise ValueError(
                f"{self.filter.out_size[0]}x{self.filter.out_size[1]} outputs are fewer than a pool of {pool}"
            )

    def forward(self, inputs: Tensor, *, objective: bool = False) -> Any:
        """Return the stage's outputs (N, maps, OH, OW).

        Args:
            inputs: (N, C, H, W).
            objective: return the two terms of the objective instead, see ``reconstruction_ica``. A forward pass has
                all weights also where they are sharded over processes.
        """
        inputs = self.standardize(inputs)
        if objective:
            # ICA is for centred data. But pooling takes squares: of centred inputs, a feature above its mean and one as
            # far below would give the same output, so the filters are applied to inputs with their mean.
            inputs = inputs - self.standardize.offset
            decoder = None if self.decoder is None else F.normalize(self.decoder.weight, dim=2)
            return reconstruction_ica(inputs, self.filter, self.pool, decoder)
        return self.norm(self.pool(self.filter(inputs)))


class QuocNet(Classifier):
    """Classify by softmax regression on three stages that are trained without labels (Le et al. 2012, arXiv 1112.6209).

    A stage is a layer of local linear filters whose weights are not shared between positions, L2 pooling and local
    contrast normalisation. The first ``pretrain_share`` of the epochs trains the stages one after the other, each by
    reconstruction topographic ICA (``reconstruction_ica``) on the outputs of the frozen stages before it. The rest
    trains the softmax on the outputs of the last stage, with the learning rate ``second_lr`` of
    ``intriguing.models.optimization.two_cosines``.

    Szegedy et al. train "car" against the rest: that is ``data.one_against_rest``, which makes two classes of any
    number. Without stages (``maps=[]``) the network is the same classifier on pixels.

    Layers have names: ``network.normalize``, ``stage1`` with ``filter``, ``pool`` and ``norm``, ``stage2``, ...,
    ``flatten``, ``softmax``. Without ``mean`` and ``std`` the first layer subtracts mid-grey.
    """

    name: ClassVar[str] = "quocnet"
    trains_in_parts: ClassVar[bool] = True
    draws_by_layer: ClassVar[bool] = True
    network: nn.Sequential  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def architecture_label(cls, settings: Mapping[str, Any], num_classes: int | None) -> str:
        """Return ``QuocNet``, or ``Linear`` without stages."""
        return "QuocNet" if settings.get("maps", True) else "Linear"

    def build_network(
        self,
        *,
        maps: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        pools: Sequence[int],
        norm: int = 5,
        floor: float = 0.01,
        tied: bool = True,
        sparsity_weight: float = 0.1,
        pretrain_share: float = 0.7,
        balanced: bool = True,
    ) -> nn.Sequential:
        """Build the stages, their decoders and the softmax layer.

        Args:
            maps: output maps of each stage.
            kernels: sides of each stage's receptive fields.
            strides: distances of neighbouring receptive fields.
            pools: sides of each stage's pooling windows, which lie one apart.
            norm: side of the window of local contrast normalisation, odd.
            floor: smallest number that it divides by.
            tied: whether a stage's decoder is its filters (W2 = W1, Le et al. 2011). False trains W2 by itself, with
                filters of norm 1: without that a small W1 and a large W2 would make the sparsity term nothing.
            sparsity_weight: weight of the sparsity term.
            pretrain_share: share of the epochs that trains the stages, in (0, 1).
            balanced: whether every class has the same total weight in the loss, whatever its number of images.

        Raises:
            ValueError: a setting that is out of range, or images too small for the stages.
        """
        lists = {"maps": maps, "kernels": kernels, "strides": strides, "pools": pools}
        for key, sizes in lists.items():
            if not isinstance(sizes, Sequence) or not all(type(size) is int and size >= 1 for size in sizes):
                raise ValueError(f"model.settings.{key} must list whole numbers of at least 1, got {sizes!r}")
        if len({len(sizes) for sizes in lists.values()}) > 1:
            said = ", ".join(f"{key} {len(sizes)}" for key, sizes in lists.items())
            raise ValueError(
                f"model.settings: maps, kernels, strides and pools list one number a stage each, got {said}"
            )
        if not 0 < pretrain_share < 1:
            raise ValueError(f"model.settings.pretrain_share must lie in (0, 1), got {pretrain_share}")
        if not sparsity_weight >= 0:
            raise ValueError(f"model.settings.sparsity_weight must be at least 0, got {sparsity_weight}")
        self.pretrain_share, self.sparsity_weight, self.balanced = pretrain_share, sparsity_weight, balanced
        self.num_stages = len(maps)
        self.training_stage: int | None = 1 if maps else None
        self.class_weights: Tensor | None = None
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        planes, *size = self.input_shape
        for stage, (channels, kernel, stride, pool) in enumerate(zip(maps, kernels, strides, pools, strict=True), 1):
            try:
                made = Stage(
                    planes, channels, size,
                    kernel_size=kernel, stride=stride, pool=pool, norm=norm, floor=floor, tied=tied,
                )  # fmt: skip
            except ValueError as error:
                height, width = self.input_shape[1:]
                raise ValueError(f"stage {stage}, with images of {height}x{width} pixels: {error}") from error
            layers[f"stage{stage}"] = made
            planes, size = channels, made.out_size
        features = planes * size[0] * size[1]
        layers["flatten"], layers["standardize"] = nn.Flatten(), Standardize((features,))
        layers["softmax"] = nn.Linear(features, self.num_classes)
        return nn.Sequential(layers)

    def _normalised(self, network: nn.Module) -> nn.Module:
        """Put the normalisation by ``mean`` and ``std``, else by mid-grey, before the layers."""
        given = self.hparams["mean"] is not None
        mean, std = (self.hparams["mean"], self.hparams["std"]) if given else (0.5, 1.0)
        with with_memory():
            first = Normalize(mean, std, self.input_shape[0])
        return nn.Sequential(OrderedDict([("normalize", first), *network.named_children()]))

    def configure_model(self) -> None:
        """Build the network without memory, on the meta device, where the fit shards it over processes.

        The strategy draws the weights layer by layer (``reset_parameters``), and keeps a part of each.
        """
        if self._trainer is not None and isinstance(self.trainer.strategy, FSDPStrategy):
            with torch.device("meta"):
                self.build_for_data()

    def decayed_layers(self) -> list[nn.Module]:
        """Return the softmax layer; the stages are trained without labels and have no weight decay."""
        softmax = self.network.get_submodule("softmax")
        return [softmax.module if isinstance(softmax, FullyShardedDataParallel) else softmax]

    @torch.no_grad()
    def inputs_of(self, name: str, images: Tensor) -> Tensor:
        """Return what a layer of the network reads, without gradients.

        Args:
            name: ``stage1`` to ``softmax``.
            images: (N, C, H, W) in [0, 1].
        """
        for layer_name, layer in self.network.named_children():
            if layer_name == name:
                break
            images = layer(images)
        return images

    # -- one phase a stage and one for the softmax: an epoch's number alone says which one it belongs to ---------------

    def pretrain_epochs(self) -> int:
        """Return the number of epochs that train the stages, as many for each.

        Raises:
            UserError: there are fewer epochs than stages, and one for the softmax.
        """
        if not self.num_stages:
            return 0
        epochs = planned_epochs(self.trainer)
        if epochs <= self.num_stages and not self.trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            raise UserError(
                f"trainer.max_epochs={epochs}: {self.label} trains {self.num_stages} stages one after the other and "
                f"then the softmax: give at least {self.num_stages + 1}"
            )
        each = round(self.pretrain_share * epochs / self.num_stages)
        return self.num_stages * min(max(1, each), (epochs - 1) // self.num_stages)

    def planned(self) -> dict[str, int]:
        """Return the lengths of the fit, with the optimiser steps that train the stages, and the number of stages."""
        planned = super().planned()
        steps = planned["planned_steps"] * self.pretrain_epochs() // planned["planned_epochs"]
        return planned | {"pretrain_steps": steps, "pretrain_parts": max(1, self.num_stages)}

    def on_fit_start(self) -> None:
        """Count the training images of each class, for the balanced loss."""
        super().on_fit_start()
        data: Any = getattr(self.trainer, "datamodule", None)
        if not self.balanced:
            return
        if not hasattr(data, "train") or not hasattr(data.train, "labels"):
            raise UserError(
                "model.settings.balanced=true counts the training images of each class, which this data module does "
                "not give (train.labels): give balanced=false"
            )
        counts = torch.bincount(data.train.labels, minlength=self.num_classes)
        weights = counts.sum() / (self.num_classes * counts.clamp(min=1))
        self.class_weights = weights.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Choose the layers that train in this epoch."""
        super().on_train_epoch_start()
        epochs = self.pretrain_epochs()
        pretraining = self.current_epoch < epochs
        self.training_stage = 1 + self.current_epoch * self.num_stages // epochs if pretraining else None
        self.requires_grad_(False)
        trained = "softmax" if self.training_stage is None else f"stage{self.training_stage}"
        self.network.get_submodule(trained).requires_grad_(True)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's curves; those of the softmax's weights need them whole."""
        softmax = self.network.get_submodule("softmax")
        sharded = isinstance(softmax, FullyShardedDataParallel)
        with FullyShardedDataParallel.summon_full_params(softmax, writeback=False) if sharded else nullcontext():
            super().on_train_epoch_end()

    @property
    def supervised(self) -> bool:
        """Whether the softmax is being trained."""
        return self.training_stage is None

    def objective(self, batch: list[Tensor]) -> Tensor:
        """Return the loss of the phase, a scalar.

        While a stage trains, nothing is classified: the error that the curves show is that of the class 0 for all.
        """
        images, labels = batch
        standardize = "standardize" if self.training_stage is None else f"stage{self.training_stage}"
        inputs = self.inputs_of(standardize, images)
        layer = self.network.get_submodule(standardize)
        statistics = cast(Standardize, layer if self.training_stage is None else layer.standardize)
        statistics.observe(inputs if self.share else inputs[:0])
        if self.training_stage is None:
            if self.mixing is not None or self.operator_norms is not None:
                return super().objective(batch)
            logits = self.network.get_submodule("softmax")(layer(inputs))
            loss = self.criterion(logits, labels)
            self._count(loss / self.share if self.share else loss, logits, labels)
            return loss
        error, sparsity = layer(inputs, objective=True)
        loss = error + self.sparsity_weight * sparsity
        self._count(loss, loss.new_zeros(len(labels), self.num_classes), labels)
        return self.weighted(loss)

    def criterion(self, logits: Tensor, labels: Tensor, margin: Tensor | None = None) -> Tensor:
        """Return the mean loss of training examples, each counted by the weight of its class where it is balanced."""
        if self.class_weights is None:
            return super().criterion(logits, labels, margin)
        raised = logits if margin is None else with_margin(logits, labels, margin)
        losses = F.cross_entropy(raised, labels, reduction="none")
        return self.weighted((losses * self.class_weights.to(losses)[labels]).mean())

    def penalty(self) -> Tensor:
        """Return the weight decay term of the softmax, a scalar; 0 while a stage trains."""
        return super().penalty() if self.supervised else torch.zeros((), device=self.device)
