"""What each layer does to perturbations: a bound of its norm, and the amplification that is met."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from intriguing.analysis.card.parts.distances import Attack
from intriguing.analysis.card.subject import Subject
from intriguing.analysis.card.values import Layer
from intriguing.analysis.stability.measure import amplification
from intriguing.errors import error_message
from intriguing.metrics import distortion, equal_norm_gaussian
from intriguing.spectral import lipschitz_bounds
from intriguing.spectral.recording import floating

_IMAGES = 8


class Layers:
    """Bound the norm of every layer, and follow the first examples through the layers."""

    name = "layers"

    def __init__(self, subject: Subject, attack: Attack, forward: Callable[[], float]) -> None:
        self.subject, self.attack, self._forward = subject, attack, forward
        self.failed, self.started = "", False
        self.layers: tuple[Layer, ...] | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.started or bool(self.failed)

    def predicted(self) -> float:
        """Return the seconds of both."""
        return (200 + 6 * _IMAGES) * self._forward()

    def width(self) -> float:
        """Return 0: it is done at once."""
        return 0.0

    def step(self) -> None:
        """Bound the layers and follow the examples."""
        model, shape = self.subject.model, tuple(self.subject.images.shape[1:])
        try:
            bounds = lipschitz_bounds(model, shape)
        except Exception as error:  # of the user's code, which runs under a trace
            self.failed = error_message(error)
            return
        adversarial: tuple[float, ...] = ()
        noise: tuple[float, ...] = ()
        rows = ((self.attack.l2 > 0) & self.attack.l2.isfinite()).nonzero().flatten()[:_IMAGES].tolist()
        if rows:
            # of the network's type, as the bounds are traced: a conversion would be a layer of its own
            images = self.subject.images[rows].to(self.subject.device, floating(model).dtype)
            moved = torch.stack([self.attack.adv_inputs[row] for row in rows]).to(images)
            rms = distortion(images, moved).cpu()
            noisy = equal_norm_gaussian(images.cpu(), rms, generator=self.subject.generator("layers")).to(images)
            with torch.no_grad():
                try:
                    adversarial = amplification(model, images, moved)
                    noise = amplification(model, images, noisy)
                except (TypeError, ValueError, RuntimeError):  # the bounds alone are worth showing
                    adversarial = noise = ()
        unknown = (math.inf,) * len(bounds)
        self.layers = tuple(
            Layer(one.name or one.kind, float(one.bound), a, b)
            for one, a, b in zip(bounds, adversarial or unknown, noise or unknown, strict=True)
        )
        self.started = True
