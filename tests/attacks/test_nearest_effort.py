"""Budgets, starts and hard networks of the boundary attack."""

import math

import pytest
import torch
from attack_networks import curved_network, images, linear_network
from torch import Tensor, nn

from intriguing.attacks import nearest
from intriguing.attacks.chunk import Goal
from intriguing.attacks.network import under_attack
from intriguing.attacks.starts import classify
from intriguing.attacks.tracker import Tracker
from intriguing.attacks.walk import Walk

BUDGETS = {"fast": 60, "default": 300, "thorough": 2000}


class Affine(nn.Module):
    """Multiply logits by a factor and add a number."""

    def __init__(self, network: nn.Module, factor: float, offset: float):
        super().__init__()
        self.network, self.factor, self.offset = network, factor, offset

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) * self.factor + self.offset


class Clipped(nn.Module):
    """Clip the input to [0, 1] first, as some published networks do."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.clamp(0, 1))


class Islands(nn.Module):
    """Answer 1 inside balls around given centres and 0 elsewhere; ``slope`` 0 leaves no gradient outside of them."""

    def __init__(self, centres: Tensor, radii: Tensor, slope: float = 1.0):
        super().__init__()
        self.centres, self.radii, self.slope = centres, radii, slope

    def forward(self, x: Tensor) -> Tensor:
        depth = (self.radii - torch.cdist(x.flatten(1), self.centres)).amax(dim=1)
        depth = torch.where(depth > 0, depth, self.slope * depth - (1 - self.slope))
        return torch.stack([-depth, depth], dim=1)


@pytest.mark.parametrize("effort", list(BUDGETS))
@pytest.mark.parametrize("num_classes", [4, 300])
@pytest.mark.parametrize("targeted", [False, True])
def test_an_effort_bounds_the_passes_whatever_the_number_of_classes(effort, num_classes, targeted):
    calls = {"rows": 0}
    network = curved_network(dtype=torch.float64) if num_classes == 4 else linear_network(num_classes, scale=1.0)

    def counted(x: Tensor) -> Tensor:
        calls["rows"] += len(x)
        return network(x)

    inputs = images(3)
    labels, second = network(inputs).topk(2, dim=1).indices.T
    targets = second if targeted else None
    with torch.no_grad():
        result = nearest(counted, inputs, labels, targets=targets, effort=effort)
    assert result.success.all()
    passes = result.num_forwards + result.num_backwards
    assert int(passes.max()) <= BUDGETS[effort]
    assert calls["rows"] == int(result.num_forwards.sum())


def test_a_keyword_overrides_the_effort():
    network, inputs = curved_network(dtype=torch.float64), images(4)
    labels = network(inputs).argmax(dim=1)
    few = nearest(network, inputs, labels, effort="thorough", budget=40)
    assert int((few.num_forwards + few.num_backwards).max()) <= 40
    once = nearest(network, inputs, labels, num_restarts=0)
    assert int((once.num_forwards + once.num_backwards).max()) < 150


def test_more_effort_comes_nearer_on_the_mean():
    network, inputs = curved_network(seed=3, dtype=torch.float64), images(30)
    labels = network(inputs).argmax(dim=1)
    fast, default, thorough = (nearest(network, inputs, labels, effort=one).distortion.mean() for one in BUDGETS)
    assert thorough <= default * (1 + 1e-6)
    assert default <= fast * (1 + 1e-6)


@pytest.mark.parametrize("factor", [1e-3, 0.125, 1e3])
@pytest.mark.parametrize("offset", [0.0, 100.0, -100.0])
def test_a_factor_and_a_number_common_to_all_logits_change_nothing(factor, offset):
    network, inputs = curved_network(), images(20, dtype=torch.float32)
    labels = network(inputs).argmax(dim=1)
    once = nearest(network, inputs, labels)
    again = nearest(Affine(network, factor, offset * factor), inputs, labels)
    assert torch.equal(once.success, again.success)
    assert float(again.distortion.mean()) == pytest.approx(float(once.distortion.mean()), rel=1e-3)


def test_a_network_that_clips_its_input_is_attacked_like_one_that_does_not():
    """torch's clamp has no gradient on the bounds, where all pixels of these images lie."""
    network, inputs = curved_network(), images(20, dtype=torch.float32).round()
    labels = network(inputs).argmax(dim=1)
    plain, clipped = (nearest(one, inputs, labels, effort="fast") for one in (network, Clipped(network)))
    assert clipped.success.all()
    assert float(clipped.distortion.mean()) == pytest.approx(float(plain.distortion.mean()), rel=1e-3)


def test_an_image_without_a_gradient_is_not_given_up():
    centre = torch.full((1, 16), 0.9, dtype=torch.float64)
    network = Islands(centre, torch.tensor([0.8], dtype=torch.float64), slope=0.0)
    inputs = torch.full((1, 1, 4, 4), 0.3, dtype=torch.float64)
    result = nearest(network, inputs, torch.tensor([0]))
    assert result.success.all()
    exact = 0.6 * 4 - 0.8  # the segment to the centre, less the radius
    assert float(result.distortion) * 4 == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("as_batch", [False, True])
