"""Names, provenance, atomic files and the CSV log."""

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from intriguing.errors import UserError
from intriguing.runs import provenance
from intriguing.runs.identity import canonical, differences, dump_config, load_config
from intriguing.runs.names import natural_key, short_number, slug
from intriguing.runs.provenance import command_line, git_commit
from intriguing.storage.csv_log import CsvLog
from intriguing.storage.files import file_sha256, write_atomic


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((1e-2, "1e-2"), (1, "1"), (0.003, "3e-3"), (1e-4, "1e-4"), (1.0, "1"), (0.5, "5e-1"), (0.015, "1.5e-2")),
        *((0, "0"), (-0.0, "0"), (10, "10"), (1000, "1000"), (1.5, "1.5"), (1e6, "1e6"), (-0.01, "-1e-2")),
    ],
)
def test_short_number(value, text):
    assert short_number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_short_numbers_are_unique_and_read_back(value):
    assert float(short_number(value)) == value


@given(st.integers())
def test_short_number_of_integers(value):
    assert int(float(short_number(value))) == int(float(value)) if abs(value) < 2**1000 else True


def test_short_number_refuses():
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            short_number(value)
    for value in (True, "1"):
        with pytest.raises(TypeError, match="expected an int or a float"):
            short_number(value)  # type: ignore[arg-type]


@given(st.text())
def test_slug_is_one_safe_part_of_a_path(text):
    try:
        safe = slug(text)
    except ValueError:
        return
    assert Path(safe).name == safe
    assert safe not in (".", "..")
    assert len(safe) <= 100
    assert slug(safe) == safe


def test_slug_keeps_what_differs():
    assert slug("fc10_wd1e-2_full_seed0") == "fc10_wd1e-2_full_seed0"
    assert slug("FC100-100-10'") == "FC100-100-10-prime"
    assert slug("../a b") == "a_b"
    assert slug("x" * 200) != slug("x" * 201)
    with pytest.raises(ValueError, match="letter or a digit"):
        slug("../..")


def test_natural_order():
    names = ["fc100", "fc10", "FC9", "10", "a", "fc10_seed2", "fc10_seed10"]
    assert sorted(names, key=natural_key) == ["10", "a", "FC9", "fc10", "fc10_seed2", "fc10_seed10", "fc100"]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(config=st.dictionaries(st.text(max_size=5), PLAIN, max_size=4))
def test_a_config_on_disk_is_the_same_identity(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert canonical(load_config(path)) == canonical(config)
    assert differences(load_config(path), config) == []


def test_identities():
    assert canonical({"b": 1.0, "a": 1e-4}) == canonical({"a": 0.0001, "b": 1})
    assert canonical({"a": True}) != canonical({"a": 1})
    assert canonical({"a": "1"}) != canonical({"a": 1})
    many = {f"k{i}": i for i in range(20)}
    assert differences(many, {})[-1] == "and 14 more"


def test_command_line_without_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = ["/somewhere/train.py", "data.root=/data/mnist", f"runs={tmp_path}/runs", "a=[/x/y,1]", "lr=1/2"]
    assert command_line(typed) == "train.py data.root=.../mnist runs=runs 'a=[.../y,1]' lr=1/2"
    assert command_line(["attack.py", "checkpoints=runs/train/*/model.ckpt"]).startswith("attack.py 'checkpoints=runs/")
    deleted = ["analyze.py", "~callbacks.back_feeding", "~study.train"]
    assert command_line(deleted) == shlex.join(deleted)


def test_provenance():
    found = provenance.provenance()
    assert found["versions"]["torch"]
    assert found["utc"].endswith("+00:00")
    assert set(found) == {*provenance.ORIGIN, "utc", "command"}
    assert "cpu_capability" in provenance.ORIGIN
    script = "from intriguing.runs.provenance import provenance; print(provenance()['cpu_capability'])"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("DEFAULT", "NO AVX")


def test_git_commit(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def found(folder: Path = tmp_path) -> tuple[str | None, bool | None]:
        git_commit.cache_clear()
        return git_commit(folder)

    assert found() == (None, None)
    git("init", "-q")
    assert found() == (None, None)  # no commit yet
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1")
    (tmp_path / ".gitignore").write_text("/conf/local/\n")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    commit = git("rev-parse", "HEAD")
    for file in ("results/table.csv", "notes.py.txt", "conf/local/mine.yaml"):  # neither code nor configs to share
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1")
    assert found() == (commit, False)
    for file in ("src/b/new.py", "conf/study/new.yaml", "mine.py", "src/a.py"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if path.exists() else None
        path.write_text("2")
        assert found() == (commit, True), file
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
        assert found() == (commit, False)
    (tmp_path / "inner").mkdir()
    assert found(tmp_path / "inner") == (None, None)  # another project's repository says nothing
    git_commit.cache_clear()


def test_files(tmp_path):
    path = tmp_path / "a.bin"
    data = bytes(range(256)) * 10000
    write_atomic(path, data)
    assert file_sha256(path) == hashlib.sha256(data).hexdigest()
    write_atomic(path, "héllo")
    assert path.read_bytes() == "héllo".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    with pytest.raises(UserError, match=r"cannot write .*No such file"):
        write_atomic(tmp_path / "missing" / "b", b"")
    with pytest.raises(UserError, match=r"cannot read .*directory"):
        file_sha256(tmp_path)


def test_csv_log_grows_its_header_and_goes_on(tmp_path):
    path = tmp_path / "metrics.csv"
    log = CsvLog(path)
    assert not path.exists()
    assert log.rows() == []
    log.append({"step": 0, "train/loss": 0.1})
    log.append({"step": 1, "train/loss": torch.tensor(0.25)})
    assert path.read_text() == "step,train/loss\n0,0.1\n1,0.25\n"  # there before anything is closed
    log.append({"step": 2, "val/error": None, "note": 'a "b", c\nd'})
    again = CsvLog(path)
    again.append({"train/loss": torch.tensor([0.5]).double().numpy()[0], "step": 3})
    assert path.read_text() == ('step,train/loss,val/error,note\n0,0.1,,\n1,0.25,,\n2,,,"a ""b"", c d"\n3,0.5,,\n')
    assert [row["step"] for row in again.rows()] == ["0", "1", "2", "3"]
    again.rewind("step", 2)
    assert [row["step"] for row in CsvLog(path).rows()] == ["0", "1"]


def test_csv_log_drops_a_half_written_row(tmp_path):
    path = tmp_path / "metrics.csv"
    for content, kept in (("a,b\n1,2\n3", "a,b\n1,2\n"), ("a,", ""), ("", "")):
        path.write_text(content)
        CsvLog(path).append({"a": 5, "b": 6})
        assert path.read_text() == (kept or "a,b\n") + "5,6\n"
    path.write_bytes(b"\xff\xff\n")
    with pytest.raises(UserError, match="not text"):
        CsvLog(path)
