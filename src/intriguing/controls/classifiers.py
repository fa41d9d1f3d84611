"""Fit classifiers that are no neural networks, as torch modules: the controls of transfer experiments."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from intriguing.errors import did_you_mean

CONTROLS: dict[str, str] = {
    "linear_svm": "linear SVM",
    "rbf_svm": "RBF SVM",
    "knn": "k-NN",
    "random_forest": "random forest",
    "boosting": "gradient boosting",
}
"""Kinds of controls and their names in tables."""
DIFFERENTIABLE: tuple[str, ...] = ("linear_svm", "rbf_svm")
"""Kinds whose logits have a gradient, so that an attack finds examples for them."""
UNSEEN = -1e3
"""Logit of a class that has no training image."""


class KernelMachine(nn.Module):
    """Classify by the decision values of support vector machines with a Gaussian kernel, one for each class.

    The logit of a class is ``sum over support vectors s of a_s exp(-gamma |x - s|^2) + b``. It is computed in float64
    and has an exact gradient.

    Args:
        vectors: (S, D), support vectors of all classes.
        weights: (S, K), coefficients a of each class.
        offsets: (K,), constants b.
        gamma: inverse squared width of the kernel.
    """

    vectors: Tensor
    weights: Tensor
    offsets: Tensor

    def __init__(self, vectors: Tensor, weights: Tensor, offsets: Tensor, gamma: float) -> None:
        super().__init__()
        for name, value in (("vectors", vectors), ("weights", weights), ("offsets", offsets)):
            self.register_buffer(name, value.double())
        self.gamma = gamma

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, ...), in the images' dtype."""
        rows = images.flatten(1).double()
        squares = rows.square().sum(1, keepdim=True) + self.vectors.square().sum(1) - 2 * rows @ self.vectors.T
        return (torch.exp(-self.gamma * squares) @ self.weights + self.offsets).to(images.dtype)


class Estimator(nn.Module):
    """Classify with a fitted scikit-learn classifier: probabilities as logits, without a gradient.

    Args:
        estimator: has ``predict_proba`` and ``classes_``.
        num_classes: K; a class that the estimator did not see has probability 0.
    """

    def __init__(self, estimator: Any, num_classes: int) -> None:
        super().__init__()
        self.estimator, self.num_classes = estimator, num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities (N, K) of images (N, ...), in the images' dtype."""
        rows = images.detach().flatten(1).double().cpu().numpy()
        found = torch.zeros(len(rows), self.num_classes, dtype=torch.float64)
        if len(rows):
            found[:, torch.from_numpy(self.estimator.classes_)] = torch.from_numpy(self.estimator.predict_proba(rows))
        return found.to(images)


def fit_control(
    kind: str, images: Tensor, labels: Tensor, *, num_classes: int | None = None, seed: int = 0
) -> nn.Module:
    """Fit a classifier that is no neural network.

    Args:
        kind: one of `CONTROLS`. ``linear_svm`` is a linear layer, whose nearest adversarial example in the box is found
            exactly by ``attacks.nearest``; ``rbf_svm`` is a `KernelMachine`; the others have no gradient.
        images: (N, ...) in [0, 1].
        labels: (N,) integers.
        num_classes: K; None: the largest label plus 1.
        seed: of the estimators that draw random numbers.

    Returns:
        A module in evaluation mode: images to logits (N, K). ``intriguing.transfer_table`` takes it as a network.

    Raises:
        ValueError: an unknown kind, lengths that do not fit, or fewer than two classes among the labels.

    Example:
        >>> import torch
        >>> images = torch.linspace(0, 1, 20).view(20, 1, 1, 1)
        >>> svm = fit_control("linear_svm", images, (images.flatten() > 0.5).long())
        >>> svm(torch.tensor([0.1, 0.9]).view(2, 1, 1, 1)).argmax(1).tolist()
        [0, 1]
    """
    if kind not in CONTROLS:
        near = did_you_mean(kind, CONTROLS) or ""
        raise ValueError(f"expected a control out of {', '.join(CONTROLS)}, got {kind!r}{near}")
    if len(images) != len(labels):
        raise ValueError(f"expected a label for each image, got {len(images)} images and {len(labels)} labels")
    if len(labels.unique()) < 2:
        raise ValueError(f"a control needs images of at least two classes, got {len(labels.unique())}")
    rows, classes = images.flatten(1).double().cpu().numpy(), labels.cpu().numpy()
    count = int(labels.max()) + 1 if num_classes is None else num_classes
    if kind == "linear_svm":
        return _linear(rows, classes, count, seed).to(images.dtype).eval()
    if kind == "rbf_svm":
        return _kernel(rows, classes, count).eval()
    return Estimator(_estimator(kind, len(rows), seed).fit(rows, classes), count).eval()


def _linear(rows: np.ndarray, labels: np.ndarray, count: int, seed: int) -> nn.Sequential:
    """Fit one linear machine for each class against the rest."""
    from sklearn.svm import LinearSVC

    layer = nn.Linear(rows.shape[1], count, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(UNSEEN)
        for label in np.unique(labels):
            machine: Any = LinearSVC(C=0.1, random_state=seed, max_iter=20_000).fit(rows, labels == label)
            layer.weight[label] = torch.from_numpy(machine.coef_[0])
            layer.bias[label] = float(machine.intercept_[0])
    return nn.Sequential(nn.Flatten(), layer)


def _kernel(rows: np.ndarray, labels: np.ndarray, count: int) -> KernelMachine:
    """Fit one Gaussian machine for each class against the rest, and join their support vectors."""
    from sklearn.svm import SVC

    gamma = 1 / (rows.shape[1] * max(float(rows.var()), 1e-12))  # scikit-learn's "scale"
    weights, offsets = np.zeros((len(rows), count)), np.full(count, UNSEEN)
    for label in np.unique(labels):
        machine = SVC(C=10, gamma=gamma).fit(rows, labels == label)
        weights[machine.support_, label] = machine.dual_coef_[0]
        offsets[label] = machine.intercept_[0]
    used = (weights != 0).any(1)
    parts = (torch.from_numpy(part) for part in (rows[used], weights[used], offsets))
    return KernelMachine(*parts, gamma=gamma)


def _estimator(kind: str, num: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier

    if kind == "knn":
        return KNeighborsClassifier(min(3, num))
    if kind == "random_forest":
        return RandomForestClassifier(100, random_state=seed)
    settings: dict[str, Any] = {"max_iter": 50, "early_stopping": False, "random_state": seed}
    return HistGradientBoostingClassifier(**settings)
