"""Lipschitz bounds of every layer of a network, in order (section 4.3): their product bounds the whole network.

The network runs once while its operations are recorded (`recording`), and the recording is cut wherever a single
tensor carries everything that is still needed. Between two cuts lies one layer, or a block whose branches are summed or
concatenated: |a(x) + b(x)| is bounded by the sum of the branches' bounds, a concatenation by the root of the sum of
their squares. All bounds are for the L2 norm and for evaluation mode, and are made in float64 from the network's
numbers, whatever their type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from intriguing.spectral.layer_bounds import LayerRule, Rules, all_rules, module_rule
from intriguing.spectral.operations import ADD, CONCATENATE, SUBTRACT, operation_bound
from intriguing.spectral.operator_norm import sizes
from intriguing.spectral.recording import Node, Recording, floating, plain, record, untouched

SUM, CONCATENATION = "residual sum", "concatenation"


class LayerBound(NamedTuple):
    """Hold the name of a layer in the module (of a block, that of its sum), its kind, and its Lipschitz bound."""

    name: str
    kind: str
    bound: float


@dataclass(frozen=True)
class TracedLayer:
    """Hold one layer of a trace: the entries of `LayerBound`, and its place in the recording.

    Attributes:
        name: see `LayerBound`.
        kind: see `LayerBound`.
        bound: see `LayerBound`.
        source: node before the layer.
        node: last node of the layer.
        module: its module, if it is one.
    """

    name: str
    kind: str
    bound: float
    source: Node
    node: Node
    module: nn.Module | None

    @property
    def alone(self) -> bool:
        """Whether it is one operation on one tensor."""
        return self.node.sources == [self.source]


@dataclass(frozen=True)
class Trace:
    """Hold a network's layers in order, and every known layer that ran, with the shape of one of its inputs."""

    layers: tuple[TracedLayer, ...]
    calls: tuple[tuple[nn.Module, tuple[int, ...]], ...]


def lipschitz_bounds(model: nn.Module, input_shape: Sequence[int], *, rules: Rules | None = None) -> list[LayerBound]:
    """Bound the Lipschitz constant of every layer of a network in the L2 norm, in order.

    Args:
        model: a module from one batch of inputs to one tensor, each row from its own input alone. It is read as it is
            in evaluation mode, with its hooks and parametrisations.
        input_shape: shape of one input, without the batch: (C, H, W).
        rules: bounds of further kinds of modules: functions of the module and of the shape of one input.

    Returns:
        (name, kind, bound) of each layer; the product of the bounds is a Lipschitz bound of the network. A block whose
        branches meet in a sum or a concatenation is one entry.

    Raises:
        TypeError: the shape has numbers that are not whole, or the model is not callable.
        ValueError: a layer or an operation whose bound is not known or that jumps, a network whose computation depends
            on values that PyTorch does not see or that mixes the images of a batch, or a shape that does not fit it.
    """
    return [LayerBound(one.name, one.kind, one.bound) for one in trace(model, input_shape, rules=rules).layers]


def layer_outputs(model: nn.Module, inputs: Tensor, *, rules: Rules | None = None) -> list[Tensor]:
    """Compute the outputs (N, ...) of the layers that `lipschitz_bounds` lists, in evaluation mode.

    Args:
        model: see `lipschitz_bounds`.
        inputs: (N, ...), of the network's type.
        rules: see `lipschitz_bounds`.

    Raises:
        TypeError: inputs that are no tensor of floating-point numbers.
        ValueError: see `lipschitz_bounds`; a layer without a known bound is no error here.
    """
    _check_model(model)
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError(f"expected inputs as a floating-point tensor, got {_kind(inputs)}")
    if inputs.dim() < 2:
        raise ValueError(f"expected inputs of shape (N, ...), got {tuple(inputs.shape)}")
    recording = _record(model, inputs, all_rules(rules), bounds=False)
    return [layer.node.value for layer in _layers(recording, bounds=False)]


def trace(model: nn.Module, input_shape: Sequence[int], *, rules: Rules | None = None, bounds: bool = True) -> Trace:
    """Record the operations of a network and list its layers; see `lipschitz_bounds`.

    Args:
        model: see `lipschitz_bounds`.
        input_shape: see `lipschitz_bounds`.
        rules: see `lipschitz_bounds`.
        bounds: False leaves all bounds nan; then a layer without a known bound is no error.
    """
    _check_model(model)
    known, reference = all_rules(rules), floating(model)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False):
        batches = torch.rand(2, 2, *sizes(input_shape), generator=generator).to(reference.device, reference.dtype)
    recording = _record(model, batches[0], known, bounds=bounds)
    with plain(model):
        layers = tuple(_layers(recording, bounds=bounds))
    if bounds:
        _check_rows(model, batches, recording)
        _check_constants(recording, _record(model, batches[1], known, bounds=False))
    return Trace(layers, recording.calls)


