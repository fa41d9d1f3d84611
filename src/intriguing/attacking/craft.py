"""Craft one adversarial set: shard by shard, each saved at once, then merged by image."""

from __future__ import annotations

import functools
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from intriguing import __version__
from intriguing.adversarial_set import AdversarialSet
from intriguing.attacking.code import code_digest
from intriguing.attacking.job import AttackJob
from intriguing.attacking.shards import Progress, count_shards, fill, make_fabric, merge, pick_images
from intriguing.attacks import amplify
from intriguing.attacks.result import mean_count
from intriguing.data import Subset
from intriguing.errors import Stopped, UserError
from intriguing.metrics import distortion
from intriguing.nn.nonfinite import check_logits
from intriguing.runs.interrupts import end_children
from intriguing.runs.jobs import finished_folder, run_of
from intriguing.storage.csv_log import CsvLog
from intriguing.tracking.jobs import start_job

SET = "set.safetensors"
_TRIED = 100  # images on which a network must give finite logits before the attack begins


def craft(job: AttackJob, *, progress: Progress | None = None) -> Path:
    """Make the adversarial set of a job; skip a finished one, resume an unfinished one at the next shard.

    Args:
        job: the attack.
        progress: called before the first shard, during each and after it, see `shards.Progress`.

    Returns:
        The run folder, with ``set.safetensors``, ``metrics.csv`` and ``run.json``.

    Raises:
        UserError: data that is not there, a folder that holds another run, images that do not fit the network.
    """
    torch.set_num_threads(job.processes.threads)
    start = time.perf_counter()
    if folder := finished_folder(job, "attack"):
        shutil.rmtree(folder / "shards", ignore_errors=True)  # left over when a run was killed during clean-up
        return folder
    # Amplifying is a function of the plain set, which is a result itself.
    base = None if job.attack.amplify is None else craft(job.plain, progress=progress)
    shards = Path(job.runs) / "attack" / job.name / "shards"
    fabric = make_fabric(job.processes)
    if job.processes.num_nodes > 1:
        fabric.launch()  # srun or torchrun has started the processes; here they meet
    if fabric.local_rank == 0:
        job.data.prepare_data()  # on every node, whose disk may lack MNIST
    if job.processes.num_nodes > 1:
        fabric.barrier()
    images = pick_images(job)
    if fabric.global_rank > 0:
        return shards.parent if base else _help(job, fabric, images, shards)
    _check_network(job, images)
    with run_of(job, "attack") as run:
        if run.finished:
            return run.folder
        made = _amplified(job, base) if base else _in_shards(job, fabric, images, shards, progress)
        made.save(run.path(SET))
        seconds = round(time.perf_counter() - start, 3)
        result = _summary(made, seconds)
        _record(job, run.folder, made, result)
        run.finish(result, [SET, "metrics.csv"])
        shutil.rmtree(shards, ignore_errors=True)
    return run.folder


def _check_network(job: AttackJob, images: Subset) -> None:
    """Raise UserError, before anything is written, unless the network gives finite logits for the images."""
    if job.source is None:
        return
    model, some, path = (
        job.source.model,
        images.images[: min(_TRIED, job.data.evaluation_batch)],
        job.source.trained.path,
    )
    if tuple(some.shape[1:]) != model.input_shape:
        raise UserError(f"{path} wants images of shape {model.input_shape}, got {tuple(some.shape[1:])}")
    with torch.no_grad():
        check_logits(model, some, model(some))


def _help(job: AttackJob, fabric: Fabric, images: Subset, shards: Path) -> Path:
    """Do the work of ranks above 0: make shards; rank 0 opens, merges and finishes the folder."""
    fabric.barrier()  # the folder is open
    fill(fabric, job, images, shards, code_digest(job), None)
    fabric.barrier()
    return shards.parent


def _in_shards(
    job: AttackJob, fabric: Fabric, images: Subset, folder: Path, progress: Progress | None
) -> AdversarialSet:
    """Fill the folder with shards, in as many processes as were asked for, and merge them by image."""
    code = code_digest(job)
    try:
        if job.processes.num_nodes > 1:
            fabric.barrier()
            fill(fabric, job, images, folder, code, progress)
            fabric.barrier()
        elif job.processes.count == 1:
            fill(fabric, job, images, folder, code, progress)
        else:  # they share nothing but the folder
            fabric.launch(functools.partial(fill, job=job, images=images, folder=folder, code=code, progress=None))
    except (Stopped, KeyboardInterrupt) as stop:
        end_children()
        stop.add_note(f"{folder.parent}: {count_shards(job, len(images), folder)} saved")
        raise
    merged = merge(job, len(images), folder, code)
    return AdversarialSet.from_result(
        merged.result,
        images.images,
        images.labels,
        indices=images.indices,
        targets=merged.targets,
        metadata=_metadata(job, clip=job.attack.clip),
    )


def _metadata(job: AttackJob, *, clip: bool) -> dict[str, Any]:
    data = job.identity["data"]
    order = {} if job.order == "drawn" or job.limit is None else {"order": job.order}
    content = {key: data[key] for key in ("classes", "files") if key in data}  # of images in folders
    return {
        "source": job.identity["source"],
        "data": {"name": data["name"], "subset": job.subset, **content},
        "attack": {**job.attack.description, "limit": job.limit, **order},
        "amplify": job.attack.amplify,
        "clip": clip,
        "seed": job.seed,
        "study": job.study,
        "version": __version__,
    }


def _amplified(job: AttackJob, base: Path) -> AdversarialSet:
    plain, size = AdversarialSet.load(base / SET), job.attack.amplify
    assert size is not None
    found, adv_inputs = plain.success, plain.adv_inputs.clone()
    adv_inputs[found] = amplify(plain.inputs[found], adv_inputs[found], size, by=job.attack.amplify_by)
    reached = torch.where(found, distortion(plain.inputs, adv_inputs), torch.inf)
    return replace(
        plain, adv_inputs=adv_inputs, distortion=reached, unrounded_distortion=None, metadata=_metadata(job, clip=False)
    )


def _summary(made: AdversarialSet, seconds: float) -> dict[str, Any]:
    found = made.distortion[made.success]
    beside: dict[str, Any] = {}
    if made.unrounded_distortion is not None:
        sizes = made.unrounded_distortion[made.success]
        beside["mean_unrounded_distortion"] = float(sizes.mean()) if len(found) else None
    return {
        "num": len(made),
        "num_success": int(made.success.sum()),
        "mean_distortion": float(found.mean()) if len(found) else None,
        "median_distortion": float(found.median()) if len(found) else None,
        **beside,
        "forwards_per_image": mean_count(made.num_forwards),
        "backwards_per_image": mean_count(made.num_backwards),
        "seconds": seconds,
    }


def _record(job: AttackJob, folder: Path, made: AdversarialSet, result: dict[str, Any]) -> None:
    """Write the numbers to metrics.csv, and the numbers, pictures and the set to W&B."""
    metrics = {f"attack/{key}": value for key, value in result.items()}
    (folder / "metrics.csv").unlink(missing_ok=True)
    CsvLog(folder / "metrics.csv").append(metrics)
    with start_job(job, "attack") as run:
        if not run.active:
            return
        run.log({key: value for key, value in metrics.items() if value is not None})
        run.log_histogram("attack/distortion", made.distortion.numpy())
        pairs = torch.stack([made.inputs[:8], made.adv_inputs[:8]], 1).flatten(0, 1)
        run.log_images("attack/examples", pairs.numpy(), ["original", "adversarial"] * len(made.inputs[:8]))
        run.log_artifact(folder / SET, kind="adversarial_set", metadata=job.identity)
