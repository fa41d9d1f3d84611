"""Draw the result of an attack: the share of fooled images against the distortion, and a sheet of examples."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from intriguing.metrics import difference

if TYPE_CHECKING:
    from intriguing.attacks.result import AttackResult

_WIDTH, _CURVE_HEIGHT = 8.0, 3.2  # inches
_ROWS = "original", "adversarial"


class Drawing(Figure):
    """A matplotlib figure that shows itself in a notebook, without pyplot's global state."""

    def _repr_png_(self) -> bytes:
        """Render the figure as PNG."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def draw(result: AttackResult, num_images: int) -> Drawing:
    """Draw a result; see `AttackResult.plot`."""
    rows = _examples(result, num_images)
    height = 3 * _WIDTH / max(len(rows), 4) if len(rows) else 0.0
    figure = Drawing(figsize=(_WIDTH, _CURVE_HEIGHT + height), layout="constrained")
    FigureCanvasAgg(figure)
    if not len(rows):
        _draw_curve(figure.subplots(), result)
        return figure
    above, below = figure.subfigures(2, 1, height_ratios=(_CURVE_HEIGHT, height))
    _draw_curve(above.subplots(), result)
    _draw_sheet(below.subplots(3, len(rows), squeeze=False), result, rows)
    return figure


def fooled_curve(result: AttackResult) -> tuple[Tensor, Tensor]:
    """Compute the share of images that are fooled within a distortion.

    Images that meet the goal unperturbed count from distortion 0 on; failed ones never.

    Args:
        result: the result of an attack.

    Returns:
        Distortions (M,) in ascending order, and the share of all images (M,) fooled at or below each.
    """
    sizes = result.distortion[result.success].detach().cpu().double().sort().values
    return sizes, torch.arange(1, len(sizes) + 1, dtype=torch.float64) / max(len(result), 1)


def _draw_curve(axes: Axes, result: AttackResult) -> None:
    sizes, shares = fooled_curve(result)
    end = float(sizes.max()) * 1.05 if len(sizes) and float(sizes.max()) > 0 else 1.0
    already = float((sizes == 0).sum()) / max(len(result), 1)
    later = sizes > 0
    x = [0.0, *sizes[later].tolist(), end]
    y = [already, *shares[later].tolist(), float(shares[-1]) if len(shares) else 0.0]
    axes.step(x, [100 * share for share in y], where="post", color="#0072b2")
    axes.set(xlim=(0, end), ylim=(0, 102), xlabel="distortion (per-pixel RMS)", ylabel="images fooled (%)")
    axes.set_title(repr(result).removeprefix("AttackResult(").removesuffix(")"), fontsize=9)
    axes.grid(alpha=0.4)


def _examples(result: AttackResult, num_images: int) -> list[int]:
    """Choose rows of perturbed examples, evenly from the smallest distortion to the largest."""
    if result.inputs is None or not _is_image(result.adv_inputs):
        return []
    found = (result.success & (result.distortion > 0)).nonzero().squeeze(1)
    ordered = found[result.distortion[found].argsort(stable=True)].tolist()
    if len(ordered) <= num_images:
        return ordered
    step = (len(ordered) - 1) / max(num_images - 1, 1)
    return [ordered[round(place * step)] for place in range(num_images)]


def _is_image(batch: Tensor) -> bool:
    return batch.dim() == 3 or (batch.dim() == 4 and batch.shape[1] in (1, 3))


def _draw_sheet(axes: list[list[Axes]], result: AttackResult, rows: list[int]) -> None:
    """Draw originals, adversarial examples and their differences, which are scaled to fill the range of grey."""
    assert result.inputs is not None
    inputs, adv_inputs = result.inputs[rows].detach().cpu(), result.adv_inputs[rows].detach().cpu()
    change = difference(inputs, adv_inputs)
    factor = 0.5 / float(change.abs().max())
    words = (*_ROWS, f"difference x{factor:.2g}")
    for line, images in enumerate((inputs, adv_inputs, 0.5 + factor * change)):
        for column, image in enumerate(images.float().clamp(0, 1)):
            place = axes[line][column]
            place.imshow(image.movedim(0, -1) if image.dim() == 3 else image, cmap="gray", vmin=0, vmax=1)
            place.set(xticks=[], yticks=[])
            if column == 0:
                place.set_ylabel(words[line], fontsize=8)
            if line == 0:
                place.set_title(f"{float(result.distortion[rows[column]]):.3g}", fontsize=8)
