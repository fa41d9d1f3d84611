"""Retrain on adversarial examples ("back-feeding", section 4.2) with a Lightning callback."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from intriguing.callbacks.pool import Pool
from intriguing.callbacks.pool_mixing import ATTACKS, TURNS, LayerPool, PoolMixing, PoolSettings
from intriguing.callbacks.split_network import INPUT, InjectionLayer, chain_of, injectable_layers
from intriguing.errors import UserError, plural
from intriguing.models import Classifier, planned_steps
from intriguing.validation import choice, flag, number, whole

HIDDEN = "hidden"
_WHERE = "hidden layers are found in a network whose modules, activations among them, run one after the other"
log = logging.getLogger(__name__)


class BackFeeding(Callback):
    """Keep a pool of adversarial examples for the output of each layer and mix them into training (section 4.2).

    ``intriguing.callbacks.pool_mixing.PoolMixing`` holds the pools and computes the loss of a step with them. The
    callback attaches it to the network, renews the pools after each backward pass, logs once an epoch, and saves the
    pools.

    Args:
        layers: ``input``, ``hidden1``, ... from below; None for all layers of the network.
        distortion: RMS over a layer's values of its perturbations: one number, or one for each layer name, where
            ``hidden`` stands for every hidden layer that is not named.
        start: share of training before the pools are used.
        save_pools: save the pools in every checkpoint, so that a resumed run equals an uninterrupted one.
        seed: seed of the random choices in the pools.
        size, refresh, every, mix, weight, keep_scale, turns, attack, num_steps, max_iter, c_tolerance: see
            ``intriguing.callbacks.pool_mixing.PoolSettings``.

    Raises:
        UserError: a setting is out of range; at the start of the fit, the network lacks a layer.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        distortion: float | Mapping[str, float],
        size: int,
        refresh: float = 1.0,
        every: int = 1,
        mix: float = 1.0,
        weight: float = 1.0,
        keep_scale: bool = True,
        turns: str = "together",
        attack: str = "gradient",
        num_steps: int = 1,
        max_iter: int = 30,
        c_tolerance: float = 1.0,
        start: float = 0.05,
        save_pools: bool = True,
        seed: int = 0,
    ) -> None:
        where = "callbacks.back_feeding"
        self.layers = None if layers is None else [str(layer) for layer in layers]
        by_layer = dict(distortion) if isinstance(distortion, Mapping) else {INPUT: distortion, HIDDEN: distortion}
        self.distortion = {
            str(name): number(f"{where}.distortion.{name}", value, 0, above=True) for name, value in by_layer.items()
        }
        self.start = number(f"{where}.start", start, 0)
        self.save_pools, self.seed = flag(f"{where}.save_pools", save_pools), whole(f"{where}.seed", seed, 0)
        self.settings = PoolSettings(
            size=whole(f"{where}.size", size, 1),
            refresh=number(f"{where}.refresh", refresh, 0, above=True),
            every=whole(f"{where}.every", every, 1),
            mix=number(f"{where}.mix", mix, 0, above=True),
            weight=number(f"{where}.weight", weight, 0),
            keep_scale=flag(f"{where}.keep_scale", keep_scale),
            turns=choice(f"{where}.turns", turns, TURNS),
            attack=choice(f"{where}.attack", attack, ATTACKS),
            num_steps=whole(f"{where}.num_steps", num_steps, 1),
            max_iter=whole(f"{where}.max_iter", max_iter, 1),
            c_tolerance=number(f"{where}.c_tolerance", c_tolerance, 0, above=True),
        )
        if self.start >= 1 or self.settings.refresh > 1:
            setting = ("start", self.start) if self.start >= 1 else ("refresh", self.settings.refresh)
            raise UserError(f"{where}.{setting[0]} is a share, so below 1 (refresh: at most 1), got {setting[1]}")
        self.mixing: PoolMixing | None = None
        self._loaded: dict[str, Any] | None = None
        self._first_step = 0

    def check(self, model: Classifier) -> None:
        """Check that the network has the chosen layers.

        Args:
            model: the network.

        Raises:
            UserError: a layer is missing, or has no distortion; the message lists the layers of the network.
        """
        chain = chain_of(model.network, model.input_shape)
        chosen = self._chosen(model, chain)
        if self.layers is None and len(chosen) == 1 and len(chain) == 1:
            log.warning("callbacks.back_feeding: %s gets a pool at its input only; %s", model.label, _WHERE)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Make the pools, or restore those of a checkpoint."""
        assert isinstance(pl_module, Classifier)
        chain = chain_of(pl_module.network, pl_module.input_shape)
        self.mixing = PoolMixing(
            chain,
            [self._layer_pool(one, trainer) for one in self._chosen(pl_module, chain)],
            self.settings,
            seed=self._seed(trainer, 0),
        )
        self._first_step = round(self.start * planned_steps(trainer))
        if self._loaded is not None:
            try:
                self.mixing.load_state_dict(self._own(self._loaded, trainer), pl_module.device)
            except (KeyError, ValueError) as error:
                raise UserError(f"callbacks.back_feeding: {error}; start a new run (resume=false)") from error

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Attach the pools to the network once ``start`` is reached."""
        assert isinstance(pl_module, Classifier)
        on = trainer.global_step >= self._first_step and pl_module.supervised
        pl_module.mixing = self.mixing if on else None

    def on_after_backward(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Renew the pools."""
        # A process without images of this batch runs the step on blank images, which must not enter a pool.
        if isinstance(pl_module, Classifier) and pl_module.mixing is not None and pl_module.share:
            with trainer.precision_plugin.forward_context():
                pl_module.mixing.renew()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the metrics of the pools."""
        assert self.mixing is not None
        with trainer.precision_plugin.forward_context():
            metrics = self.mixing.epoch_metrics()
        if trainer.world_size > 1:
            metrics = _of_all(metrics, {one.layer.name: len(one.pool) for one in self.mixing.pools}, trainer.world_size)
        pl_module.log_dict(metrics)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Detach the pools from the network."""
        assert isinstance(pl_module, Classifier)
        pl_module.mixing = None

    def state_dict(self) -> dict[str, Any]:
        """Return the pools of all processes."""
        if not self.save_pools or self.mixing is None:
            return {}
        own = self.mixing.state_dict()
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return {"ranks": [own]}
        states: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(states, own)  # the pools of the processes differ
        return {"ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a state until the fit starts."""
        self._loaded = state_dict or None

    def _own(self, state: dict[str, Any], trainer: lightning.Trainer) -> dict[str, Any]:
        """Select this process's pools from the state of all processes."""
        ranks = state["ranks"]
        if len(ranks) != trainer.world_size:
            saved = plural(len(ranks), "process", "processes")
            raise ValueError(f"the saved pools are those of {saved}, this run has {trainer.world_size}")
        return ranks[trainer.global_rank]

    def _chosen(self, model: Classifier, chain: nn.Sequential) -> list[InjectionLayer]:
        """Select the chosen layers of the network, and check the settings for them."""
        known = {layer.name: layer for layer in injectable_layers(chain)}
        hint = f"; {_WHERE}" if len(chain) == 1 else ""
        for name in self.layers or []:
            if name not in known:
                raise UserError(
                    f"callbacks.back_feeding.layers names '{name}', which {model.label} does not have; "
                    f"it has {', '.join(known)}{hint}"
                )
        for name in self.distortion:
            if name not in known and name != HIDDEN:
                raise UserError(
                    f"callbacks.back_feeding.distortion names '{name}', which {model.label} does not have; "
                    f"it has {', '.join(known)}, and 'hidden' for all hidden ones"
                )
        chosen = [layer for name, layer in known.items() if self.layers is None or name in self.layers]
        for layer in chosen:
            if layer.name not in self.distortion and (layer.position == 0 or HIDDEN not in self.distortion):
                raise UserError(f"callbacks.back_feeding.distortion has no value for the layer {layer.name}")
            if self.settings.attack == "lbfgs" and (layer.lower, layer.upper) != (0.0, 1.0):
                raise UserError(
                    f"callbacks.back_feeding.attack=lbfgs works where values lie in [0, 1]; those of {layer.name} lie "
                    f"in [{layer.lower:g}, {layer.upper:g}]: take attack=gradient, or other layers"
                )
        if not chosen:
            raise UserError("callbacks.back_feeding.layers is empty; name layers, or null for all")
        return chosen

    def _layer_pool(self, layer: InjectionLayer, trainer: lightning.Trainer) -> LayerPool:
        """Make the empty pool of a layer."""
        size = self.distortion.get(layer.name, self.distortion.get(HIDDEN, 0.0))
        return LayerPool(layer, size, Pool(self.settings.size, seed=self._seed(trainer, layer.position + 1)))

    def _seed(self, trainer: lightning.Trainer, which: int) -> int:
        """Derive a seed from the callback's seed and the rank; ``which`` numbers the generators."""
        return (self.seed * 1009 + trainer.global_rank) * 1009 + which


def _of_all(metrics: dict[str, float], filled: dict[str, int], processes: int) -> dict[str, float]:
    """Combine the metrics of all processes, whose pools may hold different numbers of examples.

    Args:
        metrics: metrics of this process, see ``PoolMixing.epoch_metrics``.
        filled: number of examples in its pools, by layer.
        processes: number of processes.
    """
    gathered: list[Any] = [None] * processes
    torch.distributed.all_gather_object(gathered, (metrics, filled))
    summed: dict[str, float] = {}
    weights: dict[str, float] = {}
    for own, sizes in gathered:
        for key, value in own.items():
            kind, _, layer = key.removeprefix("pool/").partition("_")
            weight = sizes[layer] if kind in ("fooled", "distortion") else 1
            summed[key] = summed.get(key, 0.0) + weight * value
            # losses already contain the weight of each process's share of the batch; replaced examples are added up
            weights[key] = 1 if kind == "replaced" else weights.get(key, 0) + weight
    return {key: total / weights[key] for key, total in summed.items()}
