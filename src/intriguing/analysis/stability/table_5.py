"""Table 5: upper bounds of AlexNet's layers, by the printed and the corrected formula, beside the exact norms."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from intriguing.analysis import paper
from intriguing.analysis.inputs import Network
from intriguing.models import Classifier
from intriguing.results import Cell, Quantity, Table
from intriguing.spectral import operator_norm
from intriguing.spectral.lipschitz import trace

PRINTED, FORMULA, CORRECTED, EXACT = "as printed", "printed formula", "corrected", "exact"
BOUND = Quantity(name="bound")


def has_table_5_layers(module: nn.Module) -> bool:
    """Check whether a network has five convolutions and three linear layers, like AlexNet."""
    kinds = ["fc" if isinstance(one, nn.Linear) else "conv" for one in module.modules() if is_weighted(one)]
    return kinds == [row.split()[0].rstrip("0123456789") for row in paper.TABLE_5]


def is_weighted(module: nn.Module | None) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Check whether a layer is a Linear layer or a convolution."""
    return isinstance(module, nn.Linear | nn.Conv2d)


def table_5(network: Network) -> Table:
    """Make Table 5: the paper's numbers, its formula as printed, and the corrected bounds, with the products.

    Args:
        network: AlexNet.
    """
    shape = cast(Classifier, network.module).input_shape
    traced = trace(network.module, shape)
    shapes = dict(traced.calls)
    bounds = [layer for layer in traced.layers if layer.bound != 1 or is_weighted(layer.module)]
    if convolutions_alone(network):
        last = max(i for i, layer in enumerate(bounds) if isinstance(layer.module, nn.Conv2d))
        above = [i for i, layer in enumerate(bounds) if i > last and isinstance(layer.module, nn.Linear)]
        bounds = bounds[: above[0]]  # with the pool above the last convolution
    weighted = [(layer.module, layer.bound) for layer in bounds if is_weighted(layer.module)]
    rows = tuple(paper.TABLE_5)[: len(weighted)]
    columns = {
        PRINTED: [paper.TABLE_5[row] for row in rows],
        FORMULA: [printed_formula(module, shapes[module], bound) for module, bound in weighted],
        CORRECTED: [bound for _, bound in weighted],
        EXACT: [
            exact_norm(module, shapes[module]) if isinstance(module, nn.Conv2d) else bound for module, bound in weighted
        ],
    }
    cells = {
        (row, name): bound_cell(v) for name, values in columns.items() for row, v in zip(rows, values, strict=True)
    }
    product, whole = "product of these layers", "product with pools and normalisation"
    pools = math.prod(layer.bound for layer in bounds if layer.kind == "MaxPool2d")
    products = {PRINTED: math.prod(columns[PRINTED]), FORMULA: math.prod(columns[FORMULA])}
    for name, value in products.items():
        cells[product, name], cells[whole, name] = bound_cell(value), bound_cell(value * pools)
    for name in (CORRECTED, EXACT):
        cells[product, name] = bound_cell(math.prod(columns[name]))
    cells[whole, CORRECTED] = bound_cell(math.prod(layer.bound for layer in bounds))
    return Table(
        key="table5",
        number="Table 5",
        title="Upper bounds of AlexNet's layers",
        caption=f"Bounds of the operator norm of each layer. The columns after the first are of {_origin(network)}; "
        "the first is of the paper's own trained network, so the columns show the effect of the misprints, not an "
        "agreement.",
        row_header="layer",
        rows=(*rows, product, whole),
        columns=(PRINTED, FORMULA, CORRECTED, EXACT),
        cells=cells,
        sample=f"{shape[1]}x{shape[2]} images",
        method="operator norms by Fourier blocks; exact: the largest singular value by Lanczos' method; float64",
        source="Table 5; its caption prints neither product",
        notes=(
            "The printed formula has the factor s^-2 for a convolution of stride s and circular padding; s^-1 is "
            "right, so it understates the first layer by 4.",
            "Corrected: the factor s^-1, and the layer's own zero padding, bounded by the circular norm on the torus "
            "that is large enough to hold it.",
            "Exact: the norm of the layer itself on these images, with its own zero padding, approached from below. It "
            "shows how tight the bound is.",
            *_sizes([module for module, _ in weighted], rows),
            f"Overlapping 3x3 pools of stride 2 are no contractions, each at most doubles: a factor of {pools:g}. The "
            "last row's third column also contains the response norms (or the input's normalisation).",
        ),
        runs=(network.name,),
    )


