"""Build the project's W&B workspace: panels of all logged keys in sections, runs grouped by study and stage.

    python -m intriguing.tracking.dashboard --entity ENTITY --out workspace.json     # offline
    python -m intriguing.tracking.dashboard --entity ENTITY --push                   # with an account

W&B adds a panel for every further key of a run by itself. The tables and figures are those that the analyses in the
folder of all runs have written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from intriguing.errors import UserError, error_summary
from intriguing.runs.records import CONFIG, read_run
from intriguing.storage.files import write_atomic
from intriguing.tracking.wandb_run import AXIS, online

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

CURVES = {  # panels of the training section: title, metrics
    "Loss": ["train/loss", "val/loss"],
    "Training error": ["train/error"],
    "Validation accuracy": ["val/acc"],
    "Test error after every epoch (test_curve=true)": ["curve/test_error"],
}
POOLS = {
    "Loss on the images and on the pools": ["pool/clean_loss", "pool/loss"],
    "Seconds of renewal": ["pool/renewal_seconds"],
}
BY_LAYER = {  # of the pools: title, the key's beginning
    "Share that still fools the network": "pool/fooled_",
    "Distortion": "pool/distortion_",
    "Examples replaced": "pool/replaced_",
}


def written(runs: Path | str) -> tuple[list[str], list[str]]:
    """List the keys of the tables and of the figures that finished analyses have written.

    Args:
        runs: The folder of all runs.

    Returns:
        Keys of tables, and keys of figures.

    Raises:
        UserError: A record is damaged.
    """
    tables, figures = dict[str, None](), dict[str, None]()
    for folder in sorted(Path(runs).glob("analyze/*/")):
        record = read_run(folder) if (folder / CONFIG).is_file() else None
        for file in map(PurePosixPath, record.artifacts if record and record.state == "finished" else ()):
            if file.parent.name == "figures":
                figures[file.stem] = None
            elif file.parent.name == "tables" and file.stem != "all" and not file.stem.endswith("_wide"):
                tables[file.stem] = None
    return list(tables), list(figures)


def workspace(
    entity: str,
    project: str = "intriguing",
    name: str = "Intriguing properties",
    *,
    tables: Sequence[str] = (),
    figures: Sequence[str] = (),
) -> Workspace:
    """Build the workspace, without sending it.

    Args:
        entity: User or team in W&B.
        project: Its project, see ``logger.project``.
        name: Name of the workspace.
        tables: Keys of the tables of the analyses, see ``written``.
        figures: Keys of their figures.

    Raises:
        UserError: The package wandb-workspaces is not installed.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it does a DNS lookup even offline
    try:
        from wandb_workspaces import workspaces as ws
        from wandb_workspaces.reports import v2 as wr
    except ImportError as error:
        raise UserError(
            f"the dashboard needs wandb-workspaces ({error}): pip install 'intriguing[dashboard]'"
        ) from None

    def lines(panels: dict[str, list[str]]) -> list[Any]:
        return [wr.LinePlot(title=title, x=AXIS, y=list(keys)) for title, keys in panels.items()]

    def bars(title: str, *keys: str) -> Any:
        return wr.BarPlot(title=title, metrics=list(keys))

    by_layer = [wr.LinePlot(title=f"{t}, by layer", x=AXIS, metric_regex=f"{k}.*") for t, k in BY_LAYER.items()]
    weights = [
        wr.LinePlot(title="Root mean square, by layer", x=AXIS, metric_regex="weights/rms_.*"),
        wr.LinePlot(title="Weight decay's term", x=AXIS, y=["train/penalty"]),
    ]
    attack = [
        bars("Distortion of the adversarial examples", "attack/mean_distortion", "attack/median_distortion"),
        bars("Images attacked and fooled", "attack/num", "attack/num_success"),
        bars("Passes an image", "attack/forwards_per_image", "attack/backwards_per_image"),
        bars("Seconds", "attack/seconds"),
        wr.LinePlot(title="Distortions", y=["attack/distortion"]),
        wr.MediaBrowser(title="Originals and adversarial examples", media_keys=["attack/examples"]),
    ]
    analysis: list[Any] = [wr.WeavePanelSummaryTable(table_name=f"analyze/{key}") for key in tables]
    if figures:
        analysis.append(wr.MediaBrowser(title="Figures", media_keys=[f"analyze/figures/{key}" for key in figures]))
    sections = {
        "Training": [*lines(CURVES), bars("Errors of the finished network", "errors/train", "errors/test")],
        "Weights": weights,
        "Back-feeding": [*lines(POOLS), *by_layer],
        "Attacks": attack,
        "Analysis": analysis,
    }
    grouped = [ws.Metric("Group"), ws.Metric("JobType")]  # study, stage
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[ws.Section(name=title, panels=panels, is_open=True) for title, panels in sections.items() if panels],
        runset_settings=ws.RunsetSettings(groupby=list(grouped)),
        auto_generate_panels=True,
    )


def as_json(made: Workspace) -> str:
    """Write the workspace as JSON for W&B's server: entity, project, displayName and the spec."""
    view = made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(view, indent=1, sort_keys=True) + "\n"


def push(made: Workspace) -> str:
    """Make the workspace in the account and return its address.

    Raises:
        UserError: W&B is switched off, or refuses.
    """
    online("a dashboard is pushed to W&B")
    try:
        return str(made.save().url)
    except Exception as error:
        why = error_summary(error)
        raise UserError(f"W&B refuses the dashboard ({why}); is there an account (wandb login)?") from error


def main(arguments: list[str] | None = None) -> None:
    """Write the workspace to a file, or make it in the account."""
    parser = argparse.ArgumentParser(prog="python -m intriguing.tracking.dashboard", description="The W&B workspace.")
    parser.add_argument("--entity", required=True, help="W&B user or team")
    parser.add_argument("--project", default="intriguing")
    parser.add_argument("--name", default="Intriguing properties", help="of the workspace")
    parser.add_argument("--runs", type=Path, default="runs", help="folder of all runs, with the analyses")
    parser.add_argument("--out", type=Path, help="write its JSON to this file")
    parser.add_argument("--push", action="store_true", help="make it in the account")
    given = parser.parse_args(arguments)
    if not given.out and not given.push:
        parser.error("give --out FILE, --push, or both")
    try:
        tables, figures = written(given.runs)
        made = workspace(given.entity, given.project, given.name, tables=tables, figures=figures)
        if given.out:
            write_atomic(given.out, as_json(made))
            print(given.out)
        if given.push:
            print(push(made))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