def _layers(recording: Recording, *, bounds: bool) -> Iterator[TracedLayer]:
    """Cut a recording into its layers."""
    nodes = recording.nodes
    position = {node: index for index, node in enumerate(nodes)}
    last_use = list(range(len(nodes)))
    for index, node in enumerate(nodes):
        for source in node.sources:
            last_use[position[source]] = index
    start, needed = 0, 0
    for index, node in enumerate(nodes):
        if index and needed <= index:  # nothing before this node is used after it
            found = {nodes[start]: 1.0}
            for one in nodes[start + 1 : index + 1]:
                found[one] = _bound(one, found) if bounds else math.nan
            alone = node.module if index == start + 1 else None
            if bounds and math.isnan(found[node]):
                raise ValueError(
                    f"the bound of layer '{node.name}' ({_block_kind(node)}) is not a number: are its weights?"
                )
            yield TracedLayer(node.name, _block_kind(node), found[node], nodes[start], node, alone)
            start = index
        needed = max(needed, last_use[index])
    if len(nodes) == 1:  # the output is the input, or constant
        constant = recording.output.shape != nodes[0].value.shape or not torch.equal(recording.output, nodes[0].value)
        value = recording.output if constant else nodes[0].value
        node = Node("output", "constant" if constant else "identity", None, {}, 0, value)
        yield TracedLayer(
            node.name, node.kind, (0.0 if constant else 1.0) if bounds else math.nan, nodes[0], node, None
        )


def _bound(node: Node, found: Mapping[Node, float]) -> float:
    """Bound a node relative to the last cut."""
    if node.func is None:  # a layer by its own rule
        return found[node.arguments["x"]] * node.factor
    bound = operation_bound(node, found)
    if bound is not None:
        return bound
    if node.module is not None:
        raise ValueError(
            f"no Lipschitz bound is known for layer '{node.name}' ({type(node.module).__name__}); give one in rules"
        )
    raise ValueError(f"no Lipschitz bound is known for the operation '{node.kind}' ({node.name}) of the network")


def _block_kind(node: Node) -> str:
    if len(set(node.sources)) > 1:
        return SUM if node.kind in (ADD, *SUBTRACT) else CONCATENATION if node.kind in CONCATENATE else node.kind
    return node.kind if node.module is None else type(node.module).__name__


# -- checks of a recording --------------------------------------------------------------------------------------


def _record(
    model: Callable[[Tensor], Tensor], inputs: Tensor, known: Mapping[type[nn.Module], LayerRule], *, bounds: bool
) -> Recording:
    try:
        return record(model, inputs, lambda module: module_rule(module, known), bounds=bounds)
    except ValueError:
        raise
    except Exception as error:  # it ran the network's own code
        raise ValueError(
            f"an input of shape {tuple(inputs.shape[1:])} does not fit the network, or it cannot be traced (then give "
            f"the part in question a bound in rules): {first_line(error)}"
        ) from error


def _check_rows(model: Callable[[Tensor], Tensor], batches: Tensor, recording: Recording) -> None:
    """Compare with the unrecorded network on a batch that shares only the first row."""
    with plain(model), untouched(model):
        output = model(torch.stack([batches[0, 0], batches[1, 1]]))
    recorded = recording.output
    same = isinstance(output, Tensor) and output.shape == recorded.shape and output.dim() > 0
    if same:
        ours, theirs = recorded[0].double(), output[0].double()
        scale = max(float(ours.abs().nan_to_num(0, 0, 0).max()) if ours.numel() else 0.0, 1e-30)
        room = scale * max(1e-4, 30 * (torch.finfo(output.dtype).eps if output.is_floating_point() else 0.0))
        same = torch.allclose(ours, theirs, rtol=0, atol=room, equal_nan=True)
    if not same:
        raise ValueError(
            "the network mixes the images of a batch, or answers otherwise from one run to the next: it has no "
            "Lipschitz bound"
        )


def _check_constants(one: Recording, other: Recording) -> None:
    """Compare the constants of two runs on different inputs, which must not depend on the input."""
    same = len(one.nodes) == len(other.nodes)
    for first, second in zip(one.nodes, other.nodes, strict=False):
        same = same and first.func is second.func and first.name == second.name
        pairs = zip(_constants(first), _constants(second), strict=False)
        same = same and all(_equal(a, b) for a, b in pairs)
    if len(one.nodes) == 1 and same:
        same = _equal(one.output, other.output) or _equal(one.output, one.nodes[0].value)
    if not same:
        raise ValueError(
            "the network cannot be traced: it computes with numbers that change from one input to the next (random "
            "numbers, or values read outside of PyTorch)"
        )


def _constants(node: Node) -> list[Any]:
    return [one for one in tree_leaves(node.arguments) if not isinstance(one, Node)] if node.func is not None else []


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.shape == b.shape and torch.allclose(a, b, rtol=1e-6, atol=0, equal_nan=True))
    return type(a) is type(b) and bool(a == b or a != a)


def _check_model(model: Any) -> None:
    if not callable(model):
        raise TypeError(f"expected a torch module, got {_kind(model)}")


def _kind(value: Any) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
