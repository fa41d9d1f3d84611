"""Hold what an attack found, and summarise, tabulate, save and draw it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from intriguing.attacks.saved_images import SavedImages, save_images
from intriguing.attacks.strength import move_on, robust_share
from intriguing.errors import UserError
from intriguing.metrics import distortion
from intriguing.nn import evaluating, pick_output
from intriguing.statistics.intervals import t_interval
from intriguing.storage import safetensors_file
from intriguing.validation import import_pandas

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from intriguing.attacks.drawing import Drawing
    from intriguing.attacks.network import Model

KEY = "attack_result"  # the header's entry in a file
FORMAT = 1
_BATCH = 256  # images judged at once


@dataclass(frozen=True, repr=False)
class AttackResult:
    """Hold the adversarial examples for N images, in the order of the images.

    Attributes:
        adv_inputs: (N, ...) in [0, 1], in the images' dtype; the image itself where the attack failed.
        success: (N,) bool, whether the attack reached its goal, recomputed on ``adv_inputs``.
        distortion: (N,) per-pixel RMS of the perturbation (section 4.2), at least float32; 0 where the unperturbed
            image already meets the goal, inf where the attack failed.
        c: (N,) constant of the penalty at which the example was found; inf where the unperturbed image already meets
            the goal, nan where the attack failed. None for attacks without such a constant.
        num_forwards: (N,) int64, number of forward passes spent on each image; -1 where they were not counted.
        num_backwards: (N,) int64, number of backward passes spent on each image; -1 where they were not counted.
        inputs: (N, ...), the images; None if the result does not hold them.
        labels: (N,) int64, the classes to leave; None if the attack was given targets alone.
        targets: (N,) int64, the classes aimed at; None for any class but the label.
        unrounded_distortion: (N,) distortion of the example in [0, 1] from which the search on the grid of ``levels``
            began, that of the attack without ``levels``; inf where there was none. None where no grid was searched.
    """

    adv_inputs: Tensor
    success: Tensor
    distortion: Tensor
    c: Tensor | None
    num_forwards: Tensor
    num_backwards: Tensor
    inputs: Tensor | None = None
    labels: Tensor | None = None
    targets: Tensor | None = None
    unrounded_distortion: Tensor | None = None

    def __len__(self) -> int:
        return len(self.success)

    def summary(self) -> dict[str, Any]:
        """Summarise the result in plain numbers.

        Returns:
            ``images`` (N), ``success`` (number of examples), ``already`` (number of unperturbed images among them that
            meet the goal), ``mean_distortion`` with ``low`` and ``high`` (95 % interval of Student's t, cut at 0) and
            ``median_distortion`` of the perturbed examples, None where there are none or one; ``forwards`` and
            ``backwards`` (mean number of passes per image, None where they were not counted). With ``levels`` also
            ``mean_unrounded_distortion``, of the examples whose distortion is averaged, before they were moved to the
            grid.
        """
        already = self.success & (self.distortion == 0)
        sizes = self.distortion[self.success & ~already].detach().cpu().double()
        interval = t_interval(sizes) if len(sizes) else None
        beside: dict[str, Any] = {}
        if self.unrounded_distortion is not None:
            unrounded = self.unrounded_distortion[self.success & ~already].detach().cpu().double()
            beside["mean_unrounded_distortion"] = float(unrounded.mean()) if len(unrounded) else None
        return {
            "images": len(self),
            "success": int(self.success.sum()),
            "already": int(already.sum()),
            "mean_distortion": float(sizes.mean()) if len(sizes) else None,
            "low": None if interval is None else max(0.0, interval.low),  # no distortion is below 0
            "high": None if interval is None else interval.high,
            "median_distortion": float(sizes.quantile(0.5)) if len(sizes) else None,
            "forwards": mean_count(self.num_forwards),
            "backwards": mean_count(self.num_backwards),
            **beside,
        }

    def __repr__(self) -> str:
        found = self.summary()
        text = f"{found['success']} of {found['images']} succeeded"
        if found["already"]:
            text += f", {found['already']} of them unperturbed"
        if found["mean_distortion"] is not None:
            text += f"; distortion mean {found['mean_distortion']:.4g}"
            text += "" if found["low"] is None else f" ({found['low']:.4g} to {found['high']:.4g})"
            text += f", median {found['median_distortion']:.4g}"
            if self.unrounded_distortion is not None:
                text += f"; unrounded mean {found['mean_unrounded_distortion']:.4g}"
        return f"AttackResult({text})"

    @property
    def l2(self) -> Tensor:
        """(N,) L2 norms of the perturbations; 0 and inf where ``distortion`` is."""
        return self.distortion * math.sqrt(math.prod(self.adv_inputs.shape[1:]))

    @overload
    def robust_accuracy(self, eps: float) -> float: ...
    @overload
    def robust_accuracy(self, eps: Tensor) -> Tensor: ...

    def robust_accuracy(self, eps: float | Tensor) -> float | Tensor:
        """Compute the share of images that no example within an L2 distance fools.

        An image that meets the goal unperturbed (with labels: one that the network gets wrong) counts as fooled, one
        whose attack failed as robust. An attack finds an upper bound of an image's smallest distance, so this is an
        upper bound of the accuracy under the strongest attack. With targets, it is the share of images that are not
        taken for their target.

        Args:
            eps: L2 distance, or a tensor of some.

        Returns:
            The share, 0 to 1; for a tensor of distances float64, in its shape. nan without images.

        Raises:
            ValueError: a distance is negative or nan.

        Example:
            >>> import torch
            >>> from intriguing.attacks import nearest
            >>> def network(images):  # class 1 where the first pixel is above 0.5
            ...     first = images.flatten(1)[:, 0]
            ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
            >>> images = torch.tensor([0.6, 0.4, 0.2, 0.0]).view(4, 1, 1, 1)  # the first one is wrong
            >>> result = nearest(network, images, labels=torch.zeros(4, dtype=torch.int64))
            >>> result.robust_accuracy(0.2), result.robust_accuracy(torch.tensor([0.0, 0.4])).tolist()
            (0.5, [0.75, 0.25])
        """
        radii = eps if isinstance(eps, Tensor) else torch.tensor(float(eps), dtype=torch.float64)
        if not bool((radii >= 0).all()):
            raise ValueError(f"expected eps as distances of at least 0, got {eps}")
        shares = robust_share(self.l2, radii)
        return shares if isinstance(eps, Tensor) else float(shares)

    def at(self, eps: float, *, model: Model | None = None) -> AttackResult:
        """Return the examples within an L2 distance: the minimal ones that are that near, and no others.

        An image with no example within ``eps`` is returned unperturbed, without success: a perturbation of this size
        was not found to fool the network. Minimal examples lie at the decision boundary. With a network, each is moved
        on along its perturbation, within [0, 1], to the distance ``eps``, or as far as it stays an example.

        Args:
            eps: L2 distance.
            model: images in [0, 1] to logits, which judges the images on their way; None leaves the examples where
                they are. What is moved is no longer on the grid of ``levels``.

        Returns:
            A result of all N images; its forward passes are those of this one and those spent here.

        Raises:
            ValueError: ``eps`` is negative or nan; or, with a model, the result holds no inputs, or neither labels nor
                targets.

        Example:
            >>> import torch
            >>> from intriguing.attacks import nearest
            >>> def network(images):  # class 1 where the first pixel is above 0.5
            ...     first = images.flatten(1)[:, 0]
            ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
            >>> result = nearest(network, torch.tensor([0.4, 0.1]).view(2, 1, 1, 1), labels=torch.tensor([0, 0]))
            >>> strong = result.at(0.25, model=network)
            >>> strong.success.tolist(), round(strong.l2[0].item(), 4)
            ([True, False], 0.25)
        """
        if self.inputs is None:
            raise ValueError("expected a result that holds its inputs, to which images without an example go back")
        if not eps >= 0:
            raise ValueError(f"expected eps as a distance of at least 0, got {eps}")
        within = self.success & (self.l2 <= eps)
        adv_inputs = torch.where(within.view(-1, *[1] * (self.inputs.dim() - 1)), self.adv_inputs, self.inputs)
        forwards, rows = self.num_forwards.clone(), (within & (self.distortion > 0)).nonzero().squeeze(1)
        if model is not None and len(rows):
            judge = self._judge(model, rows)
            adv_inputs[rows], asked = move_on(self.inputs[rows], adv_inputs[rows], float(eps), judge)
            forwards[rows] += torch.where(forwards[rows] < 0, 0, asked)  # -1 where they were not counted
        size = distortion(self.inputs, adv_inputs)
        return replace(
            self,
            adv_inputs=adv_inputs,
            success=within,
            distortion=torch.where(within, size, torch.inf).to(self.distortion.dtype),
            c=None if self.c is None else torch.where(within, self.c, torch.nan),
            num_forwards=forwards,
            unrounded_distortion=self.unrounded_distortion if model is None else None,
        )

    def plot_security_curve(self, axes: Axes | None = None, *, label: str = "") -> Figure:
        """Draw the security curve: the robust accuracy against the L2 distance, see `robust_accuracy`.

        Args:
            axes: matplotlib axes to draw into, so that several results share one plot; None for a new figure.
            label: of the curve, in a legend.

        Returns:
            The figure; a new one shows itself in a notebook.
        """
        from intriguing.attacks.drawing import draw_security_curve  # matplotlib is slow to import

        return draw_security_curve(self.l2.detach().cpu(), axes, label)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, on the CPU, without those that are None."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value.detach().cpu().contiguous() for name, value in columns.items() if value is not None}

    def to_frame(self) -> pandas.DataFrame:
        """Return the result as a pandas DataFrame, one row an image.

        Returns:
            The columns ``label`` and ``target`` (where the result holds them), ``success``, ``distortion``,
            ``unrounded_distortion`` (with ``levels``), ``c`` (for attacks that have one), ``num_forwards`` and
            ``num_backwards``.

        Raises:
            ImportError: pandas is not installed.
        """
        names = {"labels": "label", "targets": "target"}
        columns = {name: value for name, value in self.tensors().items() if name not in ("adv_inputs", "inputs")}
        found = ("success", "distortion", "unrounded_distortion", "c")
        order = ("labels", "targets", *found, "num_forwards", "num_backwards")
        return import_pandas().DataFrame({names.get(key, key): columns[key].numpy() for key in order if key in columns})

    def save(self, path: Path | str) -> None:
        """Write the result to one safetensors file, which holds the old content or the whole new one at any moment.

        Raises:
            UserError: the folder is missing or not writable, or the disk is full.
        """
        safetensors_file.save(self.tensors(), path, KEY, {"format": FORMAT})

    @classmethod
    def load(cls, path: Path | str) -> AttackResult:
        """Read a result that ``save`` wrote, onto the CPU, and check every byte. Nothing in the file is run.

        Raises:
            UserError: the file is missing, damaged, or of another kind.
        """
        _, tensors = safetensors_file.load(path, KEY, _check_format, what="attack's result")
        wanted = {"adv_inputs", "success", "distortion", "num_forwards", "num_backwards"}
        if not wanted <= set(tensors) <= {field.name for field in fields(cls)}:
            raise UserError(f"{path} is no attack's result: it holds {', '.join(sorted(tensors))}")
        return cls(**tensors, **({} if "c" in tensors else {"c": None}))  # pyright: ignore[reportArgumentType]

    def plot(self, *, num_images: int = 8) -> Drawing:
        """Draw the share of images that are fooled against the distortion, and a sheet of examples.

        Args:
            num_images: columns of the sheet: successful examples from the smallest distortion to the largest. The sheet
                is left out for a result without ``inputs``, and for inputs that are no images.

        Returns:
            A matplotlib figure, which shows itself in a notebook; ``savefig`` writes it.
        """
        from intriguing.attacks.drawing import draw, is_image  # matplotlib is slow to import

        sizes = self.distortion[self.success].detach().cpu()
        sheet = None
        if self.inputs is not None and is_image(self.adv_inputs):
            rows = _spread(self.success & (self.distortion > 0), self.distortion, num_images)
            sheet = self.inputs[rows].detach().cpu(), self.adv_inputs[rows].detach().cpu()
        return draw(repr(self).removeprefix("AttackResult(").removesuffix(")"), sizes, len(self), sheet)

    def save_images(self, folder: Path | str, *, bits: int = 8, model: Model | None = None) -> SavedImages:
        """Write the successful examples as PNG files, and count how many survive the rounding.

        A file holds whole numbers, so every pixel is rounded to k / (2^bits - 1). Minimal examples lie at the decision
        boundary, and many are no examples after that; attack with ``levels=256`` to find examples that are.

        Args:
            folder: made if it is missing; the files are named by the image's row, "000017.png".
            bits: 8 or 16 bits per channel.
            model: images in [0, 1] to logits, which judges the rounded images; None does not judge them.

        Returns:
            What was saved and how many of the rounded images are still adversarial.

        Raises:
            UserError: the folder cannot be written, or holds files of these names.
            ValueError: ``bits`` is neither 8 nor 16, the images have neither 1 nor 3 channels, or the result holds
                neither labels nor targets, which a model needs.

        Example:
            >>> import tempfile, torch
            >>> from intriguing.attacks import nearest
            >>> def network(images):  # class 1 where the first pixel is above 0.5
            ...     first = images.flatten(1)[:, 0]
            ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
            >>> result = nearest(network, torch.full((1, 1, 2, 2), 0.2), labels=torch.tensor([0]), levels=256)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     saved = result.save_images(folder, model=network)
            >>> saved.num_saved, saved.num_adversarial
            (1, 1)
        """
        rows = self.success.nonzero().squeeze(1)
        return save_images(
            self.adv_inputs.detach()[rows],
            rows.tolist(),
            Path(folder),
            bits=bits,
            inputs=None if self.inputs is None else self.inputs.detach()[rows],
            judge=None if model is None else self._judge(model, rows),
        )

    def _judge(self, model: Model, rows: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function that tells which images (M, ...), in the place of the given rows, are adversarial."""
        classes = self.labels if self.targets is None else self.targets
        if classes is None:
            raise ValueError("expected a result with labels or targets to judge the images by; leave model out")
        wanted = classes[rows]

        def judge(images: Tensor) -> Tensor:
            with evaluating(model), torch.no_grad():
                parts = [pick_output(model(part)).argmax(dim=1) for part in images.split(_BATCH)] if len(images) else []
            answers = torch.cat(parts) if parts else wanted
            return answers == wanted if self.targets is not None else answers != wanted

        return judge


def mean_count(counts: Tensor) -> float | None:
    """Average counted passes (N,); None where some were not counted."""
    if not len(counts):
        return 0.0
    return None if bool((counts < 0).any()) else float(counts.double().mean())


def _spread(chosen: Tensor, sizes: Tensor, num: int) -> list[int]:
    """Choose rows evenly from the smallest size to the largest."""
    found = chosen.nonzero().squeeze(1)
    ordered: list[int] = found[sizes[found].argsort(stable=True)].tolist()
    if len(ordered) <= num:
        return ordered
    step = (len(ordered) - 1) / max(num - 1, 1)
    return [ordered[round(place * step)] for place in range(num)]


def _check_format(entry: dict[str, Any], path: Path) -> None:
    if entry.get("format") != FORMAT:
        raise UserError(f"{path} was written by another version of the project; make it again")
