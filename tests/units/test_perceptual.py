"""LPIPS: against torchmetrics' own on one network, distances against brute force, and the index against chance."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS

from intriguing.units.perceptual import (
    LAYERS,
    SIDE,
    lpips_vectors,
    pair_distances,
    perceptual_similarity,
    published_heads,
)


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """The library's LPIPS with random convolutions and the published weights of the channels."""
    torch.manual_seed(0)
    return _LPIPS(pnet_rand=True)


def _features(reference: nn.Module) -> nn.Sequential:
    slices = [getattr(reference.net, f"slice{number}") for number in range(1, 6)]
    return nn.Sequential(*(module for part in slices for module in part))


@pytest.mark.parametrize("shape", [(3, SIDE, SIDE), (1, SIDE, SIDE)])
def test_the_vectors_distances_are_the_librarys(reference: nn.Module, shape: tuple[int, ...]) -> None:
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1))
    images[3] = images[0]
    found = pair_distances(lpips_vectors(_features(reference), published_heads(), images))
    colour = images.expand(-1, 3, -1, -1)
    wanted = [reference(colour, one.expand_as(colour), normalize=True).flatten() for one in colour]
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-6, rtol=1e-4)
    assert found[0, 3] < 1e-6 < found[0, 1]


@pytest.mark.parametrize("size", [(2 * SIDE, 2 * SIDE), (SIDE // 2, SIDE // 2), (SIDE, 3 * SIDE)])
def test_images_of_any_size_are_compared_at_one(reference: nn.Module, size: tuple[int, int]) -> None:
    """Images of one colour each look alike at every size."""
    colours = torch.rand(3, 3, 1, 1, generator=torch.Generator().manual_seed(2))
    features, heads = _features(reference), published_heads()
    large, small = (lpips_vectors(features, heads, colours.expand(-1, -1, *sides)) for sides in (size, (SIDE, SIDE)))
    torch.testing.assert_close(large, small)


def test_other_networks_are_refused(reference: nn.Module) -> None:
    features, heads = _features(reference), published_heads()
    assert [len(head) for head in heads] == [64, 192, 384, 256, 256] and all(bool((one >= 0).all()) for one in heads)
    with pytest.raises(ValueError, match="12 modules and 4"):
        lpips_vectors(features, heads[:4], torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match=f"expected 64 channels of layer {LAYERS[1]}, got 192"):
        lpips_vectors(features, [heads[0], *heads[:4]], torch.rand(1, 3, 8, 8))


def test_distances_are_those_of_every_pair() -> None:
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(3)) + 10
    found = pair_distances(vectors)
    wanted = torch.tensor([[float((a - b).square().sum()) for b in vectors] for a in vectors])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)


def test_the_index_is_one_for_equal_images_and_zero_on_average() -> None:
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(4))
    distances = pair_distances(torch.cat([rows, rows[:1]]))
    assert float(perceptual_similarity(distances, torch.tensor([[0, 6]]))) == pytest.approx(1, abs=1e-5)
    pairs = torch.combinations(torch.arange(7))
    assert float(perceptual_similarity(distances, pairs).mean()) == pytest.approx(0, abs=1e-6)
    triple = perceptual_similarity(distances, torch.tensor([[1, 2, 4]]))
    parts = perceptual_similarity(distances, torch.tensor([[1, 2], [1, 4], [2, 4]]))
    assert float(triple) == pytest.approx(float(parts.mean()), abs=1e-6)
    with pytest.raises(ValueError, match="two images"):
        perceptual_similarity(distances, torch.tensor([[0]]))
    with pytest.raises(ValueError, match="alike"):
        perceptual_similarity(torch.zeros(3, 3), torch.tensor([[0, 1]]))
