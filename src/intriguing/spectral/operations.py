"""Lipschitz bounds of PyTorch's own operations in the L2 norm, see `recording`: one rule for each kind.

A rule maps a node and the bounds of its sources, seen from somewhere before them, to the node's bound seen from there.
An operation without a rule is an error, never a 1.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from intriguing.spectral.eigenvalues import largest_singular_value
from intriguing.spectral.layer_bounds import MODULES, copies
from intriguing.spectral.operator_norm import Convolution, transposed_norm, zero_padded_norm
from intriguing.spectral.recording import Node

Bounds = Mapping[Node, float]
ADD, SUBTRACT = "add", ("sub", "rsub")
CONCATENATE = ("cat", "stack", "hstack", "vstack", "concat")


class Call:
    """Hold a node's arguments, and the bounds of those that are nodes."""

    def __init__(self, node: Node, bounds: Bounds) -> None:
        self.node, self.bounds = node, bounds
        self.first = next(iter(node.arguments), "")

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument that is not a node."""
        value = self.node.arguments.get(name, default)
        return default if value is None else value

    def constant(self, *names: str) -> bool:
        """Check that no other arguments than these depend on the network's input."""
        others = [value for name, value in self.node.arguments.items() if name not in names]
        return not any(isinstance(one, Node) for one in tree_leaves(others))

    def part(self, value: Any) -> float:
        """Bound an argument, times the root of its repetitions by broadcasting; 0 for a constant."""
        if not isinstance(value, Node):
            return 0.0
        return self.bounds[value] * math.sqrt(max(1.0, self.node.value.numel() / max(1, value.value.numel())))

    @property
    def x(self) -> Tensor:
        """The tensor that the first argument is."""
        return self.node.arguments[self.first].value

    @property
    def own(self) -> float:
        """The first argument's bound, as it is."""
        return self.bounds[self.node.arguments[self.first]]


Rule = Callable[[Call], float | None]


def operation_bound(node: Node, bounds: Bounds) -> float | None:
    """Bound a node that is an operation, from the bounds of its sources; None if no bound is known.

    Args:
        node: the node.
        bounds: of its sources.

    Raises:
        ValueError: an operation that jumps.
    """
    if not node.value.is_floating_point() and not node.value.is_complex():
        kind = f"'{node.kind}' ({node.name}), whose result is of type {str(node.value.dtype).removeprefix('torch.')},"
        raise ValueError(f"the operation {kind} jumps: it has no Lipschitz bound")
    rule = _RULES.get(node.kind)
    call = Call(node, bounds)
    if rule is None or (node.kind not in _SEVERAL and not call.constant(call.first)):
        return None
    return rule(call)


# -- sums and products ----------------------------------------------------------------------------------------------


def _sum(call: Call) -> float:
    """Bound a + alpha b, a - alpha b, and b - alpha a."""
    alpha = abs(float(call.get("alpha", 1)))
    a, b = call.part(call.get("self")), call.part(call.get("other"))
    return b + alpha * a if call.node.kind == "rsub" else a + alpha * b


def _product(call: Call) -> float | None:
    a, b = call.get("self"), call.get("other")
    if isinstance(a, Node) and isinstance(b, Node):
        return None
    return call.part(a) * _largest(b) if isinstance(a, Node) else call.part(b) * _largest(a)


def _quotient(call: Call) -> float | None:
    if call.get("rounding_mode") is not None:
        raise ValueError(
            f"the operation 'div' with rounding_mode='{call.get('rounding_mode')}' jumps: it has no Lipschitz bound"
        )
    if isinstance(call.get("other"), Node):
        return None
    return call.part(call.get("self")) * _largest(1 / torch.as_tensor(call.get("other")).double())


def _joined(call: Call) -> float:
    """Bound a concatenation; a source that occurs twice counts twice."""
    return math.sqrt(sum(call.part(one) ** 2 for one in call.node.sources))


