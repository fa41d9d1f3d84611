#!/usr/bin/env python3
"""Stands for Slurm where there is none: called as sbatch, srun, sacct or scontrol, it does what submitit needs of them.

A job array runs here, one task after the other, in the environment that Slurm would give it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

JOB = "4711"


def sbatch(script: str) -> None:
    """Take the job and go on with it in the background."""
    print(f"Submitted batch job {JOB}", flush=True)
    if os.fork() == 0:
        os.setsid()
        devnull = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(devnull, stream)
        options = dict(re.findall(r"^#SBATCH --(\S+?)=(.*)$", Path(script).read_text(), re.MULTILINE))
        last = int(re.match(r"0-(\d+)%", options["array"])[1])
        for task in range(last + 1):
            own = {"SLURM_ARRAY_JOB_ID": JOB, "SLURM_ARRAY_TASK_ID": f"{task}", "SLURM_JOB_ID": f"{int(JOB) + task}"}
            own |= {"SLURM_JOB_NAME": options["job-name"], "SLURM_NTASKS": options["ntasks-per-node"]}
            subprocess.run(["bash", script], env={**os.environ, **own}, check=False)


def srun(*arguments: str) -> None:
    """Run the command as the only task of the job, its streams in the files that were asked for."""
    rest, files = list(arguments), {}
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option != "--unbuffered":
            files[option] = rest.pop(0)
    names = {"%A": JOB, "%a": os.environ["SLURM_ARRAY_TASK_ID"], "%t": "0"}
    paths = [re.sub("%[Aat]", lambda found: names[found[0]], files[key]) for key in ("--output", "--error")]
    own = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    with open(paths[0], "a") as out, open(paths[1], "a") as err:
        sys.exit(subprocess.run(rest, env={**os.environ, **own}, stdout=out, stderr=err, check=False).returncode)


def sacct(*_: str) -> None:
    """Nothing is known yet: submitit looks for the results itself."""
    print("JobID|State|NodeList")


def scontrol(*arguments: str) -> None:
    """Note what was asked for, beside this script."""
    with open(Path(sys.argv[0]).parent / "scontrol.log", "a") as file:
        print(*arguments, file=file)


if __name__ == "__main__":
    {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scontrol": scontrol}[Path(sys.argv[0]).name](*sys.argv[1:])
