"""Accuracy in Gaussian noise and under common corruptions of growing strength, and what noise predicts."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from intriguing.analysis.card.numbers import Number, share
from intriguing.analysis.card.parts.sliced import FORWARD, Sliced
from intriguing.analysis.card.subject import Subject
from intriguing.analysis.card.values import Corruption, CurvePoint, NoisePrediction
from intriguing.attacks import gaussian
from intriguing.statistics.noise import predicted_distance

STDDEVS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
_USABLE = (0.005, 0.45)  # errors in noise from which a distance is predicted: there are enough, and fewer than a half


class Noise(Sliced):
    """Count right answers in Gaussian noise, which is not clipped to [0, 1]."""

    name = "Gaussian noise"
    sizes = FORWARD

    def __init__(self, subject: Subject, guess: Callable[[], float]) -> None:
        super().__init__(subject, guess)
        self.right = torch.zeros(len(STDDEVS), 0, dtype=torch.bool)

    def measure(self, start: int, end: int) -> None:
        """Add noise to rows."""
        images, labels = self.subject.images[start:end], self.subject.labels[start:end]
        found = []
        for stddev in STDDEVS:
            noisy = gaussian(images, stddev, generator=self.subject.generator("noise", stddev, start))
            found.append(self.subject.right(noisy, labels))
        self.right = torch.cat([self.right, torch.stack(found)], dim=1)

    def width(self) -> float:
        """Return the mean length of the intervals."""
        return sum(share(one).width for one in self.right) / len(STDDEVS)

    def curve(self) -> tuple[CurvePoint, ...]:
        """Return the accuracy at each standard deviation; nothing before the first slice."""
        return tuple(CurvePoint(s, share(one)) for s, one in zip(STDDEVS, self.right, strict=True) if self.rows)

    def prediction(self, clean: Tensor, measured: Number | None) -> NoisePrediction | None:
        """Predict the distance to the nearest error from the errors in noise, as for a flat boundary.

        See `intriguing.statistics.predicted_distance` (Ford et al. 2019, section 4). Of the noises with errors between
        0.5 and 45 % the one nearest to 10 % is taken.

        Args:
            clean: (rows,) bool, which images are right without noise; the others are left out.
            measured: median of the measured distances.

        Returns:
            None where no noise has such errors, or nothing was measured.
        """
        if measured is None or not self.rows or not bool(clean.any()):
            return None
        errors = [(stddev, share(~one[clean])) for stddev, one in zip(STDDEVS, self.right, strict=True)]
        usable = [(stddev, one) for stddev, one in errors if _USABLE[0] <= one.value <= _USABLE[1]]
        if not usable:
            return None
        stddev, error = min(usable, key=lambda one: abs(one[1].value - 0.1))
        ends = (_distance(stddev, error.high), _distance(stddev, error.low))
        predicted = Number(_distance(stddev, error.value), *ends, error.n)
        return NoisePrediction(stddev, error, predicted, measured)


def _distance(stddev: float, error: float) -> float:
    return float(predicted_distance(torch.tensor(error, dtype=torch.float64), stddev))


class Corruptions(Sliced):
    """Count right answers under torchvision's transforms at three strengths each."""

    name = "common corruptions"
    sizes = FORWARD

    def __init__(self, subject: Subject, guess: Callable[[], float]) -> None:
        super().__init__(subject, guess)
        self.transforms = transforms_of(tuple(subject.images.shape[1:]))
        self.right = torch.zeros(len(self.transforms), 0, dtype=torch.bool)

    def measure(self, start: int, end: int) -> None:
        """Corrupt rows."""
        images, labels = self.subject.images[start:end], self.subject.labels[start:end]
        found = [self.subject.right(make(images).clamp(0, 1), labels) for *_, make in self.transforms]
        self.right = torch.cat([self.right, torch.stack(found)], dim=1)

    def width(self) -> float:
        """Return the mean length of the intervals."""
        return sum(share(one).width for one in self.right) / len(self.transforms)

    def corruptions(self) -> tuple[Corruption, ...]:
        """Return the accuracy under each; nothing before the first slice."""
        return tuple(
            Corruption(name, strength, setting, share(right))
            for (name, strength, setting, _), right in zip(self.transforms, self.right, strict=True)
            if self.rows
        )


Transform = tuple[str, int, str, Callable[[Tensor], Tensor]]
"""Name, strength, setting in words, and the function of images (N, C, H, W) in [0, 1]."""


def transforms_of(shape: tuple[int, ...]) -> list[Transform]:
    """List the corruptions for images of a shape (C, H, W): lengths are shares of the shorter side.

    Contrast and JPEG are for images of one or three channels.
    """
    channels, side = shape[0], min(shape[1:])
    found: list[Transform] = []

    def add(name: str, values: tuple, words: Callable[[float], str], make: Callable[[Tensor, float], Tensor]) -> None:
        for strength, value in enumerate(values, 1):
            found.append((name, strength, words(value), lambda images, value=value: make(images, value)))

    add("blur", (0.015, 0.03, 0.06), lambda v: f"sigma {v * side:.2g} px", lambda x, v: _blur(x, v * side))
    if channels in (1, 3):
        add("low contrast", (0.5, 0.25, 0.1), lambda v: f"{v:.0%} of it", functional.adjust_contrast)
    add("darkness", (0.6, 0.3, 0.15), lambda v: f"{v:.0%} of the brightness", lambda x, v: x * v)
    if channels in (1, 3):
        add("JPEG", (50, 20, 7), lambda v: f"quality {v:.0f}", _jpeg)
    add("rotation", (10, 20, 40), lambda v: f"{v:.0f} degrees", _rotated)
    add("translation", (0.05, 0.1, 0.2), lambda v: f"{v:.0%} of the side", _moved)
    return found


def _blur(images: Tensor, sigma: float) -> Tensor:
    reach = max(1, math.ceil(3 * sigma))
    size = [2 * min(reach, side - 1) + 1 for side in images.shape[-2:]]
    return functional.gaussian_blur(images, kernel_size=[size[1], size[0]], sigma=[sigma, sigma])


def _jpeg(images: Tensor, quality: float) -> Tensor:
    """Compress with Pillow: torchvision gives its own encoder up."""
    found = []
    for one in functional.to_dtype(images, torch.uint8, scale=True):
        stream = io.BytesIO()
        functional.to_pil_image(one).save(stream, "JPEG", quality=int(quality))
        found.append(functional.to_image(Image.open(stream)))
    return functional.to_dtype(torch.stack(found), torch.float32, scale=True)


def _rotated(images: Tensor, degrees: float) -> Tensor:
    return functional.rotate(images, degrees, interpolation=functional.InterpolationMode.BILINEAR)


def _moved(images: Tensor, part: float) -> Tensor:
    steps = [round(part * side) or 1 for side in images.shape[-2:]]
    return functional.affine(
        images, angle=0.0, translate=[float(steps[1]), float(steps[0])], scale=1.0, shear=[0.0, 0.0]
    )
