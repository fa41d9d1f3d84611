"""Record the computation of a network: one forward pass, as a list of operations without in-place writes and views.

The network itself runs, with its hooks, parametrisations and whatever its ``forward`` does. `torch.func.functionalize`
turns writes in place, through views and old names too, into new tensors, and a dispatch mode below it sees each
operation of PyTorch that is left. So nothing that changes a number is missed; what PyTorch does not see (values read as
Python numbers, NumPy, random numbers) is found and refused.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_LIBRARY = torch.library.Library("intriguing", "DEF")
_LIBRARY.define("layer(Tensor x, int index) -> Tensor")
_LAYER = torch.ops.intriguing.layer.default
_ALIASES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_ALIASES = (*_ALIASES, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""Modules that return their input, or a view of it, in evaluation mode."""
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_CONSTANT = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}
_CONSTANT |= {"new_empty_strided", "fill", "zero"}
"""Operations whose result does not depend on the values of their input."""
_SAME = {"alias", "detach", "clone", "lift_fresh", "copy"}
_KINDS: dict[str, str] = {"to_copy": "to", "unsafe_view": "view", "local_scalar_dense": "item", "addmm": "linear"}
_COMPOSED: dict[Any, Callable[..., nn.Module]] = {
    F.local_response_norm: lambda *a, **k: nn.LocalResponseNorm(*a, **k),
    F.softsign: lambda: nn.Softsign(),
    F.tanhshrink: lambda: nn.Tanhshrink(),
    F.rms_norm: lambda shape, weight=None, eps=None: nn.RMSNorm(list(shape), eps, elementwise_affine=False),
}
"""Functions that PyTorch makes of several operations, and the module that does the same."""


@dataclass(eq=False)
class Node:
    """Hold a tensor that depends on the network's input, and the operation that made it.

    Attributes:
        name: of the layer in the network, or of the operation.
        kind: name of the operation, of a layer by its own rule its class.
        func: the operation; None for the network's input and for a layer that is one by its own rule.
        arguments: of the operation, by name; tensors that depend on the input are nodes. Of a layer its input, and the
            weights that it had.
        index: which of the operation's outputs it is.
        value: the tensor, (2, ...) or (N, ...).
        module: the layer that it is, if it is one.
        factor: bound of a layer that is one by its own rule.
    """

    name: str
    kind: str
    func: Any
    arguments: dict[str, Any]
    index: int
    value: Tensor
    module: nn.Module | None = None
    factor: float = math.nan

    @property
    def sources(self) -> list[Node]:
        """The nodes among the arguments, as often as they occur."""
        return [one for one in tree_leaves(self.arguments) if isinstance(one, Node)]


@dataclass(frozen=True)
class Recording:
    """Hold the operations of one forward pass.

    Attributes:
        nodes: those that the output needs, in order, the input first. The last is the output, unless that is constant.
        output: the network's output.
        calls: every known layer that ran, with the shape of one of its inputs, in order.
    """

    nodes: tuple[Node, ...]
    output: Tensor
    calls: tuple[tuple[nn.Module, tuple[int, ...]], ...]


Rule = Callable[[Any, Tensor], float]
RuleOf = Callable[[nn.Module], Rule | None]


def record(model: Callable[..., Any], inputs: Tensor, rule_of: RuleOf, *, bounds: bool = True) -> Recording:
    """Run a network once, in evaluation mode, and record its operations; the network does not change.

    Args:
        model: the network; a call with one tensor returns one tensor.
        inputs: (N, ...), not written to.
        rule_of: the rule of a module that is one operation, whatever it does inside; None of any other.
        bounds: whether to apply the rules.

    Raises:
        ValueError: the network computes with values that PyTorch does not see, or fails on the input.
    """
    copy = inputs.detach().clone()
    recorder = _Recorder(copy, rule_of, bounds)
    with plain(model), untouched(model):
        for name, module in modules(model):
            recorder.adopt(name, module)
        with _Functions(recorder), recorder:
            try:
                output = torch.func.functionalize(model, remove="mutations_and_views")(copy)
            except Exception as error:  # this runs the network's own code
                raise recorder.failure or error from error
    if recorder.failure:
        raise recorder.failure
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the network's last layer is not its output: it returns {_article(type(output).__name__)}, not one tensor"
        )
    return recorder.recording(output)


