"""The makers of planted networks and sets, as fixtures."""

from collections.abc import Callable

import pytest
from matplotlib.figure import Figure as Canvas
from planted import crafted_set, planted_network

from intriguing.analysis import CraftedSet, Network, drawing


@pytest.fixture
def network() -> Callable[..., Network]:
    """Makes a network with known mistakes; see `planted.planted_network`."""
    return planted_network


@pytest.fixture
def crafted() -> Callable[..., CraftedSet]:
    """Makes an adversarial set with known effects; see `planted.crafted_set`."""
    return crafted_set


@pytest.fixture(autouse=True)
def few_pdfs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the PDF of figures, the slowest of their files, where no test asks for it."""
    if request.module.__name__ not in ("test_drawing", "test_figures"):
        monkeypatch.setattr(drawing, "pdf", lambda canvas: b"")


@pytest.fixture
def canvases(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """Collects the canvases of all figures that are made, without drawing them to a file."""
    found: list[Canvas] = []
    monkeypatch.setattr(drawing, "png", lambda canvas: found.append(canvas) or b"")
    monkeypatch.setattr(drawing, "svg", lambda canvas: "")
    return found
