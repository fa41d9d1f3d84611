"""Units on unusual networks, labels, dtypes and contexts."""

import contextlib

import pytest
import torch
from torch import nn

from intriguing.units import (
    TopImages,
    ablate,
    collect,
    fitted_basis,
    fractional_rotation,
    linear_cka,
    match_units,
    procrustes,
    random_rotation,
    sample_vectors,
    unit_directions,
    whitening,
)
from intriguing.units.activations import respond, stream
from intriguing.units.scores import RunningMoments, label_entropy, label_purity, similarity, unit_rows

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
CONTEXTS = [contextlib.nullcontext, torch.no_grad, torch.inference_mode]


def network(dtype=torch.float32, inplace=True):
    torch.manual_seed(0)
    layers = [nn.ReLU(inplace), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.Dropout(0.5, inplace)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3)).to(dtype)


def batches(dtype=torch.float32, labels=torch.int64):
    images = torch.rand(10, 1, 6, 6, generator=torch.Generator().manual_seed(1)) - 0.5
    return [(images.to(dtype), (torch.arange(10) % 3).to(labels))]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("labels", INTEGERS)
def test_layers_are_recorded_and_removed_in_every_context_and_leave_no_hook(context, labels):
    given = batches(labels=labels)
    images, theirs = given[0]
    before, versions = images.clone(), (images._version, theirs._version)
    net = network()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    exact = network(inplace=False).eval()
    with torch.no_grad():
        convolved = exact[1](exact[0](images))
        expected = (exact(images).argmax(1) != theirs).sum()
    with context():
        found, _ = collect(net, ["1"], given)
        lost = ablate(net, "1", given, torch.zeros(2, 4), torch.zeros(4))
    torch.testing.assert_close(found["1"], convolved.flatten(2).amax(2))  # not modified in place by the layers above
    assert lost.whole.k == int(expected)
    assert lost.removed.tolist() == [int(expected)] * 2
    assert (images._version, theirs._version) == versions
    assert torch.equal(images, before)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_activations_of_other_dtypes_have_responses_and_can_be_removed(dtype):
    net, given = network(dtype), batches(dtype)
    found, _ = collect(net, ["3"], given)
    assert found["3"].dtype == torch.promote_types(dtype, torch.float32)
    vectors = next(iter(stream(net, ["3"], given, aggregate="mean")))[0]["3"]
    torch.testing.assert_close(respond(vectors, torch.eye(4)), vectors[:, 0])
    exact = ablate(network(torch.float64), "3", batches(torch.float64), torch.eye(4), torch.zeros(4))
    lost = ablate(net, "3", given, torch.eye(4), torch.zeros(4))
    assert lost.whole.n == exact.whole.n == 10
    assert (lost.removed - exact.removed).abs().max() <= 2  # rounding may change a prediction


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class First(nn.Module):
    def forward(self, both):
        return both[0].flatten(1)


@pytest.mark.parametrize(
    ("layer", "message"), [("0", "got tuple"), ("3", "once per forward pass, got 0 calls"), ("x", "no layer x")]
)
def test_layers_that_cannot_be_removed_are_refused_and_leave_no_hook(layer, message):
    class Part(nn.Sequential):
        def forward(self, input):
            return self[2](self[1](self[0](input)))

    net = Part(Pair(), First(), nn.Linear(36, 3), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=message):
        ablate(net, layer, batches(), torch.eye(4), torch.zeros(4))
    if layer == "0":
        with pytest.raises(ValueError, match=message):
            collect(net, [layer], batches())
    assert not any(module._forward_hooks for module in net.modules())


def test_wrong_logits_and_batches_are_refused_in_one_line():
    with pytest.raises(TypeError, match="logits must be a tensor, got a value of type tuple"):
        ablate(nn.Sequential(nn.Flatten(), Pair()), "0", batches(), torch.eye(36), torch.zeros(36))
    images, labels = batches()[0]
    with pytest.raises(ValueError, match="as many labels as images"):
        collect(network(), ["1"], [(images, labels[:4])])
    with pytest.raises(ValueError, match=r"mean \(C,\)"):
        ablate(network(), "1", batches(), torch.eye(4), torch.zeros(1))
    with pytest.raises(TypeError, match="limit"):
        sample_vectors(network(), ["1"], batches(), limit="many")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_scores_take_labels_and_indices_of_every_integer_type(dtype):
    labels = torch.tensor([0, 0, 1, 120, 120, 120])
    top = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert label_purity(labels.to(dtype), top.to(dtype)).tolist() == pytest.approx([2 / 3, 1])
    torch.testing.assert_close(label_entropy(labels.to(dtype), top.to(dtype)), label_entropy(labels, top))
    rows = unit_rows(torch.rand(6, 5, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(similarity(rows, top.to(dtype)), similarity(rows, top))
    sums = RunningMoments(121)
    sums.update(torch.empty(0, 2), labels[:0].to(dtype))  # an empty batch has no effect
    sums.update(torch.eye(6)[:, :2], labels.to(dtype))
    assert sums.finish().mean.tolist() == pytest.approx([1 / 6, 1 / 6])
    best = TopImages(2)
    best.update(torch.arange(6.0)[:, None].half(), torch.arange(6).to(dtype))
    assert best.indices.tolist() == [[5, 4]]
    assert torch.equal(unit_directions(torch.tensor([2, 0]).to(dtype), 3), torch.eye(3)[[2, 0]])


def test_labels_and_indices_out_of_range_are_refused():
    top = torch.tensor([[0, 1]])
    for labels, error in ((torch.tensor([-1, 0]), ValueError), (torch.zeros(2), TypeError)):
        with pytest.raises(error, match="labels must be"):
            label_purity(labels, top)
    with pytest.raises(ValueError, match="below 2, got 0 to 2"):
        RunningMoments(2).update(torch.zeros(2, 1), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="indices must be"):
        TopImages(1).update(torch.zeros(1, 1), torch.tensor([-1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_bases_and_similarities_accept_tensors_with_gradients_and_modify_none(dtype):
    vectors = torch.rand(40, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    other = vectors.detach().roll(1, dims=1)
    versions = vectors._version, other._version
    assert linear_cka(vectors, other) == pytest.approx(1)
    assert procrustes(vectors, other) == pytest.approx(1)
    assert match_units(vectors, other).mean == pytest.approx(1)
    assert whitening(vectors).rank == 4
    for name in ("pca", "ica", "nmf", "dictionary"):
        fitted_basis(name, vectors, 2, max_iter=20)
    rotation = random_rotation(4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.testing.assert_close(fractional_rotation(rotation, 1.0), rotation.detach())
    assert (vectors._version, other._version) == versions
