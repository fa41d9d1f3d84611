"""Pools that a network was trained with, read from its settings: their name, and the scale of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from intriguing.analysis.identity import NetworkId
from intriguing.analysis.inputs import Network
from intriguing.callbacks.split_network import INPUT, chain_of, injectable_layers

BASELINE = "weight decay"
POOLS = "callbacks.back_feeding."
DROPOUT = "model.settings.dropout"


@dataclass(frozen=True)
class Pools:
    """Hold the settings of the pools of adversarial examples that a network was trained with.

    Attributes:
        layers: layers with a pool; None for all.
        attack: "gradient", "lbfgs" or "noise".
        num_steps: steps of the attack.
        keep_scale: whether the loss with pools is scaled to that of the originals alone.
        weight: weight of a pool's loss.
        alternate: whether the pools take turns, one in each step.
        size: examples in a pool; None if not recorded.
        refresh: share of a pool that is renewed at a time.
        every: uses of a pool between renewals.
    """

    layers: tuple[str, ...] | None = None
    attack: str = "gradient"
    num_steps: int = 1
    keep_scale: bool = True
    weight: float = 1.0
    alternate: bool = False
    size: int | None = None
    refresh: float = 1.0
    every: int = 1

    @classmethod
    def of(cls, network: NetworkId) -> Pools | None:
        """Read them from a network's settings; None for a network trained without pools."""
        if not any(key.startswith(POOLS) for key, _ in network.settings):
            return None
        layers = network.get(f"{POOLS}layers")
        return cls(
            layers=None if layers is None else tuple(layers),
            attack=network.get(f"{POOLS}attack", "gradient"),
            num_steps=network.get(f"{POOLS}num_steps", 1),
            keep_scale=network.get(f"{POOLS}keep_scale", True),
            weight=float(network.get(f"{POOLS}weight", 1.0)),
            alternate=network.get(f"{POOLS}turns") == "alternate",
            size=network.get(f"{POOLS}size"),
            refresh=network.get(f"{POOLS}refresh", 1.0),
            every=network.get(f"{POOLS}every", 1),
        )

    @property
    def whole(self) -> bool:
        """Whether every layer has a pool of adversarial examples."""
        return self.layers is None and self.attack != "noise"

    @property
    def inputs_alone(self) -> bool:
        """Whether the input alone has a pool of adversarial examples."""
        return self.layers == (INPUT,) and self.attack != "noise"

    @property
    def name(self) -> str:
        """Layers and attack in words."""
        what = "all pools" if self.layers is None else " and ".join(f"{layer} pool" for layer in self.layers)
        if self.attack in ("noise", "lbfgs"):
            return f"{what}, {'noise' if self.attack == 'noise' else 'L-BFGS'}"
        return f"{what}, PGD-{self.num_steps}" if self.num_steps > 1 else what


def loss_scale(network: Network) -> float | None:
    """Compute the scale of the training loss relative to that of the originals alone.

    With ``keep_scale=false`` each pool in a step adds its loss, so that gradients grow: the network is trained as if
    its learning rate were that many times as large and its weight decay that much smaller.

    Returns:
        1 without pools or with ``keep_scale``; None where the number of pools is not known.
    """
    pools = Pools.of(network.id)
    if pools is None or pools.keep_scale:
        return 1.0
    if pools.alternate:
        return 1 + pools.weight
    if pools.layers is not None:
        return 1 + pools.weight * len(pools.layers)
    chain, shape = getattr(network.module, "network", network.module), getattr(network.module, "input_shape", None)
    if shape is not None:
        chain = chain_of(chain, shape)
    if isinstance(chain, nn.Sequential):
        return 1 + pools.weight * len(injectable_layers(chain))
    widths = network.id.get("model.settings.widths")
    return None if widths is None else 1 + pools.weight * (1 + len(widths))


def arm_name(network: NetworkId) -> str:
    """Name the training of a network: its pools and dropout, or weight decay alone."""
    pools, dropout = Pools.of(network), any(network.get(DROPOUT, ()))
    if pools is None:
        return "dropout" if dropout else BASELINE
    return f"{pools.name}, dropout" if dropout else pools.name