def _concatenation(call: Call) -> float:
    return math.sqrt(sum(call.bounds[one] ** 2 for one in call.node.sources))


def _where(call: Call) -> float | None:
    return None if isinstance(call.get("condition"), Node) else _joined(call)


def _scatter(call: Call) -> float | None:
    """Bound a tensor in which a part is replaced by another; an index may occur only once."""
    if call.get("accumulate", False) or not call.constant("self", "src", "values"):
        return None
    src = call.get("src", call.get("values"))
    replaced = call.part(src) if "values" in call.node.arguments else call.bounds.get(src, 0.0)
    return math.hypot(call.bounds.get(call.get("self"), 0.0), replaced)


def _copy(call: Call) -> float:
    return call.part(call.get("src"))


def _lerp(call: Call) -> float | None:
    weight = call.get("weight")
    if isinstance(weight, Node):
        return None
    weight = torch.as_tensor(weight).double()
    return call.part(call.get("self")) * _largest(1 - weight) + call.part(call.get("end")) * _largest(weight)


def _matrix(call: Call) -> float | None:
    """Bound a product with a constant matrix, and the term added to it."""
    names = {"mm": ("self", "mat2"), "bmm": ("self", "mat2"), "mv": ("self", "vec"), "dot": ("self", "tensor")}
    names |= {"linear": ("mat1", "mat2"), "addmv": ("mat", "vec"), "baddbmm": ("batch1", "batch2")}
    pair = ("input", "weight") if "input" in call.node.arguments else names[call.node.kind]
    first, second = (call.get(name) for name in pair)
    if isinstance(first, Node) and isinstance(second, Node):
        return None
    node, constant = (first, second) if isinstance(first, Node) else (second, first)
    added = abs(float(call.get("beta", 1))) * call.part(call.get("self", call.get("bias")))
    added = 0.0 if pair[0] == "self" else added
    if not isinstance(node, Node):
        return added or None
    parts = constant if constant.dim() == 3 else [constant if constant.dim() == 2 else constant[None]]
    norm = max((largest_singular_value(one) for one in parts), default=0.0)
    return abs(float(call.get("alpha", 1))) * norm * call.bounds[node] + added


def _convolution(call: Call) -> float | None:
    if not isinstance(call.get("input"), Node) or not call.constant("input"):
        return None
    weight, axes = call.get("weight"), call.get("weight").dim() - 2
    stride, padding, dilation, more = (
        _per_axis(call.get(name), axes) for name in ("stride", "padding", "dilation", "output_padding")
    )
    conv, size = Convolution(weight, stride, dilation, call.get("groups")), call.x.shape[2:]
    if call.get("transposed"):
        return call.own * transposed_norm(conv, size, padding, more)
    return call.own * zero_padded_norm(conv, size, [(p, p) for p in padding])


# -- maps of one tensor ---------------------------------------------------------------------------------------------


def _copies(call: Call) -> float | None:
    """Bound views, slices, pads and other copies of entries."""
    arguments = {key: 0.0 if key == "value" else value for key, value in call.node.arguments.items()}
    return call.own * copies(lambda x: call.node.func(**(arguments | {call.first: x})), call.x, call.node.index)


def _total(call: Call) -> float:
    return call.own * math.sqrt(call.x.numel() / max(1, call.node.value.numel()))


def _average(call: Call) -> float:
    return call.own * math.sqrt(call.node.value.numel() / max(1, call.x.numel()))


def _values_only(call: Call) -> float:
    return call.own  # indices are integers, and never get here


def _length(call: Call) -> float | None:
    """Bound a norm over some axes."""
    order = float(call.get("ord", call.get("p", 2)))
    if order == 1:
        return _total(call)
    return call.own if order >= 2 else None


