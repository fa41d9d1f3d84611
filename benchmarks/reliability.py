"""Kill (SIGKILL) the entry points at random moments, run each command again and compare the results.

    uv run benchmarks/reliability.py [--kills 100] [--seed 0] [--stages train sweep ...] [--out FILE.csv]
    uv run benchmarks/reliability.py --renames          # instead: before and after every file that takes its name

The log is results/reliability/kills.csv (renames.csv).

Each kill has folders of its own. Its moment is drawn evenly over the time the command takes undisturbed, start and last
writing included. After it every file must be whole or absent and no process may be left; then the same command must end
well, and every network, every adversarial set, every table and every row of metrics must be the undisturbed command's,
bit for bit. Rows are appended as it goes, and a log that is not complete is gone on with.

The entry points run in forks of this process, which has everything imported already, with real arguments; but for
``study, two processes``, which is started as a user starts it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}  # before the libraries ask: a fork wants one thread

import wandb  # noqa: F401  the entry points import these late, and a fork need not again
from PIL import Image
from safetensors.torch import load_file

from intriguing.adversarial_set import AdversarialSet
from intriguing.checkpoints import read_checkpoint
from intriguing.data.arrays import digits
from intriguing.runs.records import find_runs, read_run
from intriguing.storage.csv_log import CsvLog

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ("data=digits", "logger=csv")
SMALL = "model.settings.widths=[20,20]"
STUDY = (
    *("study=quickstart", "logger=csv", "study.limit=32", "sections=[table1,transfer,distortions]"),
    "study.train.all=['data=digits','trainer.max_epochs=2']",
    "study.attack=[{networks:['*'],overrides:['attack=lbfgs','subset=test']}]",
    *(f"~study.train.networks.{name}" for name in ("ae400_10", "fc200_200_10", "fc100_100_10", "fc123_456_10_p1")),
    *(f"~study.train.networks.{name}" for name in ("fc100_100_10_p2", "fc10_1", "fc10_1e-4")),
)
LOST, PATIENCE = 60.0, 600.0  # seconds until no process may be left (one may be importing), a command must have ended


@dataclass(frozen=True)
class Stage:
    """A command to be killed: a script, its arguments, and how often it is drawn."""

    script: str
    arguments: tuple[str, ...]
    weight: int
    cold: bool = False  # a process of its own instead of a fork


STAGES = {
    "train": Stage("train.py", ("network=fc100_100_10", "trainer.max_epochs=5", "test_curve=true", *DIGITS), 20),
    "train, W&B": Stage("train.py", ("network=fc10_1", "data=digits", "trainer.max_epochs=4"), 8),
    "back-feeding": Stage(
        "train.py", ("model=fc100_100_10", SMALL, "callbacks=back_feeding", "trainer.max_epochs=3", *DIGITS), 10
    ),
    "early stopping": Stage(
        "train.py",
        (
            *("model=fc10", "weight_decay.value=1", "callbacks=early_stopping", "callbacks.early_stopping.patience=1"),
            *("data.validation=100", "keep=best", "trainer.max_epochs=30", *DIGITS),
        ),
        10,
    ),
    "sweep": Stage(
        "train.py", ("-m", "model=fc10", "weight_decay.value=1e-2,1", "seed=0,1", "trainer.max_epochs=3", *DIGITS), 14
    ),
    "attack": Stage("attack.py", ("checkpoints={inputs}/train/*", "limit=96", "shard=16", "logger=csv"), 16),
    "analyze": Stage(
        "analyze.py", ("networks={inputs}/train/*", "sets={inputs}/attack/*", "name=page", "logger=csv"), 10
    ),
    "study": Stage("analyze.py", (*STUDY, "study.results={runs}/results", "processes=1"), 8),
    "study, two processes": Stage("analyze.py", (*STUDY, "study.results={runs}/results", "processes=2"), 3, cold=True),
}
INPUTS = [
    ("train.py", "-m", "model=fc10,fc100_100_10", "trainer.max_epochs=3", *DIGITS),
    ("attack.py", "checkpoints={inputs}/train/*", "limit=32", "logger=csv"),
]
COLUMNS = ("number", "stage", "command", "seed", "seconds until the kill", "seconds undisturbed", "state found after")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--renames", action="store_true", help="kill at every rename of each stage's command instead")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    name = "renames.csv" if arguments.renames else "kills.csv"
    out = arguments.out or ROOT / "results" / "reliability" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="reliability-") as scratch:
        bench = Bench(Path(scratch), CsvLog(out))
        bench.prepare(arguments.stages)
        if arguments.renames:
            bench.kill_at_renames(arguments.stages)
        else:
            bench.kill_at_random(arguments.stages, arguments.kills, arguments.seed)
    different = [row for row in CsvLog(out).rows() if row["same result"] != "yes"]
    print(f"{len(CsvLog(out).rows())} kills, {len(different)} with another result; {out}")
    sys.exit(bool(different))


class Bench:
    """The commands, what they give undisturbed, and the log."""

    def __init__(self, scratch: Path, log: CsvLog) -> None:
        self.scratch, self.inputs, self.log = scratch, scratch / "inputs", log
        self.expected: dict[str, tuple[dict[str, str], float]] = {}

    def prepare(self, stages: list[str]) -> None:
        """Make the networks and sets that attack and analyze start from."""
        digits()
        assert threading.active_count() == 1, "a fork takes one thread with it"
        if not any("{inputs}" in argument for name in stages for argument in STAGES[name].arguments):
            return
        for script, *own in INPUTS:
            must_end_well(Run(script, self.fill(own, self.inputs), self.scratch, cold=False))

    def fill(self, arguments: Any, runs: Path) -> list[str]:
        return [*(named(one, str(self.inputs), str(runs)) for one in arguments), f"runs={runs}"]

    def undisturbed(self, name: str) -> tuple[dict[str, str], float]:
        """The fingerprints of what a stage's command gives, and its seconds."""
        if name not in self.expected:
            stage, runs = STAGES[name], self.scratch / "undisturbed"
            start = time.monotonic()
            must_end_well(Run(stage.script, self.fill(stage.arguments, runs), self.scratch, cold=stage.cold))
            self.expected[name] = fingerprints(runs), time.monotonic() - start
            shutil.rmtree(runs)
        return self.expected[name]

    def kill_at_random(self, names: list[str], kills: int, seed: int) -> None:
        """Kill and compare until the log has ``kills`` rows."""
        for number in range(len(self.log.rows()) + 1, kills + 1):
            draw = random.Random(f"{seed} {number}")
            name = draw.choices(names, [STAGES[one].weight for one in names])[0]
            while not self.kill(number, name, seed, after=draw.random() * self.undisturbed(name)[1]):
                pass  # it had ended before its moment came: another moment

    def kill_at_renames(self, names: list[str]) -> None:
        """Kill each stage's command before and after its first rename, its second, and so on until it ends."""
        for name in [name for name in names if not STAGES[name].cold]:
            rename = 1
            while self.kill(len(self.log.rows()) + 1, name, 0, rename=rename):
                rename += 1

    def kill(self, number: int, name: str, seed: int, *, after: float = PATIENCE, rename: int = 0) -> bool:
        """Start a stage's command in folders of its own, kill it, finish it, log; False if it ended before."""
        stage, runs = STAGES[name], self.scratch / f"kill{number}"
        expected, seconds = self.undisturbed(name)
        arguments = self.fill(stage.arguments, runs)
        start = time.monotonic()
        run = Run(stage.script, arguments, self.scratch, cold=stage.cold, rename=rename)
        ended = run.wait(after)
        if ended is None:
            run.kill()
        took = time.monotonic() - start
        if ended is not None and ended != -signal.SIGKILL:
            shutil.rmtree(runs)
            return False
        found = state(runs, run.left_over())
        must_end_well(Run(stage.script, arguments, self.scratch, cold=stage.cold))
        same = fingerprints(runs) == expected and not found.startswith("BROKEN") and not litter(runs)
        command = named(" ".join(["python", stage.script, *stage.arguments]), "inputs", "runs")
        values = (number, name, command, seed, round(took, 3), round(seconds, 3), found)
        self.log.append(dict(zip(COLUMNS, values, strict=True)) | {"same result": "yes" if same else "NO"})
        print(f"{number}: {name}, killed after {took:.2f} s of {seconds:.2f}: {found}; same result: {same}", flush=True)
        if same:
            shutil.rmtree(runs)
        return True


