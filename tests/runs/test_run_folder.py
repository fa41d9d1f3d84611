"""The guard, the lock and the states of a run folder, with real processes."""

import errno
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from intriguing.errors import UserError
from intriguing.runs.folder import RunFolder, open_run
from intriguing.runs.guard import load_or_error, run_status
from intriguing.runs.identity import dump_config, identity_sha256
from intriguing.runs.records import load_info, read_run
from intriguing.storage.files import sync_folder

CONFIG = {"seed": 0, "model": {"name": "fully_connected", "widths": [100, 100]}, "weight_decay": {"value": [1e-4, 1.0]}}


def start(root: Path, identity: dict | None = None, **more) -> RunFolder:
    return open_run(root, "train", "fc", CONFIG if identity is None else identity, command="train.py seed=0", **more)


def finished(root: Path) -> Path:
    with start(root, label="FC100-100-10", study="paper", tags=["a"]) as run:
        run.path("model.ckpt").write_bytes(b"weights")
        run.finish({"errors": {"test": [3, 100]}, "epochs": 2}, ["model.ckpt"])
    return run.folder


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def python(code: str, *arguments: object, **more) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        **more,
    )


def test_a_run_from_start_to_finish(tmp_path):
    with start(tmp_path / "not" / "yet", label="FC100-100-10") as run:
        assert run.folder == tmp_path / "not" / "yet" / "train" / "fc"
        assert (run.finished, run.resumed, run.result) == (False, False, {})
        assert read_run(run.folder).state == "running"
        run.path("checkpoints/last.ckpt").write_bytes(b"w")
        run.finish({"epochs": 3}, ["checkpoints/last.ckpt"])
    info = json.loads((run.folder / "run.json").read_text())
    assert info["state"] == "finished"
    assert info["result"] == {"epochs": 3}
    assert info["artifacts"] == {"checkpoints/last.ckpt": hashlib.sha256(b"w").hexdigest()}
    assert (info["label"], info["command"], info["tags"]) == ("FC100-100-10", "train.py seed=0", [])
    assert info["identity_sha256"] == identity_sha256(CONFIG)
    assert info["seconds"] >= 0
    assert info["versions"]["intriguing"]
    assert read_run(run.folder).config == CONFIG
    assert not list(run.folder.glob(".*.tmp"))


def test_a_finished_run_is_reported_and_untouched(tmp_path):
    folder = finished(tmp_path)
    before = snapshot(folder)
    reordered = {"weight_decay": {"value": (0.0001, 1)}, "seed": 0.0, "model": dict(reversed(CONFIG["model"].items()))}
    with start(tmp_path, reordered) as run:
        assert run.finished
        assert run.result == {"errors": {"test": [3, 100]}, "epochs": 2}
        with pytest.raises(RuntimeError, match="not open for writing"):
            run.finish({})
    assert run_status(tmp_path, "train", "fc", reordered) == "finished"
    assert run_status(tmp_path, "train", "new", reordered) == "new"
    with pytest.raises(UserError, match="seed is 0 there and 1 here"):
        run_status(tmp_path, "train", "fc", {**CONFIG, "seed": 1})
    assert snapshot(folder) == before


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_another_config_is_refused_by_key_and_nothing_is_written(tmp_path, state):
    folder = finished(tmp_path)
    if state == "failed":
        (folder / "run.json").unlink()
    before = snapshot(folder)
    other = {**CONFIG, "seed": 1, "model": {"name": "fully_connected", "widths": [200]}, "extra": None}
    with pytest.raises(UserError) as caught:
        start(tmp_path, other)
    message = str(caught.value)
    assert "seed is 0 there and 1 here" in message
    assert "model.widths is [100,100] there and [200] here" in message
    assert "extra is absent there and null here" in message
    assert "model.name" not in message
    assert "\n" not in message
    assert snapshot(folder) == before


def test_states_after_errors_and_resume(tmp_path):
    with pytest.raises(ZeroDivisionError), start(tmp_path):
        _ = 1 / 0
    record = read_run(tmp_path / "train" / "fc")
    assert record.state == "failed"
    assert record.info["error"] == "ZeroDivisionError: division by zero"
    for reason in (KeyboardInterrupt, SystemExit):
        run = start(tmp_path)
        assert run.resumed
        with pytest.raises(reason), run:
            raise reason
        assert read_run(run.folder).state == "interrupted"
    began = record.info["started"]
    with start(tmp_path) as run:
        pass  # left without finish
    assert read_run(run.folder).state == "interrupted"
    with start(tmp_path) as run:
        with pytest.raises(ValueError, match="not JSON compliant"):
            run.finish({"k": float("inf")})
        run.finish({"k": 1e300})
    after = read_run(run.folder)
    assert (after.state, after.result, after.info["started"]) == ("finished", {"k": 1e300}, began)
    assert "error" not in after.info


