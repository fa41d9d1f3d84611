"""The processes of a study: they end with it, however it ends, and one that dies takes only its step with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A study whose steps are empty files and naps: the scheduler is the same, and no process imports torch.
STUDY = """
import os, sys, time
from pathlib import Path
from intriguing.cli import scheduler, workers
from intriguing.cli.main import run

workers.PRELOAD = []
FOLDER = Path(sys.argv[1])

def perform(step):
    from intriguing.errors import Stopped
    (FOLDER / f"{step.key} {os.getpid()}").touch()
    if step.key == "dies":
        os.kill(os.getpid(), 9)
    try:
        time.sleep(60 if step.key.startswith("long") else 0)
    except Stopped as stop:
        stop.add_note(f"{step.key}: half is saved")
        raise
    return [FOLDER / step.key]

def main():
    steps = [scheduler.Step(key, "train", {}) for key in sys.argv[2:]]
    executor = workers.Workers(perform, 2)
    scheduler.run(steps, executor, advance=lambda key, made: print(key, "done", flush=True))

if __name__ == "__main__":
    run(main)
"""


def _start(folder: Path, *steps: str) -> subprocess.Popen:
    script = folder / "study.py"
    script.write_text(STUDY)
    (folder / "seen").mkdir()
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "seen"), *steps],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _workers(folder: Path, wanted: int) -> list[int]:
    """The processes of the long steps, as soon as there are so many."""
    end = time.monotonic() + 60
    while len(found := sorted((folder / "seen").glob("long*"))) < wanted:
        assert time.monotonic() < end, "the steps did not start"
        time.sleep(0.05)
    return [int(file.name.split()[1]) for file in found]


def _gone(process: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_the_processes_of_a_killed_study_end(tmp_path: Path) -> None:
    with _start(tmp_path, "long1", "long2") as study:
        workers = _workers(tmp_path, 2)
        study.kill()
        assert all(_gone(worker) for worker in workers)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("whom", ["study", "all"])
def test_a_stopped_study_stops_its_steps_and_says_what_is_saved(
    tmp_path: Path, number: int, status: int, whom: str
) -> None:
    """``all`` is Ctrl-C on a terminal or a scheduler, which tell every process of the group."""
    with _start(tmp_path, "short", "long1", "long2") as study:
        workers = _workers(tmp_path, 2)
        (os.kill if whom == "study" else os.killpg)(study.pid, number)
        out, err = study.communicate(timeout=60)
        assert out == "short done\n"
        assert study.returncode == status, err
        line = err.splitlines()[-1]
        assert line.startswith("stopped by ") and line.endswith("the same command resumes there")
        for part in ("long1: half is saved", "long2: half is saved", "1 of 3 steps is finished"):
            assert part in line, err
        assert all(_gone(worker) for worker in workers)


def test_a_step_whose_process_is_killed_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    with _start(tmp_path, "dies", "one", "two", "three") as study:
        out, err = study.communicate(timeout=60)
    assert sorted(out.splitlines()) == ["one done", "three done", "two done"]
    assert study.returncode == 1
    reason = "dies: its process was killed by SIGKILL (was the memory full?)"
    assert err == f"error: 1 of 4 steps failed ({reason}); the same command runs what is missing\n"
