"""No arrow points up: what each module may import, read off its source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "intriguing"
LAYERS = {
    0: [
        "optim",
        "spectral",
        "metrics",
        "errors",
        "checks",
        "finite",
        "signals",
        "streams",
        "nn",
        "arguments",
        "clusters",
    ],
    1: ["attacks", "models", "data", "image_folder", "units", "results"],
    2: ["checkpoints", "checkpoint_file", "adversarial_set", "sealed", "callbacks"],
    3: ["training", "attacking", "analysis", "report"],
    4: ["study", "reporting"],
    5: ["doors", "console", "overrides", "sweep"],
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
PURE = {"attacks", "optim", "spectral", "units"}
HEAVY = {"lightning", "hydra", "wandb", "omegaconf"}


def _imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(SOURCE.rglob("*.py"))


def _part(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_module_imports_only_from_its_own_layer_or_below(file: Path) -> None:
    part = _part(file)
    own = {name.split(".")[1] for name in _imports(file) if name.startswith("intriguing.")} - {part, "__version__"}
    if part == "tracking":
        assert own <= {"errors"}, f"tracking is imported by all and imports none, but imports {own}"
    elif part != "__init__":
        above = {name for name in own if name != "tracking" and LAYER[name] > LAYER[part]}
        assert not above, f"{part} (layer {LAYER[part]}) imports {above} from above"
        if LAYER[part] == 3:
            stages = {name for name in own if LAYER.get(name) == 3}
            assert not stages, f"stage {part} imports the stage {stages}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_heavy_libraries_stay_where_they_belong(file: Path) -> None:
    part, roots = _part(file), {name.split(".")[0] for name in _imports(file)}
    if part in PURE:
        assert not roots & HEAVY
    if part != "tracking":
        assert "wandb" not in roots
    if part not in {"doors", "overrides", "sweep"}:
        assert not roots & {"hydra", "omegaconf"}, "a DictConfig is never seen below the doors"
