"""No arrow points up: what each module may import, read off its source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "intriguing"
LAYERS = {
    0: ["errors", "commands", "validation", "metrics", "optim", "spectral", "statistics", "nn"],
    1: ["attacks", "controls", "models", "data", "units", "storage"],
    2: ["checkpoints", "adversarial_set", "results", "callbacks", "runs", "tracking"],
    3: ["training", "attacking", "analysis", "report"],
    4: ["cli", "interface", "integrations"],
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
STAGES = {"training", "attacking", "analysis"}
PURE = {"attacks", "controls", "optim", "spectral", "statistics", "units"}
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
    if part == "__init__":
        return
    above = {name for name in own if LAYER[name] > LAYER[part]}
    assert not above, f"{part} (layer {LAYER[part]}) imports {above} from above"
    if part in STAGES:
        assert not own & STAGES, f"stage {part} imports the stage {own & STAGES}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_heavy_libraries_stay_where_they_belong(file: Path) -> None:
    part, roots = _part(file), {name.split(".")[0] for name in _imports(file)}
    if part in PURE:
        assert not roots & HEAVY
    if part != "tracking":
        assert "wandb" not in roots
    if part != "cli":
        assert not roots & {"hydra", "omegaconf"}, "a DictConfig is never seen below the entry points"


def test_the_python_interface_is_not_built_on_the_command_line() -> None:
    for file in (SOURCE / "interface").rglob("*.py"):
        assert not any(name.startswith("intriguing.cli") for name in _imports(file))


def _modules() -> dict[str, Path]:
    names = {file: ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts) for file in FILES}
    return {name.removesuffix(".__init__"): file for file, name in names.items()}


def test_no_module_imports_itself_through_others() -> None:
    modules = _modules()
    del modules["intriguing"]  # which imports a name only when it is used (test_public_names)
    uses = {
        name: {one if one in modules else one.rpartition(".")[0] for one in _imports(file)} & modules.keys() - {name}
        for name, file in modules.items()
    }
    while leaves := [name for name, used in uses.items() if not used & uses.keys()]:
        for name in leaves:
            del uses[name]
    assert not uses, f"circles among {sorted(uses)}"
