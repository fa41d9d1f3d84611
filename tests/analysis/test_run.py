"""An adversarial set belongs to the network whose weights it was made for, wherever that lies and whatever its name."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import run
from intriguing.analysis.job import AnalysisJob
from intriguing.analysis.run import run_analysis
from intriguing.attacking import AttackJob, craft
from intriguing.cli.config import plain, training_job
from intriguing.errors import UserError
from intriguing.runs.records import with_checksum
from intriguing.storage.files import file_sha256
from intriguing.training import fit

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a/net`` with a set made for it, and ``b/net``, another network of that name."""
    base = tmp_path_factory.mktemp("runs")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for runs, epochs in (("a", 1), ("b", 3)):
            common = [f"runs={base}/{runs}", "logger=csv"]
            given = ["data=digits", "model=fc10", "name=net", f"trainer.max_epochs={epochs}"]
            fit(training_job(plain(compose("train", [*common, *given]))))
        common = [f"runs={base}/a", "logger=csv", f"checkpoints={base}/a/train/net"]
        (job,) = AttackJob.from_config(plain(compose("attack", [*common, "attack=nearest", "limit=16", "name=set"])))
    craft(job)
    return base


def _report(composed: Callable[..., dict], networks: Path | list[Path], made: Path, *more: str) -> Path:
    given = f"networks={networks}" if isinstance(networks, Path) else f"networks=[{','.join(map(str, networks))}]"
    return run_analysis(AnalysisJob.from_config(composed("analyze", given, f"sets={made}/a/attack/set", *more)))


def _table(folder: Path) -> str:
    return (folder / "tables" / "table1.csv").read_text()


def test_a_set_is_not_reported_as_that_of_another_network_of_the_same_name(
    composed: Callable[..., dict], made: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"a/attack/set was made for a network called net with other weights than .*b/"):
        _report(composed, made / "b/train/net", made)
    assert not (tmp_path / "runs").exists()


def test_a_network_whose_folder_was_renamed_and_moved_owns_its_set(
    composed: Callable[..., dict], made: Path, tmp_path: Path
) -> None:
    before = _table(_report(composed, made / "a/train/net", made, "name=before"))
    assert "distortion" in before and "set" in before
    moved = shutil.copytree(made / "a/train/net", tmp_path / "elsewhere" / "train" / "renamed")
    assert _table(_report(composed, Path(moved), made, "name=after")) == before


def test_a_set_that_was_made_after_its_network_was_renamed_is_its_own(
    composed: Callable[..., dict], made: Path, tmp_path: Path
) -> None:
    renamed = Path(shutil.copytree(made / "a/train/net", tmp_path / "elsewhere" / "train" / "renamed"))
    config = composed("attack", f"checkpoints={renamed}", "attack=nearest", "limit=16", "name=later")
    (job,) = AttackJob.from_config(config)
    later = craft(job)
    assert job.identity["source"]["name"] == "renamed"
    found = run_analysis(
        AnalysisJob.from_config(composed("analyze", f"networks={renamed}", f"sets={later}", "sections=[table1]"))
    )
    assert "av. distortion" in _table(found)


def test_a_set_of_a_network_that_is_not_there_is_nobodys_own(
    composed: Callable[..., dict], made: Path, tmp_path: Path
) -> None:
    config = composed("train", "data=digits", "model=fc10", "name=other", "trainer.max_epochs=2")
    other = fit(training_job(config))
    found = _report(composed, other, made, "sections=[table1,table2]")
    assert "av. distortion" not in _table(found)
    rows = (found / "tables" / "table2.csv").read_text()
    assert "FC10(1e-4) [net, sha256 " in rows and "FC10(1e-4),FC10(1e-4)," not in rows


def test_a_set_that_its_run_does_not_vouch_for_is_refused(
    composed: Callable[..., dict], made: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(made / "a/attack/set", tmp_path / "attack" / "set"))
    crafted = AdversarialSet.load(copy / "set.safetensors")
    crafted.metadata["source"]["checkpoint_sha256"] = "0" * 64
    crafted.save(copy / "set.safetensors")
    info = json.loads((copy / "run.json").read_text())
    info["artifacts"]["set.safetensors"] = file_sha256(copy / "set.safetensors")
    (copy / "run.json").write_text(json.dumps(with_checksum(info)))
    given = (f"networks={made}/a/train/net", f"sets={copy}")
    with pytest.raises(UserError, match=r"set\.safetensors names another source than config\.yaml"):
        run_analysis(AnalysisJob.from_config(composed("analyze", *given)))


def test_two_networks_of_one_name_are_refused_in_one_line(composed: Callable[..., dict], made: Path) -> None:
    with pytest.raises(UserError, match=r"two networks are called net: .*a/train/net and .*b/train/net"):
        _report(composed, [made / "a/train/net", made / "b/train/net"], made)


def test_each_checkpoint_and_each_set_is_opened_once(
    composed: Callable[..., dict], made: Path, count_opens: Callable[[], Counter[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    original = run.open_images
    monkeypatch.setattr(run, "open_images", lambda **data: loaded.append(data["name"]) or original(**data))
    config = ("sections=[table1,figure7,examples,stability]", "settings.figure7.deep='FC10(1e-4)'")
    with count_opens() as opened:
        _report(composed, made / "a/train/net", made, *config)
    assert opened[str(made / "a/train/net/model.ckpt")] == 1
    assert opened[str(made / "a/attack/set/set.safetensors")] == 1
    assert loaded == ["digits"]


def test_a_set_that_is_damaged_ends_the_analysis_before_anything_is_written(
    composed: Callable[..., dict], made: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(made / "a/attack/set", tmp_path / "attack" / "set"))
    content = bytearray((copy / "set.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "set.safetensors").write_bytes(content)
    given = (f"networks={made}/a/train/net", f"sets={copy}")
    with pytest.raises(UserError, match=r"set\.safetensors was changed or damaged since its run wrote it"):
        run_analysis(AnalysisJob.from_config(composed("analyze", *given)))
    assert not (tmp_path / "runs").exists()


def test_small_copies_keep_charts_as_png_and_photographs_as_jpeg(tmp_path: Path) -> None:
    chart, photograph = tmp_path / "chart.png", tmp_path / "photograph.png"
    Image.new("RGB", (900, 500), "white").save(chart)
    pixels = torch.randint(0, 256, (700, 700, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(photograph)
    suffix, content = run._smaller(chart)
    assert suffix == ".png" and Image.open(io.BytesIO(content)).size == (900, 500)
    suffix, content = run._smaller(photograph)
    assert suffix == ".jpg" and len(content) <= run.SMALL and Image.open(io.BytesIO(content)).format == "JPEG"
    assert run._short({"classes": ["x"] * 1000, "b": 1}) == {"classes": "1000 entries, x to x", "b": 1}
