"""``import intriguing``: light, and every public name is there."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

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


FIT = """
import warnings; warnings.simplefilter("error")
import os, sys
import intriguing as ig
for name in ig.__all__:
    getattr(ig, name)
    assert not {"hydra", "omegaconf", "wandb"} & set(sys.modules), name
data = ig.data.digits()
model = ig.fit(ig.models.FullyConnected(widths=[5]), data, epochs=1)
found = ig.craft(model, data.test.images[:9], data.test.labels[:9])
ig.transfer_table({"model": model}, {"model": found})
assert not {"hydra", "omegaconf", "wandb"} & set(sys.modules)
assert os.listdir() == []
"""


def test_from_the_import_to_a_table_nothing_is_printed_or_written_and_neither_hydra_nor_wandb_is_loaded(
    tmp_path: Path,
) -> None:
    done = subprocess.run([sys.executable, "-c", FIT], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_name_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'intriguing' has no attribute 'lbgfs'"):
        _ = ig.lbgfs


def test_the_version_is_the_distributions() -> None:
    assert ig.__version__ == version("intriguing")


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse(Path(ig.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}  # pyright: ignore
    assert seen.keys() == set(ig.__all__) - {"__version__"}
    for name, (module, original) in seen.items():
        assert name == original
        if module != "intriguing":
            assert module == f"intriguing.{ig._HOMES[name]}"


USER = """
import intriguing as ig

model = ig.fit(ig.models.FullyConnected(widths=[100, 100]), ig.data.digits(), weight_decay=1e-5, epochs=30)
found: ig.AdversarialSet = ig.craft(model, ig.data.digits().test.images, [0, 1], attack="nearest")
text: str = ig.transfer_table({"model": model}, {"model": found}).heading
norm: str = ig.fit  # wrong
ig.crafft  # wrong
"""


@pytest.mark.skipif(shutil.which("pyright", path=Path(sys.executable).parent) is None, reason="pyright is not there")
def test_a_users_script_is_type_checked(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER)
    command = [shutil.which("pyright", path=Path(sys.executable).parent), "--pythonpath", sys.executable, "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if " - error: " in line]
    assert len(lines) == 2 and "mine.py:7:" in lines[0] and "mine.py:8:" in lines[1], done.stdout