def test_starts_lead_to_a_class_that_nothing_else_shows(as_batch):
    """The slope points to the far island; only a start lies in the near one."""
    origin = torch.full((16,), 0.5, dtype=torch.float64)
    near, far = origin.clone(), origin.clone()
    near[0], far[1] = 1.0, 0.0
    centres, radii = torch.stack([near, far]), torch.tensor([0.3, 0.02], dtype=torch.float64)

    def network(x: Tensor) -> Tensor:
        distance = torch.cdist(x.flatten(1), centres)
        inside = (radii - distance).amax(dim=1)
        # Outside, the margin grows towards the far island only.
        outside = -1e-3 - distance[:, 1]
        depth = torch.where(inside > 0, inside, outside)
        return torch.stack([-depth, depth], dim=1)

    inputs = origin.view(1, 1, 4, 4)
    start = near.view(1, 1, 4, 4)
    alone = nearest(network, inputs, torch.tensor([0]), num_restarts=0)
    if as_batch:
        both = torch.cat([inputs, start])
        helped = nearest(network, both, torch.tensor([0, 1]), starts="batch").distortion[0]
    else:
        helped = nearest(network, inputs, torch.tensor([0]), starts=start).distortion[0]
    assert float(helped) * 4 == pytest.approx(0.2, rel=1e-3)
    assert float(alone.distortion[0]) * 4 == pytest.approx(0.48, rel=1e-3)


def test_starts_are_the_nearest_of_another_class_and_never_the_image_itself():
    network = linear_network(3, scale=1.0)
    inputs, pool = images(5), images(40, seed=7)
    labels = network(inputs).argmax(dim=1)
    answers = network(pool).argmax(dim=1)
    with under_attack(network, inputs) as net:
        chosen = classify(net, torch.cat([pool, inputs]))
        flat = inputs.flatten(1)
        for goal in (Goal(labels, targeted=False), Goal((labels + 1) % 3, targeted=True)):
            indices, usable = chosen.nearest(flat, goal, 60)
            for row in range(5):
                fits = answers == goal.classes[row] if goal.targeted else answers != goal.classes[row]
                distances = (pool.flatten(1) - flat[row]).norm(dim=1)[fits]
                others = torch.cat([pool.flatten(1)[fits], flat])
                kept = others[(others - flat[row]).norm(dim=1) > 0]
                own = chosen.images[indices[row][usable[row]]]
                assert len(own) >= len(distances)
                assert len(own) <= len(kept)
                gaps = (own - flat[row]).norm(dim=1)
                assert bool((gaps.diff() >= 0).all())
                assert float(gaps[0]) <= float(distances.min()) + 1e-12
                assert float(gaps.min()) > 0


@pytest.mark.parametrize(
    ("starts", "error", "words"),
    [
        ("train", ValueError, r"expected starts as images \(P, ...\), 'batch' or None, got 'train'"),
        (torch.zeros(2, 1, 5, 5), ValueError, r"expected starts of shape \(P, 1, 4, 4\) as the inputs have it"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), TypeError, "expected starts as a floating-point tensor"),
        (torch.full((2, 1, 4, 4), 3.0), ValueError, r"expected starts in \[0, 1\]"),
    ],
)
def test_wrong_starts_are_refused_in_one_line(starts, error, words):
    with pytest.raises(error, match=words):
        nearest(linear_network(), images(2), torch.tensor([0, 1]), starts=starts)


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        (
            {"effort": "defualt"},
            ValueError,
            "expected effort out of fast, default, thorough, got 'defualt'; did you",
        ),
        ({"effort": 3}, TypeError, "expected effort as one of fast, default, thorough, got 3"),
        ({"budget": 5}, ValueError, "budget"),
        ({"num_restarts": -1}, ValueError, "num_restarts"),
    ],
)
def test_wrong_efforts_are_refused_in_one_line(keywords, error, words):
    with pytest.raises(error, match=words):
        nearest(linear_network(), images(2), torch.tensor([0, 1]), **keywords)


def test_an_image_does_not_depend_on_the_others():
    network, inputs = curved_network(seed=11, dtype=torch.float64), images(6, seed=5)
    labels = network(inputs).argmax(dim=1)
    together = nearest(network, inputs, labels).distortion
    apart = torch.cat([nearest(network, x[None], k[None]).distortion for x, k in zip(inputs, labels, strict=True)])
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-9)


def test_a_walk_moves_along_a_kink():
    """Two half-spaces meet in a ridge: the nearest point lies on it, and each slope alone leads away from it."""
    wall = torch.zeros(2, 16, dtype=torch.float64)
    wall[0, :2], wall[1, :2] = torch.tensor([1.0, 0.6]), torch.tensor([0.6, 1.0])

    def network(x: Tensor) -> Tensor:
        depth = (x.flatten(1) @ wall.T - 1.0).amin(dim=1)
        return torch.stack([-depth, depth], dim=1)

    inputs = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    start = torch.zeros(1, 16, dtype=torch.float64)
    start[0, :3] = torch.tensor([1.0, 0.7, 0.9])
    with under_attack(network, inputs) as net:
        tracker = Tracker(net, inputs.flatten(1), Goal(torch.tensor([0]), targeted=False))
        walk = Walk(tracker, torch.tensor([0]), start, 1)
        before = math.inf
        for _ in range(25):
            walk.step()
            assert float(walk.distance) <= before
            before = float(walk.distance)
    assert before == pytest.approx(math.sqrt(2) / 1.6, rel=2e-3)
