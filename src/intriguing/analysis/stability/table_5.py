"""Table 5: upper bounds of AlexNet's layers, by the printed and by the corrected formula."""

from __future__ import annotations

import math
from typing import TypeGuard, cast

from torch import nn

from intriguing.analysis import paper
from intriguing.analysis.inputs import Network
from intriguing.models import Classifier
from intriguing.results import Cell, Quantity, Table
from intriguing.spectral import operator_norm
from intriguing.spectral.lipschitz import trace

PRINTED, FORMULA, CORRECTED = "as printed", "printed formula", "corrected"
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
    weighted = [(layer.module, layer.bound) for layer in bounds if is_weighted(layer.module)]
    rows = tuple(paper.TABLE_5)[: len(weighted)]
    columns = {
        PRINTED: [paper.TABLE_5[row] for row in rows],
        FORMULA: [printed_formula(module, shapes[module], bound) for module, bound in weighted],
        CORRECTED: [bound for _, bound in weighted],
    }
    cells = {
        (row, name): bound_cell(v) for name, values in columns.items() for row, v in zip(rows, values, strict=True)
    }
    product, whole = "product of these layers", "product with pools and normalisation"
    pools = math.prod(layer.bound for layer in bounds if layer.kind == "MaxPool2d")
    products = {PRINTED: math.prod(paper.TABLE_5.values()), FORMULA: math.prod(columns[FORMULA])}
    for name, value in products.items():
        cells[product, name], cells[whole, name] = bound_cell(value), bound_cell(value * pools)
    cells[product, CORRECTED] = bound_cell(math.prod(columns[CORRECTED]))
    cells[whole, CORRECTED] = bound_cell(math.prod(layer.bound for layer in bounds))
    return Table(
        key="table5",
        number="Table 5",
        title="Upper bounds of AlexNet's layers",
        caption=f"Bounds of the operator norm of each layer. The last two columns are of {_origin(network)}; the first "
        "is of the paper's own trained network, so the columns show the effect of the misprints, not an agreement.",
        row_header="layer",
        rows=(*rows, product, whole),
        columns=(PRINTED, FORMULA, CORRECTED),
        cells=cells,
        sample=f"{shape[1]}x{shape[2]} images",
        method="operator norms by Fourier blocks; float64",
        source="Table 5; its caption prints neither product",
        notes=(
            "The printed formula has the factor s^-2 for a convolution of stride s and circular padding; s^-1 is "
            "right, so it understates the first layer by 4.",
            "Corrected: the factor s^-1, and the layer's own zero padding, bounded by the circular norm on the torus "
            "that is large enough to hold it.",
            f"Overlapping 3x3 pools of stride 2 are no contractions, each at most doubles: a factor of {pools:g}. The "
            "last row's third column also contains the response norms (or the input's normalisation).",
        ),
        runs=(network.name,),
    )


def _origin(network: Network) -> str:
    """Describe the network of Table 5 by its training."""
    if network.id.get("trainer.max_epochs", 1):
        return f"{network.label}, trained on {network.data}"
    if network.id.get("model.name") == "alexnet":
        return "Krizhevsky's AlexNet with the random weights it starts from (Gaussian, stddev .01), not trained"
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
