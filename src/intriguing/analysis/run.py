"""Run an analysis: finished train and attack runs in, tables, figures and the page out."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image

from intriguing import report
from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis.analyze import Request, make_result, measure_sets
from intriguing.analysis.inputs import CraftedSet, Network
from intriguing.analysis.job import AnalysisJob
from intriguing.analysis.measure import Progress
from intriguing.analysis.sections import Subsets
from intriguing.checkpoints import load_model, refuse_unused
from intriguing.data import ImageData, ImageSubset, check_given, images_of_network, open_images
from intriguing.errors import UserError, shown
from intriguing.models import Classifier
from intriguing.results import AnalysisResult
from intriguing.runs.jobs import finished_folder, run_of
from intriguing.runs.provenance import ORIGIN, provenance
from intriguing.runs.records import RunRecord
from intriguing.storage.csv_log import CsvLog
from intriguing.storage.files import make_folder, write_atomic
from intriguing.tracking.jobs import start_job

MANY = 100  # entries of a list in the provenance
SMALL = 200_000  # bytes; what is larger is not for a repository


def run_analysis(
    job: AnalysisJob, *, measuring: Callable[[], AbstractContextManager[Progress | None]] = nullcontext
) -> Path:
    """Analyse the runs of a job, show the tables and write the page.

    Every set is read and measured before anything is written.

    Args:
        job: the analysis.
        measuring: context of the measurements; yields the callback for their progress, or None.

    Returns:
        The run folder, with ``report.html``, ``report.md``, ``tables/`` and ``figures/``.

    Raises:
        UserError: runs that cannot be used, or not together; a folder that holds another analysis.
    """
    torch.set_num_threads(job.threads)
    start = time.perf_counter()
    for record in job.networks:
        check_given(record.config.get("data", {}), job.data, str(record.folder))
    _check_runs(job)
    folder = finished_folder(job, "analyze")
    if folder is None:
        with measuring() as progress:
            folder = _analyse(job, progress, start)
    if job.results:
        _copy_small(folder, Path(job.results), job)
    print(f"the page: {folder / 'report.html'}", file=sys.stderr)
    return folder


def _analyse(job: AnalysisJob, progress: Progress | None, start: float) -> Path:
    networks = [_network(record, job.network_classes) for record in job.networks]
    refuse_unused((network.module for network in networks), job.network_classes)
    request = Request(
        networks=networks,
        sections=job.sections,
        settings=job.settings,
        subsets=_subsets(job),
        seed=job.seed,
        batch_size=job.batch_size,
        workers=int(job.data.get("workers") or 0),
        progress=progress,
        reference=job.reference,
    )
    if job.data.get("folder") or job.images or any(section.reads_images for section in request.chosen.values()):
        for network in networks:
            if (data := _images_of(network, job))["name"] == "module" or "files" in data:
                open_images(
                    **data, own=job.images
                )  # a folder that is not the recorded one is refused before any set is read
    sets = [_crafted(record, _source(record, job.networks)) for record in job.sets]
    measurements = measure_sets(request, sets)
    lacking = f"Left out, for they were missing: {job.left_out}." if job.left_out else ""
    make = partial(make_result, request, measurements, title=job.title, lacking=lacking, provenance=_provenance(job))
    made = None if job.reference is None else make()  # numbers that stand beside no cell are refused before all writing
    with run_of(job, "analyze") as run:
        if run.finished:
            return run.folder
        result = made or make()
        files = [file.relative_to(run.folder) for file in report.write(result, run.folder)]
        _record(job, run.folder, result)
        cells = sum(len(table.cells) for table in result.tables)
        seconds = round(time.perf_counter() - start, 3)
        run.finish({"cells": cells, "summary": list(result.summary), "seconds": seconds}, [str(f) for f in files])
        report.show(result)  # after all is finished: no console can undo it
    return run.folder


def _subsets(job: AnalysisJob) -> Subsets:
    """Find the images of networks' data where the job's data are; each data set is opened once, when it is needed."""
    loaded: dict[str, ImageData] = {}

    def subsets(network: Network, subset: str) -> ImageSubset:
        data = _images_of(network, job)
        key = json.dumps(data, sort_keys=True)
        if key not in loaded:
            loaded[key] = open_images(**data, own=job.images)
            loaded[key].prepare_data()
        return loaded[key].subset(subset)

    return subsets


def _images_of(network: Network, job: AnalysisJob) -> dict[str, Any]:
    return images_of_network(cast(Classifier, network.module).trained_on, job.data, str(network.record.folder))


def _check_runs(job: AnalysisJob) -> None:
    """Raise UserError, from the runs' records alone, where they cannot be analysed together."""
    names: dict[str, Path] = {}
    for one in job.networks:
        if one.name in names:
            raise UserError(f"two networks are called {one.name}: {names[one.name]} and {one.folder}; give one of them")
        names[one.name] = one.folder
    for made in job.sets:
        for network in job.networks:
            if network.config.get("data", {}).get("name") == "blank":  # built for a shape alone: no set is shown to it
                continue
            theirs, own = (one.config.get("data", {}).get("classes") for one in (made, network))
            if theirs != own:
                differ = ", ".join(shown(name, 40) for name in sorted(set(theirs or ()) ^ set(own or ()))[:5])
                raise UserError(
                    f"the images of {made.folder} and those that {network.folder} was trained on do not have the same "
                    f"classes ({differ} are in one alone): analyse runs of one folder of classes together"
                )