def _resized(call: Call) -> float:
    """Bound an interpolation, the product of one small matrix for each axis."""
    size, axes = call.get("output_size"), call.x.dim() - 2
    scales = call.get("scale_factors") or [call.get(name) for name in ("scales_d", "scales_h", "scales_w", "scales")]
    scales = ([None] * 3 + [one for one in scales if one is not None])[-axes:]
    names = {argument.name for argument in call.node.func._schema.arguments}
    norm = 1.0
    for axis, n in enumerate(call.x.shape[2:]):
        line = torch.eye(n, dtype=torch.float64).view(1, n, *(n if one == axis else 1 for one in range(axes)))
        out = [call.node.value.shape[2 + one] if one == axis else 1 for one in range(axes)]
        arguments = {key: value for key, value in call.node.arguments.items() if key in names}
        arguments |= {call.first: line, "output_size": out}
        for name, own in zip(("scales_d", "scales_h", "scales_w")[-axes:], range(axes), strict=True):
            if name in names:
                arguments[name] = arguments.get(name) if own == axis else None
        if size is None:
            arguments["scale_factors"] = [scales[one] if one == axis else 1.0 for one in range(axes)]
            arguments.pop("output_size")
        norm *= largest_singular_value(call.node.func(**arguments).flatten(2)[0].T)
    return call.own * norm


def _batch_norm(call: Call) -> float:
    """Bound batch normalisation by its running statistics; by those of the input it is a standardisation."""
    if call.get("training", False) or call.get("running_var") is None:
        return _standardisation(call)
    variance = call.get("running_var").double()
    scale = call.get("weight", torch.ones_like(variance)).double().abs()
    return call.own * _largest(scale / (variance + call.get("eps", call.get("epsilon"))).sqrt())


def _standardisation(call: Call) -> float:
    weight, eps = call.get("weight"), float(call.get("eps", call.get("epsilon", 0.0)))
    if eps <= 0:
        raise ValueError(f"the operation '{call.node.kind}' with eps={eps} has no Lipschitz bound")
    return call.own * (1.0 if weight is None else _largest(weight)) / math.sqrt(eps)


def _as(kind: type[nn.Module]) -> Rule:
    """Bound an operation as a module of this kind with its arguments."""

    def rule(call: Call) -> float:
        known = inspect.signature(kind).parameters
        renamed = {"approximate": "approximate", "lambd": "lambd", "min_val": "min_val", "max_val": "max_val"}
        arguments = {renamed.get(key, key): value for key, value in call.node.arguments.items() if key in known}
        arguments = {key: value for key, value in arguments.items() if value is not None and value != []}
        return call.own * MODULES[kind](kind(**arguments), call.x)

    return rule


def _elu(call: Call) -> float:
    below = call.get("alpha", 1) * call.get("scale", 1) * call.get("input_scale", 1)
    if call.get("input_scale", 1) <= 0:
        raise ValueError("the operation 'elu' with an input_scale of at most 0 has no Lipschitz bound")
    return call.own * max(abs(float(call.get("scale", 1))), abs(float(below)))


def _threshold(call: Call) -> float:
    if call.get("threshold") != call.get("value"):
        raise ValueError("the operation 'threshold' jumps where its value is not its threshold: no Lipschitz bound")
    return call.own


def _log_softmax(call: Call) -> float:
    return call.own * math.sqrt(call.x.shape[call.get("dim")])


def _times(factor: float) -> Rule:
    return lambda call: call.own * factor


