"""Draw the result of an attack: the share of fooled images against the distortion, and a sheet of examples."""

from __future__ import annotations

import io
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from intriguing.attacks.strength import robust_share
from intriguing.metrics import difference, distortion

_WIDTH, _CURVE_HEIGHT = 8.0, 3.2  # inches


class Drawing(Figure):
    """A matplotlib figure that shows itself in a notebook, without pyplot's global state."""

    def _repr_png_(self) -> bytes:
        """Render the figure as PNG."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def draw(title: str, sizes: Tensor, num: int, sheet: tuple[Tensor, Tensor] | None) -> Drawing:
    """Draw the result of an attack; see `AttackResult.plot`.

    Args:
        title: of the curve.
        sizes: distortions of the successful examples.
        num: number of images attacked.
        sheet: originals and adversarial examples (M, ...) to show; None for no sheet.

    Returns:
        The figure.
    """
    columns = 0 if sheet is None else len(sheet[0])
    height = 3 * _WIDTH / max(columns, 4) if columns else 0.0
    figure = Drawing(figsize=(_WIDTH, _CURVE_HEIGHT + height), layout="constrained")
    FigureCanvasAgg(figure)
    if sheet is None or not columns:
        _draw_curve(figure.subplots(), title, sizes, num)
        return figure
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(_CURVE_HEIGHT, height))[:, 0]
    _draw_curve(above.subplots(), title, sizes, num)
    _draw_sheet(below.subplots(3, columns, squeeze=False), *sheet)
    return figure


def fooled_curve(sizes: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Compute the share of images that are fooled within a distortion.

    Args:
        sizes: (M,), distortions of the successful examples; 0 where the image was misclassified unperturbed.
        num: number of images attacked, of which failed ones are never fooled.

    Returns:
        The distortions (M,) in ascending order, and the share of all images fooled at or below each.
    """
    ordered = sizes.double().sort().values
    return ordered, torch.arange(1, len(ordered) + 1, dtype=torch.float64) / max(num, 1)


def draw_security_curve(l2: Tensor, axes: Axes | None, label: str) -> Figure:
    """Draw the robust accuracy against the L2 distance; see `AttackResult.plot_security_curve`.

    Args:
        l2: (N,), distances of the examples; 0 where the image is wrong unperturbed, inf where there is none.
        axes: where to draw; None for a figure of its own.
        label: of the curve, for a legend.

    Returns:
        The figure.
    """
    if axes is None:
        figure = Drawing(figsize=(_WIDTH, _CURVE_HEIGHT), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.set(xlabel="eps, L2 norm of the perturbation", ylabel="robust accuracy (%)", ylim=(0, 102))
        axes.grid(alpha=0.4)
    radii = torch.cat([torch.zeros(1, dtype=torch.float64), l2[l2.isfinite()].double()]).unique()
    end = 1.05 * float(radii[-1]) or 1.0
    end = max(end, axes.get_xlim()[1]) if axes.lines else end
    radii = torch.cat([radii, radii.new_tensor([end])])
    axes.step(radii.tolist(), (100 * robust_share(l2, radii)).tolist(), where="post", label=label or None)
    axes.set_xlim(0, end)
    if label:
        axes.legend()
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _draw_curve(axes: Axes, title: str, sizes: Tensor, num: int) -> None:
    ordered, shares = fooled_curve(sizes, num)
    end = float(ordered.max()) * 1.05 if len(ordered) and float(ordered.max()) > 0 else 1.0
    already, later = float((ordered == 0).sum()) / max(num, 1), ordered > 0
    x = [0.0, *ordered[later].tolist(), end]
    y = [already, *shares[later].tolist(), float(shares[-1]) if len(shares) else 0.0]
    axes.step(x, [100 * share for share in y], where="post", color="#0072b2")
    axes.set(xlim=(0, end), ylim=(0, 102), xlabel="distortion (per-pixel RMS)", ylabel="images fooled (%)")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.4)


def is_image(batch: Tensor) -> bool:
    """Return whether a batch holds images with 1 or 3 channels, (N, H, W) or (N, C, H, W)."""
    return batch.dim() == 3 or (batch.dim() == 4 and batch.shape[1] in (1, 3))


def _draw_sheet(axes: Any, inputs: Tensor, adv_inputs: Tensor) -> None:
    """Draw originals, adversarial examples and their differences, scaled so that the largest fills the range."""
    change = difference(inputs, adv_inputs)
    factor = 0.5 / max(float(change.abs().max()), 1e-12)
    words = "original", "adversarial", f"difference x{factor:.2g}"
    sizes = distortion(inputs, adv_inputs).tolist()
    for line, images in enumerate((inputs, adv_inputs, 0.5 + factor * change)):
        for column, image in enumerate(images.float().clamp(0, 1)):
            place = axes[line][column]
            pixels = image.movedim(0, -1) if image.dim() == 3 else image
            place.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1)
            place.set(xticks=[], yticks=[])
            if column == 0:
                place.set_ylabel(words[line], fontsize=8)
            if line == 0:
                place.set_title(f"{sizes[column]:.3g}", fontsize=8)
