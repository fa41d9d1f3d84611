"""``import intriguing``: light, and every public name is there."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import intriguing as ig


def _loaded_by(code: str, *packages: str) -> list[str]:
    code += f"\nimport sys; print([one for one in {packages!r} if one in sys.modules])"
    return eval(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_importing_it_loads_no_library() -> None:
    assert _loaded_by("import intriguing", "torch", "numpy", "scipy", "lightning", "hydra", "wandb") == []


@pytest.mark.parametrize("name", ig.__all__)
def test_every_public_name_is_there(name: str) -> None:
    found = getattr(ig, name)
    assert name in dir(ig)
    assert found is getattr(ig, name)
    if callable(found):
        assert found.__doc__ and found.__module__.startswith("intriguing.")


def test_no_public_name_loads_hydra_or_wandb() -> None:
    code = "import intriguing as ig\nfor name in ig.__all__: getattr(ig, name)"
    assert _loaded_by(code, "torch", "hydra", "omegaconf", "wandb") == ["torch"]


def test_a_name_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'intriguing' has no attribute 'lbgfs'"):
        _ = ig.lbgfs


def test_the_version_is_the_distributions() -> None:
    assert ig.__version__ == version("intriguing")