_COPIES = (
    *("view", "reshape", "reshape_alias", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "slice"),
    *("select", "narrow", "split", "split_with_sizes", "unsafe_split", "unbind", "diagonal", "flip", "roll", "rot90"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "index_select", "index", "gather", "repeat"),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d"),
    *("replication_pad2d", "replication_pad3d", "as_strided", "unfold", "im2col", "alias", "clone", "detach"),
    *("lift_fresh", "contiguous", "tril", "triu", "masked_fill", "movedim", "take", "masked_select"),
)
_ONE = (
    *("relu", "tanh", "hardtanh", "relu6", "abs", "neg", "sin", "cos", "atan", "asinh", "clamp", "clamp_min"),
    *("clamp_max", "logsumexp", "amax", "amin", "max", "min", "sort", "topk", "to", "log_sigmoid_forward"),
    *("softshrink",),
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_COPIES, _copies),
    **dict.fromkeys(_ONE, _values_only),
    **dict.fromkeys((ADD, *SUBTRACT), _sum),
    **dict.fromkeys(CONCATENATE, _concatenation),
    **dict.fromkeys(("mul", "multiply"), _product),
    **dict.fromkeys(("div", "true_divide", "divide"), _quotient),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), _joined),
    "where": _where,
    "copy": _copy,
    **dict.fromkeys(
        ("slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter", "index_put"), _scatter
    ),
    "lerp": _lerp,
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "linear", "addmv", "baddbmm"), _matrix),
    "convolution": _convolution,
    "sum": _total,
    "mean": _average,
    "linalg_vector_norm": _length,
    "upsample_nearest1d": _resized,
    **dict.fromkeys(("upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d"), _resized),
    **dict.fromkeys(("upsample_nearest_exact1d", "upsample_nearest_exact2d", "upsample_nearest_exact3d"), _resized),
    **dict.fromkeys(("upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"), _resized),
    **dict.fromkeys(
        ("batch_norm", "cudnn_batch_norm", "batch_norm_legit", "batch_norm_legit_no_training"), _batch_norm
    ),
    **dict.fromkeys(("batch_norm_with_update", "miopen_batch_norm"), _batch_norm),
    **dict.fromkeys(("layer_norm", "group_norm"), _standardisation),
    "sigmoid": _times(1 / 4),
    "hardsigmoid": _times(1 / 6),
    "erf": _times(2 / math.sqrt(math.pi) * (1 + 1e-15)),
    "softmax": _times(1 / 2),
    "log_softmax": _log_softmax,
    "elu": _elu,
    "threshold": _threshold,
    "gelu": _as(nn.GELU),
    "celu": _as(nn.CELU),
    "silu": _as(nn.SiLU),
    "mish": _as(nn.Mish),
    "hardswish": _as(nn.Hardswish),
    "softplus": _as(nn.Softplus),
    "leaky_relu": _as(nn.LeakyReLU),
    "prelu_kernel": lambda call: call.own * max(1.0, _largest(call.get("weight"))),
    "max_pool2d": _as(nn.MaxPool2d),
    "max_pool3d": _as(nn.MaxPool3d),
    "avg_pool2d": _as(nn.AvgPool2d),
    "avg_pool3d": _as(nn.AvgPool3d),
    "adaptive_avg_pool2d": _as(nn.AdaptiveAvgPool2d),
    "adaptive_avg_pool3d": _as(nn.AdaptiveAvgPool3d),
    "adaptive_max_pool2d": _as(nn.AdaptiveMaxPool2d),
    "adaptive_max_pool3d": _as(nn.AdaptiveMaxPool3d),
}
_SEVERAL = {ADD, *SUBTRACT, *CONCATENATE, "mul", "multiply", "div", "true_divide", "divide", "maximum", "minimum"}
_SEVERAL |= {"fmax", "fmin", "copy", "where", "lerp", "mm", "bmm", "mv", "dot", "linear", "addmv", "baddbmm"}
_SEVERAL |= {"slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter", "index_put", "convolution"}
"""Operations that take a node in another place than the first, or several."""


def _largest(value: Any) -> float:
    value = torch.as_tensor(value)
    if not value.numel():
        return 0.0
    found = float(value.detach().double().abs().max())
    if math.isnan(found):
        raise ValueError("expected constants that are numbers, got nan in the network")
    return found


def _per_axis(values: Any, axes: int) -> tuple[int, ...]:
    values = tuple(int(one) for one in values)
    return values * axes if len(values) == 1 else values
