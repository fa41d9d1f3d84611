"""Lipschitz bounds of every layer of a network, in order (section 4.3): their product bounds the whole network.

The network is traced into a graph (torch.fx), run once on zeros to learn every shape, and cut wherever a single tensor
carries everything that is still needed. Between two cuts lies one layer, or a block whose branches are summed or
concatenated: |a(x) + b(x)| is bounded by the sum of the branches' bounds, a concatenation by the root of the sum of
their squares. All bounds are for the L2 norm and for evaluation mode.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from intriguing.spectral.layer_bounds import MODULES, LayerRule, functional, module_rule

Rules = Mapping[type[nn.Module], LayerRule]

SUM, CONCATENATION = "residual sum", "concatenation"
_ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
_SUBTRACT = {operator.sub, operator.isub, torch.sub, "sub", "sub_"}
_MULTIPLY = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
_DIVIDE = {operator.truediv, operator.itruediv, torch.div, "div", "div_"}
_NEGATE = {operator.neg, torch.neg, "neg"}
_CONCATENATE = {torch.cat, torch.concat, torch.concatenate}
_MEAN = {torch.mean, "mean"}


class LayerBound(NamedTuple):
    """One layer: its name in the module (of a block, that of its sum), what it is, and its Lipschitz bound."""

    name: str
    kind: str
    bound: float


@dataclass(frozen=True)
class Layer:
    """An entry of the walk: what `LayerBound` says, the graph's node that ends it, and its module if it is one."""

    name: str
    kind: str
    bound: float
    node: fx.Node
    module: nn.Module | None


@dataclass(frozen=True)
class Trace:
    """A traced network, its layers in order, and every module that it calls with the shape of one of its inputs."""

    root: nn.Module
    graph: fx.Graph
    layers: tuple[Layer, ...]
    calls: tuple[tuple[nn.Module, tuple[int, ...]], ...]


def lipschitz_bounds(model: nn.Module, input_shape: Sequence[int], *, rules: Rules | None = None) -> list[LayerBound]:
    """Every layer of a network, in order, each with an upper bound of its Lipschitz constant in the L2 norm.

    Args:
        model: a module that torch.fx can trace, from one batch of inputs to one tensor. It is read as it is in
            evaluation mode.
        input_shape: shape of one input, without the batch: (C, H, W).
        rules: bounds of further kinds of modules: functions of the module and of the shape of one input.

    Returns:
        (name, kind, bound) of each layer; the product of the bounds is a Lipschitz bound of the network. A block whose
        branches meet in a sum or a concatenation is one entry.

    Raises:
        ValueError: a layer or an operation whose bound is not known, a module that cannot be traced, or a shape that
            does not fit it.
    """
    return [LayerBound(one.name, one.kind, one.bound) for one in trace(model, input_shape, rules=rules).layers]


def layer_outputs(model: nn.Module, inputs: Tensor, *, rules: Rules | None = None) -> list[Tensor]:
    """The outputs (N, ...) of the layers that `lipschitz_bounds` lists, in its order, in evaluation mode.

    Raises:
        ValueError: see `lipschitz_bounds`.
    """
    traced = trace(model, inputs.shape[1:], rules=rules, bounds=False)
    kept: dict[fx.Node, Tensor] = {layer.node: inputs for layer in traced.layers}

    def keep(node: fx.Node, value: Any) -> None:
        if node in kept:
            kept[node] = value.clone()  # the next layer may work in place

    with _evaluating(model), torch.no_grad():
        _Recorder(traced.root, traced.graph, keep).run(inputs)
    return [kept[layer.node] for layer in traced.layers]


def trace(model: nn.Module, input_shape: Sequence[int], *, rules: Rules | None = None, bounds: bool = True) -> Trace:
    """Trace a network and walk its layers; see `lipschitz_bounds`.

    Args:
        bounds: False spares the bounds (all nan), for those who only want the layers.
    """
    known = {**MODULES, **(rules or {})}
    root = nn.Sequential(model) if _is_leaf(model, known) else model  # a layer on its own is a network of one
    values: dict[fx.Node, Any] = {}
    with _evaluating(model), torch.no_grad():
        graph = _graph(root, known)
        parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0))
        zeros = torch.zeros(2, *input_shape, dtype=parameter.dtype, device=parameter.device)
        try:
            _Recorder(root, graph, values.__setitem__).run(zeros)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = _first_line(error)
            raise ValueError(f"an input of shape {tuple(input_shape)} does not fit the network: {reason}") from error
        layers = tuple(_Walk(root, graph, values, known, bounds).layers())
        calls = [
            (root.get_submodule(str(n.target)), n.all_input_nodes[0]) for n in graph.nodes if n.op == "call_module"
        ]
        return Trace(root, graph, layers, tuple((module, tuple(values[one].shape[1:])) for module, one in calls))


