"""A run folder holds what Hydra's users look for: the composed config, the overrides, Hydra's own config, a log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir

from intriguing.cli.hydra_files import hydra_files

ROOT = Path(__file__).parents[2]
GIVEN = ("data=digits", "model=fc10", "optimizer=adamw", "optimizer.lr=3e-4", "trainer.max_epochs=1", "logger=csv")


def test_every_stage_keeps_its_config_beside_the_result(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    assert run_script("train.py", *GIVEN, "name=net")[0] == 0
    network = tmp_path / "runs" / "train" / "net"
    config, overrides, hydra = (
        yaml.safe_load((network / ".hydra" / f"{name}.yaml").read_text()) for name in ("config", "overrides", "hydra")
    )
    assert config["optimizer"]["_target_"] == "torch.optim.AdamW" and float(config["optimizer"]["lr"]) == 3e-4
    assert config["weight_decay"]["value"] == "${model.recipe.weight_decay}"  # as composed, not as resolved
    assert overrides[: len(GIVEN)] == list(GIVEN)
    assert hydra["hydra"]["runtime"]["choices"]["optimizer"] == "adamw"
    assert (network / "train.log").is_file()
    assert run_script("attack.py", f"checkpoints={network}", "limit=4", "logger=csv", "name=set")[0] == 0
    assert run_script("analyze.py", f"networks={network}", "sections=[table1]", "logger=csv", "name=page")[0] == 0
    for stage, name in (("attack", "set"), ("analyze", "page")):
        folder = tmp_path / "runs" / stage / name
        assert (folder / ".hydra" / "overrides.yaml").is_file() and (folder / f"{stage}.log").is_file()


def test_nothing_is_written_into_a_folder_of_another_config(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    assert run_script("train.py", *GIVEN, "name=net")[0] == 0
    folder = tmp_path / "runs" / "train" / "net"
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    status, _, err = run_script("train.py", *GIVEN, "name=net", "scheduler=constant")
    assert status == 1 and "scheduler" in err
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_config_that_was_composed_by_a_program_has_them_too() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=list(GIVEN), return_hydra_config=True)
    files = hydra_files(config, GIVEN)
    assert set(files) == {".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/hydra.yaml"}
    assert yaml.safe_load(files[".hydra/overrides.yaml"]) == list(GIVEN)
    assert "hydra" not in yaml.safe_load(files[".hydra/config.yaml"])
