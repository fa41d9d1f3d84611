"""The analyze stage as a run of its own: finished folders in, tables, figures and the page out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch

from intriguing import report
from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import (
    EXTRA,
    CraftedSet,
    Images,
    Network,
    Progress,
    Subsets,
    analyze,
    check_networks,
    check_set,
)
from intriguing.analysis.job import ReportJob
from intriguing.checkpoints import load_model
from intriguing.data import ImageData, Subset, check_given, images_of_network
from intriguing.data.folders import FolderSubset
from intriguing.errors import UserError, shown
from intriguing.models import Classifier
from intriguing.results import AnalysisResult
from intriguing.runs.guard import standing
from intriguing.runs.jobs import open_job
from intriguing.runs.provenance import provenance
from intriguing.runs.records import RunRecord, read_run
from intriguing.storage.csv_log import CsvLog
from intriguing.storage.files import make_folder, write_atomic
from intriguing.tracking.jobs import start_job

SMALL = 200_000  # bytes; what is larger is not for a repository


def _subsets(job: ReportJob) -> Subsets:
    """The images of a network's data, found where this job's data are and read when they are needed."""
    loaded: dict[str, ImageData] = {}

    def subsets(network: Network, subset: str) -> Subset | FolderSubset:
        data = _images_of(network, job)
        key = json.dumps(data, sort_keys=True)
        if key not in loaded:
            loaded[key] = ImageData(**data)
        return loaded[key].subset(subset)

    return subsets


def _images_of(network: Network, job: ReportJob) -> dict[str, Any]:
    return images_of_network(cast(Classifier, network.module).trained_on, job.data, network.folder)


def _images(subsets: Subsets) -> Images:
    """The same in memory."""

    def images(network: Network, subset: str) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = subsets(network, subset)
        chosen = chosen if isinstance(chosen, Subset) else chosen.take(torch.arange(len(chosen)))
        return chosen.images, chosen.labels

    return images


def report_on(
    job: ReportJob, *, measuring: Callable[[], AbstractContextManager[Progress | None]] = nullcontext
) -> Path:
    """Analyse the runs of a job, show the tables and write the page.

    Args:
        job: what to analyse.
        measuring: context in which the sets are measured; yields what is to be told how far that is.

    Returns:
        The run folder, with ``report.html``, ``report.md``, ``tables/`` and ``figures/``.
    """
    torch.set_num_threads(job.threads)
    start = time.perf_counter()
    for record in job.networks:
        check_given(record.config.get("data", {}), job.data, str(record.folder))
    _check_runs(job)
    networks, sets = [], [_crafted(record, _source(record, job.networks)) for record in job.sets]
    if standing(Path(job.runs), "analyze", job.name, job.identity) != "finished":
        # all of them once, so that what cannot be used is said before anything is measured or written
        networks = [_network(record) for record in job.networks]
        if job.data.get("folder") or not set(EXTRA).isdisjoint(job.sections):
            for network in networks:
                if (data := _images_of(network, job))["name"] == "image_folder":
                    ImageData(**data)
        check_networks(networks, job.sections)
        for one in sets:
            check_set(one, networks)
    subsets = _subsets(job)
    with open_job(job, "analyze", label=job.title) as run:
        if run.finished:
            read_run(run.folder).verify_all()
        else:
            with measuring() as progress:
                result = analyze(
                    networks,
                    sets,
                    title=job.title,
                    seed=job.seed,
                    batch_size=job.batch_size,
                    provenance=_provenance(job),
                    sections=job.sections,
                    settings=job.settings,
                    images=_images(subsets),
                    subsets=subsets,
                    progress=progress,
                )
            files = [file.relative_to(run.folder) for file in report.write(result, run.folder)]
            _record(job, run.folder, result)
            cells = sum(len(table.cells) for table in result.tables)
            seconds = round(time.perf_counter() - start, 3)
            run.finish({"cells": cells, "summary": list(result.summary), "seconds": seconds}, [str(f) for f in files])
            report.show(result)  # after all is finished: no console can undo it
        if job.results:
            _copy_small(run.folder, Path(job.results), job)
    print(f"the page: {run.folder / 'report.html'}", file=sys.stderr)
    return run.folder


def _check_runs(job: ReportJob) -> None:
    """Raises UserError, from the runs' records alone, where they cannot be analysed together."""
    names: dict[str, Path] = {}
    for one in job.networks:
        if one.name in names:
            raise UserError(f"two networks are called {one.name}: {names[one.name]} and {one.folder}; give one of them")
        names[one.name] = one.folder
    for made in job.sets:
        for network in job.networks:
            theirs, own = (one.config.get("data", {}).get("classes") for one in (made, network))
            if theirs != own:
                differ = ", ".join(shown(name, 40) for name in sorted(set(theirs or ()) ^ set(own or ()))[:5])
                raise UserError(
                    f"the images of {made.folder} and those that {network.folder} was trained on do not have the same "
                    f"classes ({differ} are in one alone): analyse runs of one folder of classes together"
                )


