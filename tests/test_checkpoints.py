"""Checkpoints: a changed byte is found wherever it is and wherever the file lies; a hostile file does nothing."""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from malformed_cases import (
    OUTSIDE,
    Payload,
    bomb,
    forged_archive,
    forged_checkpoint,
    four_bytes,
    pickle,
    tensor_of,
    twice,
)
from malformed_runs import in_child

from intriguing.checkpoints import AtomicCheckpointIO, load_model, read_checkpoint
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.runs.records import read_run
from intriguing.storage import checkpoint_file
from intriguing.training import fit

ROOT = Path(__file__).parent.parent
GROWTH = 200 * 2**20  # bytes of address space that reading a hostile file may take, at most


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with pools, Adam's state and a learning rate schedule in its last checkpoint."""
    from hydra import compose, initialize_config_dir

    from intriguing.cli.config import plain

    runs = tmp_path_factory.mktemp("runs")
    overrides = ["data=digits", "logger=csv", "trainer.max_epochs=1", "model.settings.widths=[6,5]", "name=net"]
    overrides += ["optimizer=adam", "callbacks=back_feeding", "callbacks.back_feeding.size=3"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return fit(training_job(plain(compose("train", overrides=[f"runs={runs}", *overrides])), (), ""))


def classes_of_bytes(path: Path) -> dict[str, range]:
    """Where what lies in a checkpoint: each tensor's data, the structure, names, padding, the directory, the seal."""
    with zipfile.ZipFile(path) as archive:
        entries, directory = archive.infolist(), archive.start_dir
    content, found = path.read_bytes(), {}
    for entry, after in zip(entries, [*(one.header_offset for one in entries[1:]), directory], strict=True):
        name = entry.filename.partition("/")[2]
        data = entry.header_offset + 30 + sum(content[entry.header_offset + 26 + 2 * i] for i in (0, 1))
        data += 256 * sum(content[entry.header_offset + 27 + 2 * i] for i in (0, 1))
        found[f"header of {name}"] = range(entry.header_offset, data)
        found[f"data of {name}"] = range(data, data + entry.file_size)
        found[f"after {name}"] = range(data + entry.file_size, after)
    found["directory"] = range(directory, len(content) - checkpoint_file.COMMENT)
    found["comment"] = range(len(content) - checkpoint_file.COMMENT, len(content))
    return {name: places for name, places in found.items() if len(places)}


@pytest.mark.parametrize("file", ["model.ckpt", "checkpoints/last.ckpt"])
def test_a_changed_byte_is_found_at_every_kind_of_place(trained: Path, tmp_path: Path, file: str) -> None:
    places, content = classes_of_bytes(trained / file), (trained / file).read_bytes()
    assert {"data of data.pkl", "data of data/0", "header of version", "directory", "comment"} <= set(places)
    assert sum(map(len, places.values())) == len(content)
    copy, draw = tmp_path / "moved.ckpt", random.Random(0)
    copy.write_bytes(content)
    load_model(copy)  # whole, and away from its run
    tried = 0
    for where in places.values():
        for place in {where[0], where[-1], *(draw.choice(where) for _ in range(6))}:
            changed = bytearray(content)
            changed[place] ^= 1 << draw.randrange(8)
            copy.write_bytes(changed)
            with pytest.raises(UserError, match=r"moved\.ckpt (is|was) ") as caught:
                load_model(copy)
            assert "\n" not in str(caught.value)
            tried += 1
    assert tried > 150


def test_a_cut_or_lengthened_file_is_refused(trained: Path, tmp_path: Path) -> None:
    content, copy = (trained / "model.ckpt").read_bytes(), tmp_path / "moved.ckpt"
    for other in (b"", content[:1], content[:-1], content[: len(content) // 2], content[1:], content + b"\0"):
        copy.write_bytes(other)
        with pytest.raises(UserError, match=r"moved\.ckpt"):
            load_model(copy)


def test_the_pools_and_the_optimiser_are_there_and_torch_reads_the_file_alone(trained: Path) -> None:
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["optimizer_states"] and content["lr_schedulers"]
    assert any("BackFeeding" in name for name in content["callbacks"])
    assert content.keys() == read_checkpoint(trained / "checkpoints" / "last.ckpt").keys()


def test_every_file_of_a_run_carries_its_sha256(trained: Path) -> None:
    record = read_run(trained)
    assert set(record.artifacts) == {"model.ckpt", "metrics.csv"}
    record.verify_all()
    sealed = {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}  # within, because they may be removed
    for name in sealed:
        read_checkpoint(trained / name)
    by_value = {"config.yaml", "run.json"}  # identity_sha256 and checksum in run.json
    others = {str(file.relative_to(trained)) for file in trained.rglob("*") if file.is_file()} - {".lock", "train.log"}
    assert others == set(record.artifacts) | sealed | by_value


def test_a_checkpoint_without_its_digest_is_refused(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "alone.ckpt"
    torch.save(read_checkpoint(trained / "model.ckpt"), file)
    with pytest.raises(UserError, match=r"alone\.ckpt is truncated or damaged: it does not end in its sha256"):
        load_model(file)


@pytest.mark.parametrize("written", [1, 2, "x" * 999, None])
def test_another_format_is_named_with_ours(trained: Path, tmp_path: Path, written: Any) -> None:
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes((trained / "model.ckpt").read_bytes())
    version = "0.9\nrm -rf"
    forged_checkpoint(lambda c: c["intriguing"].update(format=written, version=version), Path(copy.name))(tmp_path)
    with pytest.raises(UserError, match=r"in format .*\(version '0.9\\nrm -rf' of the .*, reads format 3") as caught:
        load_model(copy)
    assert len(str(caught.value)) < 500


def _of_settings(**settings: Any) -> Callable[[Path], None]:
    return forged_checkpoint(lambda content: content["hyper_parameters"].update(settings), Path("model.ckpt"))


def _archive(data: bytes, extra: Callable[[zipfile.ZipFile], object] = lambda archive: None) -> Callable[[Path], None]:
    return forged_archive(data, extra, Path("model.ckpt"))


INSIDE = b"\x80\x02}X\1\0\0\0a"  # {"a": what follows}, closed by "s."
DOUBLED: list[Any] = []
for _ in range(60):  # 2^60 lists to one who follows every reference
    DOUBLED = [DOUBLED, DOUBLED]
HOSTILE = {
    "a command": _archive(pickle.dumps(Payload(), 2)),
    "a command in a list": _archive(pickle.dumps({"state_dict": [Payload()]}, 2)),
    "a command by another way to name it": _archive(pickle.dumps(Payload(), 4)),
    "a command by INST": _archive(b"(S'touch executed'\nios\nsystem\n."),
    "a _target_": _of_settings(_target_="os.system", command="touch executed"),
    "weights elsewhere": _of_settings(**OUTSIDE),
    "huge layers": _of_settings(widths=[10**9, 10**9]),
    "very many layers": _of_settings(widths=[1] * 200_000),
    "negative layers": _of_settings(widths=[-5, 5]),
    "huge images": _of_settings(input_shape=[1, 10**6, 10**6]),
    "infinite settings": _of_settings(normaliser=float("inf")),
    "very many classes": _of_settings(num_classes=10**12),
    "a tensor larger than its storage": _archive(tensor_of([10**12], [1], 4), four_bytes),
    "a storage larger than the file": _archive(tensor_of([10**12], [1], 10**12), four_bytes),
    "one number as many": _archive(tensor_of([10**12], [0], 1), four_bytes),
    "a negative shape": _archive(tensor_of([-5], [1], 1), four_bytes),
    "a negative stride": _archive(tensor_of([5], [-1], 1), four_bytes),
    "a zip bomb": _archive(tensor_of([4], [1], 4), bomb),
    "a key twice": _archive(b"\x80\x02}.", twice),
    "a deep nest": _archive(INSIDE + b"]" * 100_000 + b"a" * 99_999 + b"s."),
    "a list that grows by doubling": _archive(pickle.dumps({"a": DOUBLED}, 2)),
    "a bytearray of 10^12": _archive(b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\0\x10\xa5\xd4\xe8\0\x85R."),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_checkpoint_executes_nothing_and_takes_little_memory(
    kind: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.ckpt").write_bytes((trained / "model.ckpt").read_bytes())
    HOSTILE[kind](tmp_path)
    monkeypatch.chdir(tmp_path)

    def read() -> None:
        before = _peak()
        try:
            load_model("model.ckpt")
        except UserError as error:
            print(error)
        else:
            print("nothing was said")
        assert _peak() - before < GROWTH, f"took {_peak() - before} bytes"

    status, _ = in_child(read, tmp_path / "said")
    said = (tmp_path / "said").read_text()
    assert status == 0, (tmp_path / "said.err").read_text()
    assert said.startswith("model.ckpt ") and said.count("\n") == 1, said
    assert not (tmp_path / "executed").exists()


def _peak() -> int:
    """The most address space that this process has had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmPeak:")[2].split()[0])


def test_a_command_would_be_run_by_a_careless_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payload of the tests above is a real one."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Payload()))
    assert (tmp_path / "executed").exists()


def test_nothing_outside_the_run_is_removed_on_the_word_of_a_checkpoint(tmp_path: Path) -> None:
    """Which checkpoint was the best one so far, and goes when there is a better, is read from a checkpoint."""
    run = tmp_path / "run" / "checkpoints"
    run.mkdir(parents=True)
    files = {name: tmp_path / name for name in ("other.ckpt", "run/notes.txt", "run/checkpoints/old.ckpt")}
    for file in files.values():
        file.write_text("x")
    (run / "link.ckpt").symlink_to(files["other.ckpt"])
    io_plugin = AtomicCheckpointIO(tmp_path / "run")
    for path in (run / "../../other.ckpt", files["other.ckpt"], files["run/notes.txt"], run, run / "link.ckpt"):
        io_plugin.remove_checkpoint(str(path))
    assert all(file.exists() for file in files.values())
    io_plugin.remove_checkpoint(str(files["run/checkpoints/old.ckpt"]))
    assert not files["run/checkpoints/old.ckpt"].exists()
    assert os.path.exists(run)