def test_an_error_after_finish_keeps_the_result(tmp_path):
    run = start(tmp_path)
    run.finish({"k": 1})
    with pytest.raises(KeyError), run:
        raise KeyError
    assert read_run(run.folder).state == "finished"


def test_a_finished_run_without_its_artifact_runs_again(tmp_path, caplog):
    folder = finished(tmp_path)
    (folder / "model.ckpt").unlink()
    with start(tmp_path) as run:
        assert run.resumed
        assert not run.finished
    assert "model.ckpt is gone" in caplog.text


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff\xfe", b"[1]", b'{"state": "done"}', b"[" * 100000, b'{"state"'])
def test_a_damaged_record_counts_as_unfinished_if_the_config_is_the_same(tmp_path, garbage):
    folder = finished(tmp_path)
    (folder / "run.json").write_bytes(garbage)
    with pytest.raises(UserError, match="seed is 0 there and 5 here"):
        start(tmp_path, {**CONFIG, "seed": 5})
    with start(tmp_path) as run:
        assert run.resumed
        assert not run.finished
    (folder / "run.json").write_bytes(garbage)
    (folder / "config.yaml").write_bytes(b"a: [")
    with pytest.raises(UserError, match="remove the folder"):
        start(tmp_path)


def test_a_changed_number_in_the_record_is_found(tmp_path):
    path = finished(tmp_path) / "run.json"
    path.write_text(path.read_text().replace("3,", "1,"))
    with pytest.raises(UserError, match="checksum"):
        read_run(path.parent)
    with start(tmp_path) as run:
        assert not run.finished


@pytest.mark.parametrize(
    "damage", [None, b"", b"\x00", b"- 1", b"a: &x [1]\nb: *x", b"x: " + b"[" * 3000, b"#" * 2**21]
)
def test_a_lost_or_damaged_config_is_restored_from_a_finished_runs_hash(tmp_path, damage):
    folder = finished(tmp_path)
    (folder / "config.yaml").unlink()
    if damage is not None:
        (folder / "config.yaml").write_bytes(damage)
    with pytest.raises(UserError, match="unreadable"):
        start(tmp_path, {**CONFIG, "seed": 1})
    with start(tmp_path) as run:
        assert run.finished
    assert damage is not None or read_run(folder).config == CONFIG


def test_an_edited_config_is_no_proof(tmp_path):
    folder = finished(tmp_path)
    other = {**CONFIG, "seed": 1}
    (folder / "config.yaml").write_text(dump_config(other))
    with pytest.raises(UserError, match="changed after the run"):
        start(tmp_path, other)
    with pytest.raises(UserError, match="changed after the run"):
        read_run(folder)


def test_a_foreign_folder_is_refused_and_a_log_file_is_not(tmp_path):
    folder = tmp_path / "train" / "fc"
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("x")
    (folder / ".hydra").mkdir()
    with start(tmp_path) as run:
        assert not run.resumed
    other = tmp_path / "train" / "thesis"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        open_run(tmp_path, "train", "thesis", CONFIG)
    assert [p.name for p in other.iterdir()] == ["thesis.tex"]


def test_wrong_places_and_names(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        start(tmp_path / "file")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "fc").write_text("")
    with pytest.raises(UserError, match="cannot be a run folder"):
        start(tmp_path)
    for name in ("", "..", "a/b", ".hidden", "a b", "x" * 300, "FC100-100-10'"):
        with pytest.raises(UserError, match="cannot be a folder"):
            open_run(tmp_path, "train", name, CONFIG)
    with pytest.raises(ValueError, match="expected a stage"):
        open_run(tmp_path, "training", "x", CONFIG)
    with pytest.raises(TypeError, match=r"identity\.model\.path: expected a plain value"):
        open_run(tmp_path, "train", "x", {"model": {"path": Path("a")}})
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["fc", "file", "train"]


def test_an_unwritable_folder():
    user = os.geteuid()
    other = user or 65534  # root may write anywhere, so it acts as the user "nobody" meanwhile
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which only its owner may enter
        os.chown(folder, other, -1)
        os.chmod(folder, 0o500)
        os.seteuid(other)
        try:
            assert os.listdir(folder) == []
            with pytest.raises(UserError, match="Permission denied"):
                start(Path(folder))
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o700)
        assert os.listdir(folder) == []