def _source(made: RunRecord, networks: Sequence[RunRecord]) -> dict[str, str]:
    """What a set says of its source, where that must be put differently among these networks.

    A set belongs to the network whose weights it was made for, whatever the folder of that network is called.

    Returns:
        ``name`` of that network; nothing where it is not among these.

    Raises:
        UserError: the network of that name has other weights.
    """
    source = made.config.get("source")
    if not isinstance(source, dict):
        return {}
    weights, name = source.get("checkpoint_sha256"), source.get("name")
    owners = [one.name for one in networks if one.artifacts.get("model.ckpt") == weights]
    if owners:
        return {"name": name if name in owners else owners[0]}
    for one in networks:
        if name in (one.name, one.folder.resolve().name):
            raise UserError(
                f"{made.folder} was made for a network called {name} with other weights than {one.folder} has (sha256 "
                f"{shown(weights)[:8]}, not {one.artifacts.get('model.ckpt', 'none')[:8]}): attack {one.folder} anew, "
                "and give that set"
            )
    return {}


def _network(record: RunRecord) -> Network:
    if "errors" not in record.result:
        raise UserError(f"{record.folder} is a debug run without counted errors; train it without debug=")
    errors = record.result["errors"]
    if not isinstance(errors, dict) or not all(_is_count(count) for count in errors.values()):
        raise UserError(f"{record.folder / 'run.json'} is no record of a run: its errors are not wrong and all images")
    return Network(
        label=record.label,
        name=record.name,
        module=load_model(record.verify("model.ckpt")),
        errors=errors,
        config=record.config,
        checkpoint_sha256=record.artifacts["model.ckpt"],
        folder=str(record.folder),
        command=str(record.info.get("command", "")),
        facts=_facts(record),
        curves=_curves(record),
    )


def _is_count(value: Any) -> bool:
    """[k, n] of k wrong among n images."""
    whole_numbers = isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)
    return whole_numbers and 0 <= value[0] <= value[1] > 0


def _curves(record: RunRecord) -> dict[str, list[float]]:
    """The columns of a run's metrics that have a value after every epoch."""
    file = record.folder / "metrics.csv"
    if file.name in record.artifacts:
        record.verify(file.name)
    rows = CsvLog(file).rows()
    epochs = [row for row in rows if row.get("train/loss")]
    columns = [key for key in (epochs[0] if epochs else {}) if all(row.get(key) for row in epochs)]
    try:
        return {key: [float(row[key]) for row in epochs] for key in columns}
    except ValueError as error:
        raise UserError(f"{file} is damaged ({shown(str(error))}); remove it, and its curves are left out") from error


def _crafted(record: RunRecord, source: dict[str, str]) -> CraftedSet:
    def load() -> AdversarialSet:
        made = AdversarialSet.load(record.verify("set.safetensors"))
        if made.metadata["source"] != record.config.get("source"):
            raise UserError(f"{record.folder}: set.safetensors names another source than config.yaml; attack again")
        if source:
            made.metadata["source"].update(source)
        return made

    return CraftedSet(
        name=record.name,
        load=load,
        config=record.config,
        folder=str(record.folder),
        command=str(record.info.get("command", "")),
        facts=_facts(record),
    )


def _facts(record: RunRecord) -> dict[str, Any]:
    return {"commit": record.info.get("commit"), "seconds": record.result.get("seconds")}


def _provenance(job: ReportJob) -> dict[str, Any]:
    facts = provenance()
    spent = sum(one.result.get("seconds", 0) for one in (*job.networks, *job.sets))
    return {**facts, "command": job.command or facts["command"], "seconds of training and attacks": round(spent, 1)}


def _record(job: ReportJob, folder: Path, result: AnalysisResult) -> None:
    """The summary and the tables (transfer matrices among them) to W&B."""
    with start_job(job, "analyze") as run:
        if not run.active:
            return
        for table in result.tables:
            rows = [
                [row, *(None if (cell := table.cells.get((row, c))) is None else cell.value for c in table.columns)]
                for row in table.rows
            ]
            run.log_table(f"analyze/{table.key}", [table.row_header, *table.columns], rows)
        for figure in result.figures:
            run.log_images(
                f"analyze/figures/{figure.key}", [folder / "figures" / f"{figure.key}.png"], [figure.heading]
            )


def _copy_small(folder: Path, target: Path, job: ReportJob) -> None:
    """Copy the small tables and pictures for the reader of the repository, with what made them."""
    files = [one for kind in ("tables", "figures") for one in sorted((folder / kind).glob("*.*"))]
    small = [one.relative_to(folder) for one in files if one.stat().st_size <= SMALL]
    for file in (*small, Path("report.md")):
        make_folder((target / file).parent)
        write_atomic(target / file, (folder / file).read_bytes())
    for old in (*(target / "tables").glob("*"), *(target / "figures").glob("*")):
        if old.relative_to(target) not in small:  # of an earlier copy, or half-written when one was killed
            old.unlink()
    info = json.loads((folder / "run.json").read_text())
    kept = ("command", "commit", "dirty", "versions", "python", "platform", "cpus", "started", "seconds")
    made = {key: info.get(key) for key in kept}
    made["runs"] = {
        one.name: {"command": one.info.get("command"), "seconds": one.result.get("seconds"), "config": one.config}
        for one in (*job.networks, *job.sets)
    }
    write_atomic(target / "provenance.json", json.dumps(made, indent=1, sort_keys=True) + "\n")
