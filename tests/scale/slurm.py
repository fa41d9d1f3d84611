#!/usr/bin/env python3
"""Stands for Slurm where there is none: called as sbatch, srun, sacct, squeue, scancel or scontrol, for submitit.

A job, or the tasks of a job array one after the other, runs here in the environment that Slurm would give it. Beside
this script lies a file for each job that has not ended, with the number of its process.
"""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HERE = Path(sys.argv[0]).parent


def sbatch(script: str) -> None:
    """Take the job and go on with it in the background."""
    job = str(4711 + 100 * len(list(HERE.glob("taken.*"))))
    (HERE / f"taken.{job}").touch()
    (HERE / f"queued.{job}").touch()
    print(f"Submitted batch job {job}", flush=True)
    if os.fork() == 0:
        os.setsid()
        devnull = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(devnull, stream)
        options = dict(re.findall(r"^#SBATCH --(\S+?)=(.*)$", Path(script).read_text(), re.MULTILINE))
        own = {"SLURM_JOB_NAME": options["job-name"], "SLURM_NTASKS": options["ntasks-per-node"], "SLURM_JOB_ID": job}
        if "array" in options:
            for task in range(int(re.match(r"0-(\d+)%", options["array"])[1]) + 1):
                more = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": f"{task}"}
                run(script, own | more | {"SLURM_JOB_ID": f"{int(job) + task}"}, f"{job}_{task}")
        else:
            run(script, own, job)
        (HERE / f"queued.{job}").unlink()


def run(script: str, own: dict[str, str], job: str) -> None:
    """Run a job, and once more where it has asked for that."""
    subprocess.run(["bash", script], env={**os.environ, **own}, check=False)
    if (again := HERE / f"again.{job}").is_file():
        again.unlink()
        subprocess.run(["bash", script], env={**os.environ, **own}, check=False)


def srun(*arguments: str) -> None:
    """Run the command as the only task of the job, its streams in the files that were asked for."""
    rest, files = list(arguments), {}
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option != "--unbuffered":
            files[option] = rest.pop(0)
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
    names = {"%A": job, "%j": job, "%a": os.environ.get("SLURM_ARRAY_TASK_ID", ""), "%t": "0"}
    paths = [re.sub("%[Aatj]", lambda found: names[found[0]], files[key]) for key in ("--output", "--error")]
    own = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    with open(paths[0], "a") as out, open(paths[1], "a") as err:
        task = subprocess.Popen(rest, env={**os.environ, **own}, stdout=out, stderr=err)
        (HERE / f"queued.{job}").write_text(str(task.pid))
        sys.exit(task.wait())


def sacct(*_: str) -> None:
    """Nothing is known yet: submitit looks for the results itself."""
    print("JobID|State|NodeList")


def squeue(*_: str) -> None:
    """The jobs that have not ended."""
    for file in HERE.glob("queued.*"):
        print(file.suffix[1:])


def scancel(*arguments: str) -> None:
    """Send a signal to the processes of jobs; all jobs of this stand-in are running."""
    options = dict(one.split("=") for one in arguments if one.startswith("--"))
    number = getattr(signal, f"SIG{options.get('--signal', 'KILL')}")
    for job in arguments:
        if not job.startswith("--") and "--state" not in options:
            with suppress(OSError, ValueError):
                os.kill(int((HERE / f"queued.{job}").read_text()), number)


def scontrol(_: str, job: str) -> None:
    """Requeue: note beside this script that the task is to run again when it has ended."""
    (HERE / f"again.{job}").touch()


if __name__ == "__main__":
    commands = {one.__name__: one for one in (sbatch, srun, sacct, squeue, scancel, scontrol)}
    commands[Path(sys.argv[0]).name](*sys.argv[1:])
