"""Controls: closed forms, finite differences, and scikit-learn's own answers."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

import intriguing as ig
from intriguing.attacks import nearest
from intriguing.controls import CONTROLS, KernelMachine, fit_control


def blobs(num: int = 60, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % classes
    centres = torch.rand(classes, 1, 2, 3, generator=torch.Generator().manual_seed(7))
    images = centres[labels] + 0.05 * torch.randn(num, 1, 2, 3, generator=generator)
    return images.clamp(0, 1), labels


@pytest.mark.parametrize("kind", CONTROLS)
def test_every_control_learns_blobs_and_keeps_its_word_about_shapes(kind: str) -> None:
    images, labels = blobs()
    control = fit_control(kind, images, labels, num_classes=5)
    logits = control(images)
    assert logits.shape == (60, 5) and logits.dtype == images.dtype and not control.training
    assert (logits.argmax(1) == labels).double().mean() > 0.95
    assert control(images[:0]).shape == (0, 5)


def test_the_linear_machine_is_attacked_exactly() -> None:
    """Inside the box the nearest point lies at the smallest (z_y - z_k) / |w_y - w_k|."""
    images, labels = blobs(num=40)
    images = 0.4 + 0.2 * images
    control = fit_control("linear_svm", images, labels)
    found = nearest(control, images[:8], labels[:8])
    weight = next(control.parameters()).detach().double()
    with torch.no_grad():
        logits = control(images[:8]).double()
    for row in range(8):
        label = int(labels[row])
        own = int(logits[row].argmax())
        ways = [
            float((logits[row, label] - logits[row, k]) / (weight[label] - weight[k]).norm())
            for k in range(3)
            if k != label
        ]
        exact = max(0.0, min(ways)) if own == label else 0.0
        inside = bool(((found.adv_inputs[row] > 1e-4) & (found.adv_inputs[row] < 1 - 1e-4)).all())
        assert float(found.l2[row]) >= exact * (1 - 1e-4)
        assert not inside or math.isclose(float(found.l2[row]), exact, rel_tol=2e-3, abs_tol=1e-5)


def test_the_kernel_machines_gradient_is_that_of_finite_differences() -> None:
    images, labels = blobs(num=30)
    machine = fit_control("rbf_svm", images, labels)
    assert isinstance(machine, KernelMachine)
    assert torch.autograd.gradcheck(machine, images[:3].double().requires_grad_())


def test_the_kernel_machine_is_scikit_learns() -> None:
    images, labels = blobs(num=45)
    machine = fit_control("rbf_svm", images, labels)
    rows = images.flatten(1).double().numpy()
    theirs = OneVsRestClassifier(SVC(C=10, gamma="scale")).fit(rows, labels.numpy())
    torch.testing.assert_close(machine(images.double()), torch.from_numpy(theirs.decision_function(rows)))


def test_a_class_without_images_is_never_predicted() -> None:
    images, labels = blobs(classes=2)
    for kind in CONTROLS:
        logits = fit_control(kind, images, 2 * labels, num_classes=4)(images)
        assert set(logits.argmax(1).tolist()) == {0, 2}, kind


def test_controls_are_networks_to_the_transfer_table() -> None:
    images, labels = blobs()
    nets = {kind: fit_control(kind, images, labels) for kind in ("linear_svm", "rbf_svm", "knn")}
    sets = {kind: ig.craft(nets[kind], images[:10], labels[:10]) for kind in ("linear_svm", "rbf_svm")}
    table = ig.transfer_table(nets, sets)
    assert table.cells["rbf_svm", "rbf_svm"].value == 100.0 and ("linear_svm", "knn") in table.cells


@pytest.mark.parametrize(
    ("kind", "num", "words"),
    [
        ("svm", 4, "expected a control out of linear_svm"),
        ("knn", 3, "a label for each image"),
        ("knn", 1, "two classes"),
    ],
)
def test_wrong_calls_are_refused(kind: str, num: int, words: str) -> None:
    images = torch.rand(4 if num != 1 else 1, 1, 2, 2)
    with pytest.raises(ValueError, match=words):
        fit_control(kind, images, torch.arange(num) % 2)
