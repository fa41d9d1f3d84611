"""Write the text of ``--help`` from the configs: examples, groups with their options, settings with comments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir

from intriguing.cli.overrides import accepted
from intriguing.commands import CONF, command_name

# What each group chooses, in one line.
GROUPS = {
    "network": "one of the paper's networks: a composition of model, weight_decay and split",
    "model": "the architecture; module and torchvision are any of yours and of torchvision's",
    "data": "the images; image_folder and module are your own",
    "split": "which half of the training images: all of them, or P1 or P2",
    "optimizer": "the optimiser and its rate; other is any class by optimizer._target_=...",
    "scheduler": "the schedule of the rate; other is any class by scheduler._target_=...",
    "weight_decay": "how the objective contains weight decay; weight_decay.value is lambda",
    "spectral_penalty": "a penalty on the norms of the layers",
    "callbacks": "back-feeding (adversarial training), early stopping, or Lightning callbacks of yours",
    "trainer": "where and how long: options of Lightning's Trainer",
    "attack": "the attack and its settings; module is any function of yours",
    "launcher": "where the steps of a study run",
    "logger": "what records a run beside metrics.csv",
    "debug": "short runs that only show whether a training works",
    "experiment": "settings that belong together, of the project or of yours",
    "study": "networks, attacks and tables that belong together, run as far as they are missing",
    "local": "your own defaults, in conf/local/default.yaml",
}
_FOR_STAGE = {"from_checkpoint": ("attack", "analyze"), "from_study": ("analyze",)}  # options of single stages
_DEFAULTS = re.compile(r"^defaults:.*\n(?:(?:[ \t]+.*|[ \t]*)\n)*", re.MULTILINE)
_HYDRAS = re.compile(r"^hydra:.*\n(?:(?:[ \t]+.*|[ \t]*)\n)*", re.MULTILINE)


def help_text(stage: str, summary: str, overrides: Sequence[str]) -> str:
    """Write the help of a command.

    Args:
        stage: ``train``, ``attack`` or ``analyze``.
        summary: what the command does.
        overrides: those typed beside ``--help``, which choose the options whose settings are listed.

    Raises:
        HydraException: an override that cannot be.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(stage, overrides=accepted(overrides), return_hydra_config=True)
    chosen = {name: option for name, option in composed.hydra.runtime.choices.items() if (CONF / name).is_dir()}
    # a network, an experiment or a study is composed of the others: its options come first
    names = sorted(
        (name for name in chosen if not name.startswith("hydra") and name != "local"), key=list(GROUPS).index
    )
    command = command_name(stage)
    examples, settings = _split((CONF / f"{stage}.yaml").read_text())
    width = max(map(len, names))
    lines = [
        summary,
        "",
        f"Usage: {command} [group=option ...] [setting=value ...]",
        f"       {command} -m setting=1,2,3      a sweep: one run a value; it ends with a table of the runs",
        f"       {command} --help group=option   the settings of another option",
        f"       {command} ... --cfg job         what a command line composes; --hydra-help: Hydra's own options",
        "",
        "Examples",
        *(f"  {line.replace(f'python {stage}.py', command)}" for line in examples),
        "",
        "Groups (group=option; the option in brackets is the one chosen here)",
    ]
    for name in names:
        options = [
            f"[{option}]" if option == chosen[name] else option
            for option in sorted(file.stem for file in (CONF / name).glob("*.yaml"))
            if not for_another_stage(option, stage)
        ]
        lines += [f"  {name.ljust(width)}  {GROUPS[name]}", f"  {' ' * width}    {' '.join(options)}"]
    lines += ["", "Settings (group.setting=value; null: none, or as the comment says)", *_indented(settings)]
    lines += _indented(_HYDRAS.sub("", _split((CONF / "base.yaml").read_text())[1]))
    for name in names:
        if chosen[name] is None:
            continue
        about, own = _option(CONF / name, str(chosen[name]))
        lines += ["", f"{name}={chosen[name]}", *(f"  # {line}" for line in about)]
        lines += (
            _indented(own) if _is_global(CONF / name / f"{chosen[name]}.yaml") else [f"  {name}:", *_indented(own, 4)]
        )
    return "\n".join(line.rstrip() for line in lines)


def _is_global(file: Path) -> bool:
    """Return whether an option's settings are those of the whole config, not of its group."""
    return "# @package _global_" in file.read_text()


def for_another_stage(option: str, stage: str) -> bool:
    """Return whether an option of a group is for other stages alone."""
    return stage not in _FOR_STAGE.get(option, (stage,))


def _option(folder: Path, option: str) -> tuple[list[str], str]:
    """Return the comment at the top of an option's file and its settings, after those of the options it builds on."""
    text = (folder / f"{option}.yaml").read_text()
    about, settings = _split(text)
    for parent in re.findall(r"^defaults: \[([\w, -]+)\]", text, re.MULTILINE):
        for name in parent.split(","):
            if (folder / f"{name.strip()}.yaml").is_file():
                settings = _option(folder, name.strip())[1] + settings
    return about, settings


def _split(text: str) -> tuple[list[str], str]:
    """Split a config into the comment at its top, and its settings with their comments, without its defaults list."""
    lines = text.splitlines()
    top = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    about = [line.lstrip("#").strip() for line in lines[:top] if not line.startswith("# @package")]
    return about, _DEFAULTS.sub("", "\n".join([*lines[top:], ""]))


def _indented(settings: str, by: int = 2) -> list[str]:
    return [f"{' ' * by}{line}" for line in settings.strip("\n").splitlines() if settings.strip()]