class Run:
    """One command as a process that leads a session of its own."""

    def __init__(self, script: str, arguments: list[str], folder: Path, *, cold: bool, rename: int = 0) -> None:
        self.said = folder / "said.txt"
        self.what = f"{script} {' '.join(arguments)}"
        self.status: int | None = None
        if cold:
            with self.said.open("w") as said:
                command = [sys.executable, str(ROOT / script), *arguments]
                self.pid = subprocess.Popen(
                    command, stdout=said, stderr=said, start_new_session=True, env=os.environ | {"PYTHONWARNINGS": ""}
                ).pid
            return
        self.pid = os.fork()
        if self.pid == 0:
            fork(lambda: run_script(script, arguments, rename), self.said)

    def wait(self, seconds: float) -> int | None:
        """The exit status (minus the signal), None if it still runs after so many seconds."""
        end = time.monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                return None
            else:
                time.sleep(0.002)
        return self.status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait(PATIENCE)

    def left_over(self) -> list[str]:
        """The processes of its session that live on although it is gone, after a while."""
        end = time.monotonic() + LOST
        while (alive := session(self.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        return alive


def fork(action: Callable[[], None], said: Path) -> None:
    """In a fork: do it with the output in a file, and end as a process that was started for it would."""
    status = 1
    try:
        os.setsid()
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        action()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_script(script: str, arguments: list[str], rename: int) -> None:
    """Run ``python script arguments``; with ``rename``, die before (odd) or after (even) one of its renames."""
    whole, count = os.replace, 0

    def replace(source: Any, target: Any, **options: Any) -> None:
        nonlocal count
        count += 2
        if count - 1 == rename:
            os.kill(os.getpid(), signal.SIGKILL)
        whole(source, target, **options)
        if count == rename:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    sys.argv = [str(ROOT / script), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def named(argument: str, inputs: str, runs: str) -> str:
    return argument.replace("{inputs}", inputs).replace("{runs}", runs)


def must_end_well(run: Run) -> None:
    status = run.wait(PATIENCE)
    if status != 0:
        raise SystemExit(f"{run.what} ended with status {status}:\n{run.said.read_text()[-3000:]}")


def session(leader: int) -> list[str]:
    """The commands of all living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (entry / "stat").read_text().rpartition(")")
        except OSError:  # gone meanwhile
            continue
        condition, _, _, its_session = rest.split()[:4]
        if int(its_session) == leader and condition not in "ZX":
            found.append(name.partition("(")[2])
    return found


def state(runs: Path, left_over: list[str]) -> str:
    """What a kill left, in words; it begins with BROKEN where that must not be."""
    if left_over:
        return f"BROKEN: still running: {', '.join(left_over)}"
    for file in sorted(runs.rglob("*")):
        if file.is_file() and not file.name.startswith(".") and "wandb" not in file.parts:
            try:
                READ.get(file.suffix, lambda path: None)(file)
            except Exception as error:
                return f"BROKEN: {file.relative_to(runs)}: {type(error).__name__}: {error}"
    said = []
    for stage in ("train", "attack", "analyze"):
        records = [read_run(config.parent) for config in sorted(runs.glob(f"{stage}/*/config.yaml"))]
        if records:
            finished = sum(record.state == "finished" for record in records)
            said.append(f"{stage}: {finished} finished" + progress(records, finished))
    return "; ".join(said) or "no run yet"


def progress(records: list[Any], finished: int) -> str:
    """How far the unfinished run is."""
    if finished == len(records):
        return ""
    folder = next(record.folder for record in records if record.state != "finished")
    last, shards = folder / "checkpoints" / "last.ckpt", list(folder.glob("shards/[0-9]*"))
    if last.exists():
        return f", 1 after epoch {read_checkpoint(last)['epoch'] + 1}"
    if shards:
        return f", 1 after shard {len(shards)}"
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return f", 1 begun, {len(files)} files"


def _read_csv(path: Path) -> None:
    if path.name != "metrics.csv":  # the one that grows: CsvLog drops a last row that is not whole
        list(csv.reader(path.read_text().splitlines(), strict=True))
        assert path.read_text().endswith("\n")


READ: dict[str, Callable[[Path], Any]] = {
    ".ckpt": read_checkpoint,
    ".safetensors": lambda path: AdversarialSet.load(path) if path.name == "set.safetensors" else load_file(path),
    ".json": lambda path: json.loads(path.read_text()),
    ".csv": _read_csv,
    ".png": lambda path: Image.open(path).load(),
    ".html": lambda path: path.read_text().rstrip().endswith("</html>") or 1 / 0,
}


def fingerprints(runs: Path) -> dict[str, str]:
    """The sha256 of all that a command is for; of metrics.csv without the columns that are times."""
    found = {}
    for file in sorted(runs.rglob("*")):
        name = str(file.relative_to(runs))
        made = file.name in ("model.ckpt", "set.safetensors") or file.parent.name in ("tables", "figures")
        if made and file.is_file():
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        elif file.name == "metrics.csv" and "train" in file.parts:
            rows = CsvLog(file).rows()
            kept = [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]
            found[name] = hashlib.sha256(repr(kept).encode()).hexdigest()
    for stage in ("train", "attack", "analyze"):
        if (runs / stage).is_dir():
            found |= {
                str(one.folder.relative_to(runs)): one.state for one in find_runs(runs / stage / "*", stage=stage)
            }
    return found


def litter(runs: Path) -> list[Path]:
    """Files that a finished command should not leave: temporary ones, shards of a set that is whole."""
    return [path for path in runs.rglob("*") if path.name.endswith((".tmp", ".part")) or path.name == "shards"]


if __name__ == "__main__":
    main()
