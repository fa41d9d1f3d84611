"""The makers of planted networks and sets, as fixtures."""

from collections.abc import Callable

import pytest
from planted import crafted_set, planted_network

from intriguing.analysis import CraftedSet, Network


@pytest.fixture
def network() -> Callable[..., Network]:
    """Makes a network with known mistakes; see `planted.planted_network`."""
    return planted_network


@pytest.fixture
def crafted() -> Callable[..., CraftedSet]:
    """Makes an adversarial set with known effects; see `planted.crafted_set`."""
    return crafted_set
