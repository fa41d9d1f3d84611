"""The logits are found in whatever a network returns, or one line names what is there."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from intriguing.nn import PickOutput, modules_of, pick_output

A, B = torch.zeros(2, 3), torch.ones(2, 3)
Pair = namedtuple("Pair", ["scores", "hidden"])


@pytest.mark.parametrize(
    ("output", "name"),
    [
        (B, None),
        ({"logits": B, "loss": A}, None),
        (SimpleNamespace(logits=B), None),
        ({"scores": B}, "scores"),
        ((A, B), 1),
        ((A, B), "1"),
        ([A, B], -1),
        (Pair(B, A), "scores"),
        (SimpleNamespace(scores=B), "scores"),
    ],
)
def test_the_named_entry_is_returned_itself(output: object, name: str | int | None) -> None:
    assert pick_output(output, name) is B
    assert PickOutput(lambda images: output, name)(A) is B


@pytest.mark.parametrize(
    ("output", "name", "words"),
    [
        ({"scores": B}, None, "got a dict with 'scores'; name the entry: intriguing.nn.PickOutput(network, 'scores')"),
        ((A, B), None, "got a tuple of 2; name the entry: intriguing.nn.PickOutput(network, 0)"),
        (Pair(B, A), None, "got a Pair with scores, hidden"),
        (SimpleNamespace(scores=B), None, "got SimpleNamespace with scores"),
        ({"scores": B}, "logits", "output=logits, but the network's output, a dict with 'scores', has no such entry"),
        ((A, B), 2, "output=2, but the network's output, a tuple of 2, has no such entry"),
        ({"scores": 3}, "scores", "holds int there"),
        (B, "logits", "the network's output, a tensor, has no such entry"),
        ({}, None, "got an empty dict"),
    ],
)
def test_what_is_not_there_gets_one_line(output: object, name: str | int | None, words: str) -> None:
    with pytest.raises(TypeError) as refusal:
        pick_output(output, name)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_wrapped_network_is_one_module_with_the_networks_parameters() -> None:
    network = nn.Linear(2, 3)
    picked = PickOutput(network)
    assert modules_of(picked) == [picked] and [*picked.parameters()] == [*network.parameters()]
