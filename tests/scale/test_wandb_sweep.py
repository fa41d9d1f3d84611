"""The sweep file: what W&B's agent makes of it is a command that train.py takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from intriguing.cli.config import training_job

SWEEP: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "sweeps" / "lambda.yaml").read_text())


def _command(values: dict[str, Any]) -> list[str]:
    """As `wandb agent` expands it: macros of the agent's own functions, one list in the other."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    args = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    macros = {"${env}": ["/usr/bin/env"], **{f"${{{key}}}": value for key, value in args.items()}}
    return [part for chunk in create_sweep_command(list(SWEEP["command"])) for part in macros.get(chunk, [chunk])]


def _values(seed: int, decay: float) -> dict[str, Any]:
    fixed = {key: about["value"] for key, about in SWEEP["parameters"].items() if "value" in about}
    assert set(SWEEP["parameters"]) - set(fixed) == {"seed", "weight_decay.value"}
    return {**fixed, "weight_decay.value": decay, "seed": seed}


def test_the_agents_command_is_a_job_of_its_own(composed: Callable[..., dict]) -> None:
    jobs = []
    span = SWEEP["parameters"]["weight_decay.value"]
    for seed, decay in [(0, span["min"]), (0, 0.0031622776601683794), (2, span["max"])]:
        env, python, script, *overrides = _command(_values(seed, decay))
        assert (env, python, script) == ("/usr/bin/env", "python", "train.py")
        job = training_job(composed("train", *overrides))
        assert (job.seed, job.identity["weight_decay"]["value"]) == (seed, [decay])
        # the agent names the sweep's project in WANDB_PROJECT, which counts where no setting says otherwise
        assert (job.logger.mode, job.logger.project) == ("online", None)
        jobs.append(job)
    assert len({job.name for job in jobs}) == 3


def test_train_takes_it(run_script: Callable[..., tuple]) -> None:
    status, out, err = run_script("train.py", "--cfg", "job", *_command(_values(0, 0.1))[3:])
    assert (status, err) == (0, "") and yaml.safe_load(out)["data"]["validation"] == 10000