class _Walk:
    """From a graph and the values of its nodes to its layers."""

    def __init__(self, root: nn.Module, graph: fx.Graph, values: dict, known: dict, bounds: bool) -> None:
        self._root, self._values, self._known, self._bounds = root, values, known, bounds
        self._carried: list[fx.Node] = []  # the nodes whose tensors depend on the input, in order
        for node in graph.nodes:
            carries = any(one in self._carried for one in node.all_input_nodes) and not _is_plain(values[node])
            if node.op == "output":
                self._output = node
            elif carries or (node.op == "placeholder" and not self._carried):
                self._carried.append(node)
        self._position = {node: index for index, node in enumerate(self._carried)}

    def layers(self) -> Iterator[Layer]:
        start, needed = 0, 0
        for index, node in enumerate(self._carried):
            if index and needed <= index:  # nothing before this node is used after it
                yield self._layer(start, index)
                start = index
            users = [self._position.get(user, len(self._carried)) for user in node.users if self._counts(user)]
            needed = max(needed, *users, 0)
        if start != len(self._carried) - 1:
            raise ValueError("the network's last layer is not its output: it returns more than one tensor")

    def _counts(self, user: fx.Node) -> bool:
        return user in self._position or user is self._output

    def _layer(self, start: int, end: int) -> Layer:
        """The layer between two cuts; a block's bound is that of its last node, seen from its first."""
        bounds = {self._carried[start]: 1.0}
        name, kind, factor, module = "", "", 1.0, None
        for node in self._carried[start + 1 : end + 1]:
            name, kind, factor, module = self._node(node, bounds)
            bounds[node] = factor
        return Layer(name, kind, factor, self._carried[end], module if end == start + 1 else None)

    def _node(self, node: fx.Node, bounds: Mapping[fx.Node, float]) -> tuple[str, str, float, nn.Module | None]:
        """(name, kind, bound seen from the last cut, module) of one node."""
        sources = [one for one in node.all_input_nodes if one in self._position]
        if node.op == "call_module" and len(sources) == 1 and node.args and node.args[0] is sources[0]:
            module = self._root.get_submodule(str(node.target))
            return str(node.target), type(module).__name__, bounds[sources[0]] * self._module(node, module), module
        kind = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        factor = None
        if node.op in ("call_function", "call_method"):
            factor = self._operation(node, sources, bounds)
        if factor is None:
            raise ValueError(f"no Lipschitz bound is known for the operation '{kind}' ({node.name}) of the network")
        if len(sources) > 1:
            kind = CONCATENATION if node.target in _CONCATENATE else SUM
        return node.name, kind, factor, None

    def _module(self, node: fx.Node, module: nn.Module) -> float:
        rule = module_rule(module, self._known)
        if rule is None:
            raise ValueError(
                f"no Lipschitz bound is known for layer '{node.target}' ({type(module).__name__}); give one in rules"
            )
        source = node.all_input_nodes[0]
        return rule(module, tuple(self._values[source].shape[1:])) if self._bounds else math.nan

    def _operation(self, node: fx.Node, sources: list[fx.Node], bounds: Mapping[fx.Node, float]) -> float | None:
        target, first = node.target, bounds[sources[0]]
        size = self._values[node].numel()
        # a tensor that is broadcast is repeated
        own = [bounds[one] * math.sqrt(max(1.0, size / self._values[one].numel())) for one in sources]
        arguments = [self._values.get(a, a) if isinstance(a, fx.Node) else a for a in node.args]
        constants = [a for a, raw in zip(arguments, node.args, strict=True) if raw not in sources]
        if target in _ADD | _SUBTRACT and not node.kwargs:
            occurrences = sum(1 for a in node.args if a in sources)  # x + x is twice x
            return sum(own) if occurrences == len(own) else 2 * own[0]
        if target in _CONCATENATE:
            parts = node.args[0]
            return math.sqrt(sum(bounds[part] ** 2 for part in parts if part in bounds))  # pyright: ignore
        if len(sources) > 1:
            return None
        if target in _NEGATE:
            return first
        if target in _MEAN:
            return first * math.sqrt(size / self._values[sources[0]].numel())
        if target in _MULTIPLY and len(constants) == 1:
            return own[0] * _largest(constants[0])
        if target in _DIVIDE and len(constants) == 1 and node.args[0] in sources:
            return own[0] * _largest(1 / torch.as_tensor(constants[0], dtype=torch.float64))
        if isinstance(node.args[0], fx.Node) and node.args[0] in sources:
            values = {name: self._values.get(v, v) if isinstance(v, fx.Node) else v for name, v in node.kwargs.items()}
            module = functional(target, arguments[1:], values)
            rule = None if module is None else module_rule(module, self._known)
            if rule is not None:
                return first * rule(module, tuple(self._values[sources[0]].shape[1:]))
        return None


class _Tracer(fx.Tracer):
    """Traces into modules of unknown kind, never into one that has a rule."""

    def __init__(self, known: dict[type[nn.Module], LayerRule]) -> None:
        super().__init__()
        self._known = known

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m, self._known)


def _is_leaf(module: nn.Module, known: dict[type[nn.Module], LayerRule]) -> bool:
    return module_rule(module, known) is not None or fx.Tracer().is_leaf_module(module, "")


def _graph(root: nn.Module, known: dict[type[nn.Module], LayerRule]) -> fx.Graph:
    try:
        return _Tracer(known).trace(root)
    except Exception as error:  # tracing runs the module's own code
        raise ValueError(
            f"{type(root).__name__} cannot be traced by torch.fx, so its layers are not known ({_first_line(error)}); "
            "give the part that cannot be traced a bound in rules"
        ) from error


class _Recorder(fx.Interpreter):
    """Runs a graph and tells of every node's value."""

    def __init__(self, root: nn.Module, graph: fx.Graph, record: Callable[[fx.Node, Any], Any]) -> None:
        super().__init__(root, graph=graph)
        self._record = record

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self._record(n, value)
        return value


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    before = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in before:
            module.training = training


def _is_plain(value: Any) -> bool:
    """Sizes and the like: made from the input's shape, not from its values."""
    return not isinstance(value, Tensor) and not (
        isinstance(value, tuple | list) and any(isinstance(one, Tensor) for one in value)
    )


def _largest(value: Any) -> float:
    return float(torch.as_tensor(value, dtype=torch.float64).abs().max())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
