"""Shard the weights, gradients and optimiser states of one network over the processes of a fit (``trainer=fsdp``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel, OptimStateKeyType
from torch.optim import Optimizer
from torch.utils._pytree import tree_map
from torchmetrics import Metric

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_FROM_WHOLE = StateDictOptions(full_state_dict=True)


class Sharded(FSDPStrategy):
    """Lightning's FSDP, on any kind of device, with checkpoints that are one file and are read with every check.

    Each layer of ``network`` is a unit of its own: only the unit that is running has its weights whole. A network is
    built without memory (on the meta device) and gets its random weights unit by unit; see
    ``QuocNet.configure_model``.

    Lightning takes its own FSDP strategy for GPUs alone, which keeps a fit of two CPU processes (gloo) from showing
    that the code runs, and reads checkpoints of FSDP in a way that runs what is in them.
    """

    def __init__(self) -> None:
        super().__init__(auto_wrap_policy=self._is_unit, state_dict_type="full")
        self._wrapped: FullyShardedDataParallel | None = None

    def _is_unit(self, module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
        network: Any = getattr(self.lightning_module, "network", None)
        layers = network.children() if isinstance(network, nn.Sequential) else [network]
        return recurse or any(module is layer for layer in layers)

    def _setup_model(self, model: nn.Module) -> nn.Module:
        """Wrap the network; once, although validation and test set it up again."""
        if self._wrapped is None or self._wrapped.module is not model:
            self._wrapped = FullyShardedDataParallel(
                model,
                mixed_precision=self.mixed_precision_config,
                sharding_strategy=self.sharding_strategy,
                device_id=self.root_device,  # Lightning gives the index alone, which a CPU does not have
                **self.kwargs,
            )
            for metric in model.modules():
                if isinstance(metric, Metric):
                    metric.to(self.root_device)
        return self._wrapped

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole weights in the first process; nothing in the others."""
        return _plain(get_model_state_dict(self._sharded, options=_WHOLE))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimiser in the first process, as one process would have it."""
        own = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        state = _plain(get_optimizer_state_dict(self._sharded, own, options=_WHOLE))
        return self._keyed(state, OptimStateKeyType.PARAM_ID) if self.is_global_zero else state

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read and verify a checkpoint in every process, which keeps its part of it."""
        checkpoint = self.checkpoint_io.load_checkpoint(self.broadcast(checkpoint_path))
        self.load_state_dict(checkpoint["state_dict"])
        trainer: Any = self.lightning_module.trainer  # pyright: ignore[reportOptionalMemberAccess]
        if trainer.state.fn == TrainerFn.FITTING:
            for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
                self._load_optimizer(optimizer, self._keyed(state, OptimStateKeyType.PARAM_NAME))
        return checkpoint

    def _load_optimizer(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Give every process its part of an optimiser's whole state, by the names of parameters.

        A parameter that had no gradient yet has no state. PyTorch gives it one, of a step that was never made.
        """
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_optimizer_state_dict(self._sharded, optimizer, optim_state_dict=state, options=options)
        for name, parameter in self._sharded.named_parameters():
            if name.replace("_fsdp_wrapped_module.", "") not in state["state"]:
                optimizer.state.pop(parameter, None)

    def load_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Give every process its part of whole weights, which all of them have read."""
        set_model_state_dict(self._sharded, dict(weights), options=_FROM_WHOLE)

    @property
    def _sharded(self) -> nn.Module:
        assert self.model is not None
        return self.model

    def _keyed(self, state: dict[str, Any], by: OptimStateKeyType) -> dict[str, Any]:
        return FullyShardedDataParallel.rekey_optim_state_dict(state, by, self._sharded)


def _plain(state: Any) -> Any:
    """Copy tensors without the attributes that FSDP notes on them, which no checkpoint may hold."""
    return tree_map(lambda one: one.detach().clone() if isinstance(one, Tensor) else one, state)
