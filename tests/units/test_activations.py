"""Responses of a layer: closed forms for each aggregate, and independence of the batches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from intriguing.units.activations import (
    BLOCK,
    collect,
    find_layers,
    hidden_layers,
    respond,
    sample_vectors,
    stream,
    to_vectors,
)

NET = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 36, 5), nn.Sigmoid())


def _images(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, 1, 8, 8, generator=generator), torch.arange(num) % 5


def test_layers_are_found_by_name_glob_or_end() -> None:
    model = nn.Sequential()
    model.add_module("features", nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Tanh()))
    assert hidden_layers(model) == find_layers(model, None) == ["features.1", "head.2"]
    assert find_layers(model, ["features.1"]) == ["features.1"]
    assert find_layers(model, ["2", "features.*"]) == ["features.0", "features.1", "head.2"]
    outer = nn.Sequential(model)
    assert find_layers(outer, ["features.*", "head.2"]) == ["0.features.0", "0.features.1", "0.head.2"]
    assert find_layers(model, ["nothing"]) == []


def test_each_aggregate_has_its_closed_form() -> None:
    torch.manual_seed(0)
    output, directions = torch.randn(4, 3, 5, 6), torch.randn(7, 3)
    everywhere = torch.einsum("nchw,mc->nmhw", output, directions)
    torch.testing.assert_close(respond(to_vectors(output, "max"), directions), everywhere.amax((2, 3)))
    torch.testing.assert_close(respond(to_vectors(output, "mean"), directions), everywhere.mean((2, 3)))
    torch.testing.assert_close(respond(to_vectors(output, "center"), directions), everywhere[:, :, 2, 3])
    whole = torch.randn(2, 3 * 5 * 6)
    torch.testing.assert_close(respond(to_vectors(output, "flatten"), whole), output.flatten(1) @ whole.T)
    tokens = torch.randn(4, 9, 3)
    torch.testing.assert_close(respond(to_vectors(tokens, "max"), directions), (tokens @ directions.T).amax(1))


def test_many_directions_give_the_responses_of_few() -> None:
    torch.manual_seed(0)
    vectors, directions = torch.randn(128, 784, 4), torch.randn(300, 4)
    found = respond(vectors, directions)
    torch.testing.assert_close(found[:, 7], (vectors @ directions[7]).amax(1))


def test_no_response_depends_on_the_batches_and_an_in_place_layer_further_on_changes_nothing() -> None:
    images, labels = _images(BLOCK + 45)
    found = []
    for size in (1, 7, 100, 1000):
        batches = list(zip(images.split(size), labels.split(size), strict=True))
        found.append(collect(NET, ["0", "4"], batches))
    for features, theirs in found:
        assert torch.equal(theirs, labels)
        assert all(torch.equal(features[layer], found[0][0][layer]) for layer in features)
    with torch.no_grad():
        torch.testing.assert_close(found[0][0]["0"], NET[0](images).amax((2, 3)))


def test_the_model_is_restored_and_keeps_no_hook() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.ReLU()).train()
    first = [v["2"] for v, _, _ in stream(model, ["2"], [(torch.ones(3, 4), torch.zeros(3).long())])]
    again = [v["2"] for v, _, _ in stream(model, ["2"], [(torch.ones(3, 4), torch.zeros(3).long())])]
    assert torch.equal(first[0], again[0])
    assert model.training and not model[2]._forward_hooks


def test_samples_are_even_over_all_images_and_do_not_depend_on_the_batches() -> None:
    images, labels = _images(400)
    once = sample_vectors(NET, ["1"], [(images, labels)], limit=50, seed=3)["1"]
    many = sample_vectors(NET, ["1"], list(zip(images.split(9), labels.split(9), strict=True)), limit=50, seed=3)["1"]
    assert once.shape == (50, 3) and torch.equal(once, many)
    marked = nn.Sequential(nn.Identity())
    ramp = torch.arange(4000.0)[:, None]
    kept = sample_vectors(marked, ["0"], [(ramp, torch.zeros(4000).long())], limit=1000)["0"]
    assert abs(float(kept.mean()) - 2000) < 3 * 1155 / 1000**0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: list(stream(NET, ["9"], [_images(2)])), "no layer 9; known: 0, 1"),
        (lambda: to_vectors(torch.zeros(2, 2), "median"), "unknown aggregate 'median'"),
        (lambda: to_vectors(torch.zeros(2)), "a layer must return"),
        (lambda: respond(torch.zeros(1, 1, 3), torch.zeros(1, 4)), "directions"),
        (lambda: collect(NET, ["0"], []), "at least one image"),
        (lambda: sample_vectors(NET, ["0"], [], limit=0), "whole number >= 1"),
    ],
)
def test_wrong_calls_are_named(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