def test_artifacts_stay_inside(tmp_path):
    (tmp_path / "outside").write_text("")
    with start(tmp_path) as run:
        for name in ("../../outside", str(tmp_path / "outside")):
            with pytest.raises(UserError, match="outside"):
                run.finish({}, [name])
            with pytest.raises(UserError, match="outside"):
                run.path(name)
        with pytest.raises(UserError, match="No such file"):
            run.finish({}, ["model.ckpt"])
        with pytest.raises(TypeError, match=r"result\.a"):
            run.finish({"a": object()})
    assert read_run(run.folder).state == "interrupted"


HOLD = """
import sys
from intriguing.runs.folder import open_run
with open_run(sys.argv[1], "train", "fc", {"seed": 0}) as run:
    print("open", flush=True)
    sys.stdin.readline()
    run.finish({})
"""


def test_the_second_process_is_refused_at_once_and_a_killed_one_frees_the_folder(tmp_path):
    process = python(HOLD, tmp_path)
    with process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="in use by another process"):
            start(tmp_path, {"seed": 0})
        assert start(tmp_path, {"seed": 0}, writer=False).resumed  # another rank of the same run
        process.kill()
    assert read_run(tmp_path / "train" / "fc").state == "running"
    with start(tmp_path, {"seed": 0}) as run:
        assert run.resumed
        with pytest.raises(UserError, match="in use"):
            start(tmp_path, {"seed": 0})
        run.finish({})


def test_of_many_processes_one_opens_the_folder(tmp_path):
    processes = [python(HOLD, tmp_path) for _ in range(4)]
    # the winner waits for a line: the others end first
    ended = []
    for process in processes:
        assert process.stdout
        ended.append(process.stdout.readline())
    assert sorted(ended) == ["", "", "", "open\n"]
    for process, line in zip(processes, ended, strict=True):
        _, error = process.communicate("\n" if line else None, timeout=60)
        assert ("in use" in error) == (line == "")
    assert read_run(tmp_path / "train" / "fc").state == "finished"


KILL = """
import os, signal, sys
from intriguing.runs.folder import open_run
from intriguing.storage import files
count, at, replace = 0, int(sys.argv[2]), os.replace
def replace_or_die(old, new):
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(old, new)
files.os.replace = replace_or_die
with open_run(sys.argv[1], "train", "fc", {"seed": 0}) as run:
    run.path("model.ckpt").write_bytes(b"w")
    run.finish({"k": 1}, ["model.ckpt"])
"""


@pytest.mark.parametrize("at", [1, 2, 3])
def test_kill_9_between_writing_and_renaming(tmp_path, at):
    """1: config.yaml, 2: run.json running, 3: run.json finished. The next start goes on and leaves no litter."""
    folder = tmp_path / "train" / "fc"
    with python(KILL, tmp_path, at) as process:
        pass
    assert process.returncode == -signal.SIGKILL
    assert len(list(folder.glob(".*.tmp"))) == 1
    assert (folder / "config.yaml").exists() == (at > 1)
    assert (folder / "run.json").exists() == (at > 2)
    if at > 1:
        assert read_run(folder).state in ("running", "interrupted")
    with start(tmp_path, {"seed": 0}) as run:
        assert not run.finished
        assert not list(folder.glob(".*.tmp"))
        run.finish({"k": 1})
    assert read_run(folder).result == {"k": 1}


FULL = """
import resource, sys
from intriguing.runs.folder import open_run
from intriguing.errors import UserError
with open_run(sys.argv[1], "train", "fc", {"seed": 0}) as run:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # a write beyond it fails, as on a full disk
    try:
        run.finish({"k": 1})
    except UserError as error:
        print(error)
        raise SystemExit(1)
"""


