"""Finding runs, and trusting only the bytes they wrote."""

import json
from pathlib import Path

import pytest

from intriguing.errors import UserError
from intriguing.runs.folder import open_run
from intriguing.runs.records import find_runs, read_run
from intriguing.storage.files import file_sha256


def make(root: Path, name: str, *, stage: str = "train", done: bool = True, label: str | None = None) -> Path:
    with open_run(root, stage, name, {"name": name}, label=label) as run:
        run.path("model.ckpt").write_bytes(name.encode() * 10)
        run.path("checkpoints/last.ckpt").write_bytes(b"last")
        if done:
            run.finish({"epochs": 1}, ["model.ckpt"])
    return run.folder


@pytest.fixture
def runs(tmp_path) -> Path:
    for name in ("fc100_seed0", "fc10_seed10", "fc10_seed2"):
        make(tmp_path, name)
    make(tmp_path, "fc9_unfinished", done=False)
    make(tmp_path, "fc10_seed2_lbfgs", stage="attack")
    (tmp_path / "train" / "notes").mkdir()
    return tmp_path


def names(records) -> list[str]:
    return [record.name for record in records]


def test_a_record(tmp_path):
    folder = make(tmp_path, "fc", label="FC10(1e-2)")
    record = read_run(folder)
    assert (record.stage, record.name, record.label, record.state) == ("train", "fc", "FC10(1e-2)", "finished")
    assert record.config == record.identity == {"name": "fc"}
    assert record.result == {"epochs": 1}
    assert record.artifacts == {"model.ckpt": file_sha256(folder / "model.ckpt")}
    assert read_run(make(tmp_path, "plain")).label == "plain"


@pytest.mark.parametrize("pattern", ["train/*", "train/*/model.ckpt", "train/**/*.ckpt", "*/*", "train/fc*"])
def test_globs_give_finished_runs_of_the_stage_in_natural_order(runs, pattern):
    assert names(find_runs(str(runs / pattern), stage="train")) == ["fc10_seed2", "fc10_seed10", "fc100_seed0"]


def test_a_folder_a_file_and_what_was_picked(runs):
    folder = runs / "train" / "fc10_seed2"
    assert find_runs(folder, stage="train")[0].picked is None
    for file in ("model.ckpt", "checkpoints/last.ckpt"):
        (record,) = find_runs(folder / file, stage="train")
        assert record.folder == folder
        assert record.picked == folder / file
    assert find_runs(str(folder / "*"), stage="train")[0].picked is None  # several files
    assert "fc9_unfinished" in names(find_runs(str(runs / "train/*"), stage="train", finished=False))


def test_a_relative_pattern(runs, monkeypatch):
    monkeypatch.chdir(runs)
    assert names(find_runs("attack/*", stage="attack")) == ["fc10_seed2_lbfgs"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("train/nothing*", "nothing matches .*expected a train run"),
        ("attack/*", "matches only attack runs; expected a train run"),
        ("train/notes", "matches no run folder"),
        ("train/fc9*", "none finished .*fc9_unfinished is interrupted"),
    ],
)
def test_what_is_wrong_and_what_would_be_right(runs, pattern, words):
    with pytest.raises(UserError, match=words) as caught:
        find_runs(str(runs / pattern), stage="train")
    assert "\n" not in str(caught.value)


def test_no_folder_no_record(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"no run folder.*config\.yaml"):
            read_run(path)


def test_a_damaged_record_is_named(runs):
    path = runs / "train" / "fc10_seed2" / "run.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"fc10_seed2.run\.json is no readable JSON"):
        find_runs(str(runs / "train/*"), stage="train")


def test_every_flipped_byte_of_an_artifact_is_found(tmp_path):
    folder = make(tmp_path, "fc")
    record = read_run(folder)
    path = folder / "model.ckpt"
    assert record.verify("model.ckpt") == path
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(UserError, match=r"model\.ckpt was changed or damaged"):
            record.verify("model.ckpt")
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match="changed or damaged"):
        record.verify("model.ckpt")
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*model\.ckpt"):
        record.verify("model.ckpt")


def test_every_flipped_byte_of_the_record_is_found_or_harmless(tmp_path):
    """A byte that JSON does not care about (layout, the checksum's own name) may change; what a reader sees can not."""
    path = make(tmp_path, "fc") / "run.json"
    content = path.read_bytes()

    def seen() -> dict | None:
        try:
            record = read_run(path.parent)
        except UserError:
            return None
        return {key: record.info.get(key) for key in json.loads(content) if key != "checksum"}

    whole = seen()
    assert whole
    assert whole["state"] == "finished"
    for position in range(0, len(content), 2):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        assert seen() in (None, whole)


def test_an_artifact_outside_the_folder_is_never_opened(tmp_path):
    folder = make(tmp_path, "fc")
    (tmp_path / "secret").write_text("x")
    path = folder / "run.json"
    info = json.loads(path.read_text())
    del info["checksum"]  # as written by hand
    info["artifacts"] = {"../../secret": file_sha256(tmp_path / "secret")}
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match="outside"):
        read_run(folder).verify("../../secret")
    with pytest.raises(UserError, match=r"not an artifact of its run; recorded: \.\./"):
        read_run(folder).verify("model.ckpt")