def _source(made: RunRecord, networks: Sequence[RunRecord]) -> dict[str, str]:
    """Find what a set's record of its source must be changed to among these networks.

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


def _network(record: RunRecord, classes: Sequence[Any]) -> Network:
    if "errors" not in record.result:
        raise UserError(f"{record.folder} is a debug run without counted errors; train it without debug=")
    errors = record.result["errors"]
    if not isinstance(errors, dict) or not all(_is_count(count) for count in errors.values()):
        raise UserError(f"{record.folder / 'run.json'} is no record of a run: its errors are not wrong and all images")
    module = load_model(record.path("model.ckpt"), network=classes, sha256=record.artifacts["model.ckpt"])
    return Network(label=record.label, module=module, record=record, curves=_curves(record))


def _is_count(value: Any) -> bool:
    """Check for [k, n], k wrong among n images."""
    whole_numbers = isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)
    return whole_numbers and 0 <= value[0] <= value[1] > 0


def _curves(record: RunRecord) -> dict[str, list[float]]:
    """Read the columns of a run's metrics that have a value after every epoch."""
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
        made = AdversarialSet.load(record.path("set.safetensors"), sha256=record.artifacts["set.safetensors"])
        if made.metadata["source"] != record.config.get("source"):
            raise UserError(f"{record.folder}: set.safetensors names another source than config.yaml; attack again")
        if source:
            made.metadata["source"].update(source)
        return made

    return CraftedSet(record=record, load=load)


def _provenance(job: AnalysisJob) -> dict[str, Any]:
    facts = provenance()
    spent = sum(one.result.get("seconds", 0) for one in (*job.networks, *job.sets))
    return {**facts, "command": job.command or facts["command"], "seconds of training and attacks": round(spent, 1)}


def _record(job: AnalysisJob, folder: Path, result: AnalysisResult) -> None:
    """Log the tables and figures to W&B."""
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


def _short(value: Any) -> Any:
    """Return plain values with a list of many entries, such as the classes of ImageNet, as its ends and its length."""
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list | tuple) and len(value) > MANY:
        return f"{len(value)} entries, {value[0]} to {value[-1]}"
    return value


def _smaller(picture: Path) -> tuple[str, bytes]:
    """Compress a picture to `SMALL`: a chart as PNG of 256 colours, photographs as JPEG, as large as they may be.

    Returns:
        The suffix of the file, and its bytes.
    """
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    chart = io.BytesIO()
    image.quantize(256).save(chart, format="png", optimize=True)
    if chart.tell() <= SMALL:
        return ".png", chart.getvalue()
    while True:
        stream = io.BytesIO()
        image.save(stream, format="jpeg", quality=80, optimize=True)
        if stream.tell() <= SMALL:
            return ".jpg", stream.getvalue()
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)


def _copy_small(folder: Path, target: Path, job: AnalysisJob) -> None:
    """Copy the small tables and pictures for the reader of the repository, with their provenance."""
    files = [one for kind in ("tables", "figures") for one in sorted((folder / kind).glob("*.*"))]
    small = [one.relative_to(folder) for one in files if one.stat().st_size <= SMALL]
    text = (folder / "report.md").read_text()
    for file in small:
        make_folder((target / file).parent)
        write_atomic(target / file, (folder / file).read_bytes())
    for large in (one.relative_to(folder) for one in files if one.suffix == ".png"):
        if large not in small:
            suffix, content = _smaller(folder / large)
            copied = large.with_suffix(suffix)
            make_folder((target / copied).parent)
            write_atomic(target / copied, content)
            small.append(copied)
            text = text.replace(large.as_posix(), copied.as_posix())
    write_atomic(target / "report.md", text)
    for old in (*(target / "tables").glob("*"), *(target / "figures").glob("*")):
        if old.relative_to(target) not in small:  # of an earlier copy, or half-written when one was killed
            old.unlink()
    info = json.loads((folder / "run.json").read_text())
    made = {key: info.get(key) for key in ("command", *ORIGIN, "started", "seconds")}
    made["runs"] = {
        one.name: {
            "command": one.info.get("command"),
            "seconds": one.result.get("seconds"),
            "config": _short(one.config),
        }
        for one in (*job.networks, *job.sets)
    }
    write_atomic(target / "provenance.json", json.dumps(made, indent=1, sort_keys=True) + "\n")