def convolutions_alone(network: Network) -> bool:
    """Check whether a network's convolutions came from a file, so that its linear layers are random."""
    return bool(network.id.get("model.settings.features"))


def _sizes(modules: Sequence[nn.Module], rows: Sequence[str]) -> tuple[str, ...]:
    """Say where the network's layers have other sizes than the rows name; nothing where they have not."""
    found = [
        f"{row.split()[0]} {module.in_channels}x{'x'.join(map(str, module.kernel_size))}x{module.out_channels}"
        for row, module in zip(rows, modules, strict=True)
        if isinstance(module, nn.Conv2d)
    ]
    if all(row.split(",")[0] == own for row, own in zip(rows, found, strict=False)):
        return ()
    return (f"The rows name the paper's sizes; this network's are {', '.join(found)}.",)


def exact_norm(layer: nn.Conv2d, shape: Sequence[int], *, tolerance: float = 1e-4) -> float:
    """Compute the largest singular value of a convolution on images of one size, with its own padding.

    Args:
        layer: the convolution; its bias plays no part.
        shape: (C, H, W) of its input.
        tolerance: relative accuracy of Lanczos' method, which approaches the value from below.
    """
    linear = copy.deepcopy(layer).double().requires_grad_(False)
    linear.bias = None

    def gram(vector: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).view(1, *shape)
        outputs, pull, *_ = torch.func.vjp(linear, images)
        return cast(Tensor, pull(outputs)[0]).flatten().numpy()

    size = math.prod(shape)
    start = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).numpy()
    lanczos: Any = eigsh  # the type stubs declare the tolerance as a whole number, and hide the operator's arguments
    operator: Any = LinearOperator
    gram_of = operator((size, size), matvec=gram, dtype=np.float64)
    return math.sqrt(float(lanczos(gram_of, k=1, v0=start, tol=tolerance, return_eigenvectors=False)[0]))


def _origin(network: Network) -> str:
    """Describe the network of Table 5 by its training."""
    if network.id.get("trainer.max_epochs", 1):
        return f"{network.label}, trained on {network.data}"
    if network.id.get("model.name") == "alexnet":
        return "Krizhevsky's AlexNet with the random weights it starts from (Gaussian, stddev .01), not trained"
    if convolutions_alone(network):
        return "the five convolutions of torchvision's AlexNet with trained weights"
    weights = network.id.get("model.settings.weights")
    words = "its published weights" if weights == "default" else weights or "random weights, not trained"
    return f"torchvision's AlexNet with {words}"


def printed_formula(layer: nn.Module, shape: tuple[int, ...], bound: float) -> float:
    """Compute the paper's formula: for a convolution the circular norm with s^-2 instead of s^-1; else the bound."""
    if isinstance(layer, nn.Conv2d):
        return operator_norm(layer, shape) / math.sqrt(math.prod(layer.stride))
    return bound


def bound_cell(value: float, runs: tuple[str, ...] = ()) -> Cell:
    """Make the cell of one bound."""
    return Cell(quantity=BOUND, value=value, interval=None, n=1, runs=runs)


def table_5_summary(table: Table) -> str:
    """Say by how much the printed formula understates the first layer's bound."""
    first = table.rows[0]
    ratio = table.cells[first, CORRECTED].value / table.cells[first, FORMULA].value
    return f"Table 5: the printed formula understates the bound of AlexNet's first convolution by {ratio:.2f}."