def test_a_full_disk_is_one_line_and_the_old_record_stays(tmp_path):
    with python(FULL, tmp_path) as process:
        out, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot write" in out
    assert "File too large" in out
    assert error == ""
    folder = tmp_path / "train" / "fc"
    assert read_run(folder).state == "running"
    assert not list(folder.glob(".*.tmp"))


def test_importing_tracking_imports_nothing_heavy():
    heavy = ["torch", "lightning", "wandb", "numpy", "hydra"]
    code = (
        f"import sys, intriguing.runs.folder, intriguing.tracking.jobs; print([m for m in {heavy} if m in sys.modules])"
    )
    with python(code) as process:
        assert process.communicate(timeout=60)[0] == "[]\n"


def test_hydras_files_and_a_log_lie_beside_the_config(tmp_path):
    log = logging.getLogger("intriguing.some_stage")
    given = {".hydra/overrides.yaml": "- seed=0\n"}
    with start(tmp_path, files=given) as run:
        log.warning("the first attempt")
    log.warning("between the two")
    with start(tmp_path, files=given) as run:  # the guard lets these files pass
        assert run.resumed
        log.warning("the second")
        run.finish({})
    lines = [line.split("] ")[-1] for line in (run.folder / "train.log").read_text().splitlines()]
    states = [f"{state}: train.py seed=0" for state in ("running", "interrupted", "running", "finished")]
    assert lines == [states[0], "the first attempt", *states[1:3], "the second", states[3]]
    assert (run.folder / ".hydra" / "overrides.yaml").read_text() == "- seed=0\n"
    before = snapshot(run.folder)
    assert start(tmp_path, files={".hydra/overrides.yaml": "other"}).finished
    assert snapshot(run.folder) == before


def test_a_folder_with_logs_and_hydras_files_alone_is_new(tmp_path):
    folder = tmp_path / "train" / "fc"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "train.log").write_text("")
    assert run_status(tmp_path, "train", "fc", CONFIG) == "new"


@pytest.mark.parametrize(
    ("error", "words"),
    [(errno.ENOLCK, "use a file system with locks"), (errno.EROFS, "give a folder that can be written")],
)
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, error, words):
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=words):
        start(tmp_path)


WITHOUT = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline"):
    sys.modules[name] = None  # as on Windows: importing it is an ImportError
import intriguing
from intriguing.adversarial_set import AdversarialSet
from intriguing.checkpoints import load_model
from intriguing.runs.folder import open_run
from intriguing.runs.interrupts import die_with_parent, listening
model = load_model(sys.argv[1])
print(type(model).__name__, len(AdversarialSet.load(sys.argv[2]).labels))
with listening():
    die_with_parent()
"""


@pytest.mark.slow  # 6 s of CPU: a process that imports everything
def test_networks_and_sets_load_where_there_is_no_posix(tmp_path, composed):
    """Windows has no ``fcntl``, ``resource``, ``pwd``, ...: nothing that a reader of results needs imports them."""
    from intriguing import attacking
    from intriguing.checkpoints import load_model
    from intriguing.cli.config import training_job
    from intriguing.training import fit

    config = composed("train", "data=digits", "model=fc10", "trainer.max_epochs=1")
    model = fit(training_job(config, (), "")) / "model.ckpt"
    (job,) = attacking.AttackJob.from_config(composed("attack", f"checkpoints={model}", "limit=4", "subset=test"))
    with python(WITHOUT, model, attacking.craft(job) / "set.safetensors") as process:
        assert process.communicate(timeout=120) == (f"{type(load_model(model)).__name__} 4\n", "")


def test_a_file_is_loaded_or_its_error_said(tmp_path):
    path = tmp_path / "run.json"
    assert load_or_error(load_info, path) == (None, None)
    path.write_text("{")
    content, error = load_or_error(load_info, path)
    assert content is None and error == f"{path} is no readable JSON: damaged, or not written by this project"
    path.write_text(json.dumps({"state": "running"}))
    assert load_or_error(load_info, path) == ({"state": "running", "artifacts": {}, "result": {}}, None)


def test_a_folder_is_synced_where_the_system_allows_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    sync_folder(tmp_path)
    assert synced == [tmp_path.stat().st_ino]
    sync_folder(tmp_path / "missing")  # Windows opens no folder, others may refuse to sync one: no error

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "not here")

    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    monkeypatch.setattr("os.fsync", refuse)
    sync_folder(tmp_path)
    assert before in (0, len(os.listdir("/proc/self/fd")))  # nothing is left open
