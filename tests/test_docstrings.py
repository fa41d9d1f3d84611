"""The examples in the docstrings are run; the public functions have one."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import intriguing
from intriguing import attacks, metrics, optim, units
from intriguing.units import scores

SOURCE = Path(intriguing.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
PUBLIC = [
    attacks.amplify,
    attacks.gaussian,
    attacks.lbfgs,
    attacks.nearest,
    metrics.distortion,
    optim.minimize_box,
    scores.label_purity,
    units.TopImages,
    units.linear_cka,
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_and_print_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted and not result.failed


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__name__)
def test_public_functions_have_an_example(public: object) -> None:
    assert ">>> " in (public.__doc__ or "")