class _Recorder(TorchDispatchMode):
    def __init__(self, inputs: Tensor, rule_of: RuleOf, bounds: bool) -> None:
        super().__init__()
        self._rule_of, self._bounds = rule_of, bounds
        self.nodes = [Node("input", "input", None, {}, 0, inputs.clone())]
        self.failure: ValueError | None = None
        self.label: tuple[str, nn.Module] | None = None  # of the next alias
        self._nodes: dict[int, Node] = {id(inputs): self.nodes[0]}  # of tensors, which `_alive` keeps
        self._alive: list[Any] = [inputs]
        self._owners: dict[int, set[int]] = {}  # the tensors that share a storage
        self._constants: set[int] = set()  # tensors that a node was made with
        self._layers: list[tuple[str, nn.Module, Callable[[Tensor], Any], Rule | None]] = []
        self._factors: dict[int, float] = {}  # of layers, by index
        self._numbers: dict[int, dict[str, Any]] = {}
        self._calls: list[tuple[nn.Module, tuple[int, ...]]] = []
        self._names: dict[str, int] = {}
        self._inside = False
        self._own(inputs)

    # -- layers ---------------------------------------------------------------------------------------------------

    def adopt(self, name: str, module: nn.Module) -> None:
        """Make a module that is one layer record itself whenever it runs; its hooks are recorded around it."""
        if type(module) in _WRAPPERS:
            module.__dict__["forward"] = module.module
        elif not isinstance(module, torch.jit.ScriptModule) and "forward" not in module.__dict__:
            rule = self._rule_of(module)
            named = type(module).__module__.startswith("torch.nn.") and not module._modules
            if rule is not None or named:
                module.__dict__["forward"] = self._forward_of(name or "0", module, rule)

    def _forward_of(self, name: str, module: nn.Module, rule: Rule | None) -> Callable[..., Any]:
        original = type(module).forward.__get__(module)
        index, known = self._add(name, module, original, rule), rule is not None

        def forward(*args: Any, **kwargs: Any) -> Any:
            given = [*args, *kwargs.values()]
            if self._inside or len(given) != 1 or not isinstance(given[0], Tensor):
                return original(*args, **kwargs)
            x, before = given[0], len(self.nodes)
            if not known or isinstance(module, _ALIASES):
                out = original(x)
                new = self.nodes[before:]
                if len(new) == 1 and new[0].module is None:
                    new[0].name, new[0].module = name, module
                elif known and isinstance(out, Tensor):
                    self.label = (name, module)
                    return torch.ops.aten.alias(out)
                return out
            out = torch.ops.intriguing.layer(x, index)
            return x.copy_(out) if getattr(module, "inplace", False) else out

        return forward

    def composed(self, module: nn.Module, x: Tensor) -> Tensor:
        """Run a module that stands for a function."""
        return torch.ops.intriguing.layer(x, self._add("", module, module.forward, self._rule_of(module)))

    def _add(self, name: str, module: nn.Module, original: Callable[[Tensor], Any], rule: Rule | None) -> int:
        self._layers.append((name or self._name(type(module).__name__.lower()), module, original, rule))
        return len(self._layers) - 1

    def _run_layer(self, x: Tensor, index: int) -> Tensor:
        name, module, original, rule = self._layers[index]
        copy, self._inside = x.clone(), True
        try:
            out = original(copy)
            if rule is not None and self._bounds:  # now, while the weights are those that the layer's hooks have made
                self._factors[index] = rule(module, x)
            if isinstance(module, nn.Linear | nn.modules.batchnorm._BatchNorm):
                names = ("weight", "bias", "running_mean", "running_var", "eps")
                self._numbers[index] = {name: getattr(module, name, None) for name in names}
        except ValueError as error:
            raise self._fail(str(error)) from error
        finally:
            self._inside = False
        if not isinstance(out, Tensor):
            raise self._fail(f"expected one tensor from layer '{name}' ({type(module).__name__})")
        if copy._version and not getattr(module, "inplace", False):
            raise self._fail(f"layer '{name}' ({type(module).__name__}) writes into its input")
        if id(x) in self._nodes:
            self._calls.append((module, tuple(x.shape[1:])))
            self._constants.update(id(one) for one in (*module.parameters(), *module.buffers()))
        return out.clone() if out is copy else out

    # -- operations -----------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        carries = any(id(one) in self._nodes for one in given)
        kind = operation_name(func)
        written = _written(func, args, kwargs)
        for one in written:
            if id(one) in self._constants:
                raise self._fail(f"'{kind}' writes into a tensor that the network has computed with before")
            if len(self._owners.get(_storage(one), ())) > (id(one) in self._owners.get(_storage(one), ())):
                raise self._fail(f"'{kind}' works in place on a part of a tensor")
        arguments = self._arguments(func, args, kwargs)
        out = self._run_layer(*args) if func is _LAYER else func(*args, **kwargs)
        outputs = list(out) if isinstance(out, tuple | list) else [out]
        tensors = [one for one in outputs if isinstance(one, Tensor)]
        self._alive.append((given, tensors))
        for one in tensors:
            self._own(one)
        if carries and kind in _CONSTANT and not any(id(one) in self._nodes for one in given[1:]):
            for one in written:
                self._nodes.pop(id(one), None)
        elif carries:
            if any(one is not None and not isinstance(one, Tensor) for one in outputs):
                raise self._fail(
                    f"the network cannot be traced: '{kind}' reads values of a tensor as Python numbers, and what "
                    "it does may depend on them"
                )
            self._constants.update(id(one) for one in given if id(one) not in self._nodes)
            for index, one in enumerate(tensors or written):
                self._nodes[id(one)] = self._node(func, kind, arguments, index, one, bool(written))
        return out

    def _node(self, func: Any, kind: str, arguments: dict[str, Any], index: int, value: Tensor, written: bool) -> Node:
        if func is _LAYER:
            name, module, *_ = self._layers[arguments["index"]]
            numbers = self._numbers.get(arguments["index"], {})
            node = Node(name, type(module).__name__, None, {"x": arguments["x"], **numbers}, index, value, module)
            node.factor = self._factors.get(arguments["index"], math.nan)
        else:
            same = _same(kind, arguments, value)
            if same is not None and not (kind == "alias" and self.label):
                return same  # equal numbers: no operation
            node = Node(self._name(kind), kind, func, arguments, index, value.clone() if written else value)
            if kind == "alias" and self.label:
                (node.name, node.module), self.label = self.label, None
        self.nodes.append(node)
        return node

    def _arguments(self, func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        names = [argument.name for argument in func._schema.arguments]
        named = dict(zip(names, args, strict=False)) | kwargs
        return {key: tree_map(lambda one: self._nodes.get(id(one), one), value) for key, value in named.items()}

    def _own(self, tensor: Tensor) -> None:
        self._owners.setdefault(_storage(tensor), set()).add(id(tensor))

    def _name(self, kind: str) -> str:
        self._names[kind] = self._names.get(kind, -1) + 1
        return f"{kind}_{self._names[kind]}" if self._names[kind] else kind

    def _fail(self, words: str) -> ValueError:
        self.failure = self.failure or ValueError(words)  # kept: the network may catch it
        return self.failure

    def recording(self, output: Tensor) -> Recording:
        """Return the nodes that the output depends on."""
        last = self._nodes.get(id(output))
        needed: set[int] = set()
        waiting = [] if last is None else [last]
        while waiting:
            node = waiting.pop()
            if id(node) not in needed:
                needed.add(id(node))
                waiting += node.sources
        nodes = tuple(node for node in self.nodes if node is self.nodes[0] or id(node) in needed)
        return Recording(nodes, output, tuple(self._calls))


class _Functions(TorchFunctionMode):
    """Intercept functions that PyTorch composes of several operations."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist):
            raise self._recorder._fail(
                "the network cannot be traced: it reads the values of a tensor outside of PyTorch"
            )
        if func in _COMPOSED and (args or "input" in kwargs):
            rest = {name: value for name, value in kwargs.items() if name != "input"}
            x, *more = (*args, kwargs["input"]) if "input" in kwargs else args
            out = self._recorder.composed(_COMPOSED[func](*more, **rest), x)
            given = inspect.signature(func).bind(*args, **kwargs).arguments
            weight = given.get("weight") if func is F.rms_norm else None  # it may depend on the input
            return out if weight is None else out * weight
        if func is F.pad:
            x, pad, mode, _ = _pad(*args, **kwargs)
            if mode == "circular":
                return self._recorder.composed(_circular_pad(pad), x)
        return func(*args, **kwargs)


def _pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> tuple:
    return input, tuple(pad), mode, value


def _circular_pad(pad: Sequence[int]) -> nn.Module:
    return (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d)[len(pad) // 2 - 1](pad)  # pyright: ignore


def operation_name(func: Any) -> str:
    """Return the name of an operation as users write it: no underscore at its ends, no "_copy"."""
    name: str = func._schema.name.split("::")[1].strip("_").removeprefix("native_")
    name = _KINDS.get(name) or name
    name = name.removesuffix("_copy").removesuffix("_with_indices").strip("_")
    return _KINDS.get(name) or name


def _same(kind: str, arguments: dict[str, Any], value: Tensor) -> Node | None:
    """Return the node that a result repeats."""
    node = arguments.get("src" if kind == "copy" else next(iter(arguments), ""))
    if kind in _SAME and isinstance(node, Node):
        return node if node.value.shape == value.shape and node.value.dtype == value.dtype else None
    return None


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """List the tensors that an operation writes into."""
    if not func._schema.is_mutable:
        return []
    names = [argument.name for argument in func._schema.arguments]
    named = dict(zip(names, args, strict=False)) | kwargs
    writes = {one.name for one in func._schema.arguments if one.alias_info is not None and one.alias_info.is_write}
    return [one for one in tree_leaves([named.get(name) for name in writes]) if isinstance(one, Tensor)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


# -- the network around a run ---------------------------------------------------------------------------------------


def modules(model: Any) -> list[tuple[str, nn.Module]]:
    """List names and modules of a network; none of a plain function."""
    return list(model.named_modules()) if isinstance(model, nn.Module) else []


def floating(model: Any) -> Tensor:
    """Return the first floating-point parameter or buffer of a network, for its type and device, or an empty tensor."""
    if isinstance(model, nn.Module):
        for one in (*model.parameters(), *model.buffers()):
            if one.is_floating_point():
                return one
    return torch.zeros(0)


@contextmanager
def plain(model: Any) -> Iterator[None]:
    """Disable gradients, inference mode, autocast and compilation inside the context."""
    compiled = "torch._dynamo" in sys.modules and any(hasattr(module, "_orig_mod") for _, module in modules(model))
    stance = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    device = floating(model).device.type
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False), stance:
        yield


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Put the network into evaluation mode with copies of its buffers inside the context, and restore it afterwards.

    Raises:
        ValueError: a lazy layer that has not seen an input yet.
    """
    saved: list[tuple[nn.Module, dict[str, Any]]] = []
    scripts = [module for _, module in modules(model) if isinstance(module, torch.jit.ScriptModule)]
    scripted = [(module, getattr(module, "training", None)) for module in scripts]  # a frozen one has no mode
    copies: dict[int, Tensor | None] = {}
    for name, module in modules(model):
        lazy = next((one for one in module._parameters.values() if one is not None and nn.parameter.is_lazy(one)), None)
        if lazy is not None:
            words = f"layer '{name}' ({type(module).__name__})" if name else type(module).__name__
            raise ValueError(f"{words} has no weights yet: run the network once first")
        if isinstance(module, torch.jit.ScriptModule):
            continue
        saved.append((module, dict(module.__dict__)))
        for part in module._buffers.values():
            copies.setdefault(id(part), None if part is None else part.detach().clone())
        module.__dict__["_buffers"] = {key: copies[id(part)] for key, part in module._buffers.items()}
        module.__dict__["_parameters"] = dict(module._parameters)
    try:
        if isinstance(model, nn.Module):
            model.eval()
        yield
    finally:
        for module, training in scripted:
            if training is None:
                vars(module).pop("training", None)
            else:
                module.training = training
        for module, state in saved:
            module.__dict__.clear()
            module.__dict__.update(state)


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
