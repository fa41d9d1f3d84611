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
from torch import Tensor

from intriguing import __version__
from intriguing.adversarial_set import AdversarialSet
from intriguing.attacking.job import AttackJob
from intriguing.attacking.shards import Progress, count_shards, fill, make_fabric, merge, pick_images, processes
from intriguing.attacks import amplify
from intriguing.checkpoints import load_model
from intriguing.data import Subset
from intriguing.errors import Stopped, UserError
from intriguing.metrics import distortion
from intriguing.nn.nonfinite import check_logits
from intriguing.runs.interrupts import end_children
from intriguing.runs.jobs import finished_folder, run_of
from intriguing.storage.csv_log import CsvLog
from intriguing.tracking.jobs import start_job

SET = "set.safetensors"
_TRIED = 100  # images that a network has to answer for before the attack begins


def craft(job: AttackJob, *, progress: Progress | None = None) -> Path:
    """Make the adversarial set of a job, or skip it when its folder is finished, or go on at the next shard.

    Args:
        job: what to attack, and how.
        progress: told after each shard: images done, images in all, attacks that succeeded.

    Returns:
        The run folder, with ``set.safetensors``, ``metrics.csv`` and ``run.json``.

    Raises:
        UserError: data that is not there, a folder that holds another run, settings the attack does not take.
    """
    torch.set_num_threads(job.threads)
    start = time.perf_counter()
    if folder := finished_folder(job, "attack"):
        shutil.rmtree(folder / "shards", ignore_errors=True)  # of one that was killed when all but this was done
        return folder
    folder = Path(job.runs) / "attack" / job.name
    # Amplifying is a function of the plain set, which is worth having of its own: make that one first.
    base = craft(_plain(job), progress=progress) if job.attack.get("amplify") else None
    fabric = make_fabric(job)
    if job.num_nodes > 1:
        fabric.launch()  # srun or torchrun has started the processes; here they meet
        if fabric.global_rank > 0:
            return folder if base else _help(job, fabric, folder)
    images = pick_images(job)
    _check_network(job, images)
    with run_of(job, "attack") as run:
        if run.finished:
            return run.folder
        shards = run.folder / "shards"
        made = _amplified(job, base) if base else _in_shards(job, fabric, images, shards, progress)
        made.save(run.path(SET))
        seconds = round(time.perf_counter() - start, 3)
        result = _summary(made, seconds)
        _record(job, run.folder, made, result)
        run.finish(result, [SET, "metrics.csv"])
        shutil.rmtree(shards, ignore_errors=True)
    return run.folder


def _check_network(job: AttackJob, images: Subset) -> None:
    """Raises UserError, before anything is written, where the network cannot be built or cannot answer."""
    if job.checkpoint is not None:
        model, some = load_model(job.checkpoint), images.images[:_TRIED]
        if tuple(some.shape[1:]) != model.input_shape:
            raise UserError(f"{job.checkpoint} wants images of shape {model.input_shape}, got {tuple(some.shape[1:])}")
        with torch.no_grad():
            check_logits(model, some, model(some))


def _help(job: AttackJob, fabric: Fabric, folder: Path) -> Path:
    """What the processes of several nodes do but for the first, which alone opens, merges and finishes the folder."""
    fabric.barrier()  # the folder is open
    fill(fabric, job, folder / "shards", None)
    fabric.barrier()
    return folder


def _plain(job: AttackJob) -> AttackJob:
    suffix = job.amplification
    attack = {**{key: value for key, value in job.attack.items() if key != "amplify_by"}, "amplify": None}
    name = job.name.replace(suffix, "") if suffix in job.name else f"{job.name}_plain"
    return replace(job, name=name, attack=attack, identity={**job.identity, "attack": attack})


def _in_shards(
    job: AttackJob, fabric: Fabric, images: Subset, folder: Path, progress: Progress | None
) -> AdversarialSet:
    """Fill the folder with shards, in as many processes as were asked for, and merge them by image."""
    try:
        if job.num_nodes > 1:
            fabric.barrier()
            fill(fabric, job, folder, progress)
            fabric.barrier()
        elif processes(job) == 1:
            fill(fabric, job, folder, progress)
        else:  # they share nothing but the folder
            fabric.launch(functools.partial(fill, job=job, folder=folder, progress=None))
    except (Stopped, KeyboardInterrupt) as stop:
        end_children()
        stop.add_note(f"{folder.parent}: {count_shards(job, len(images), folder)} saved")
        raise
    merged = merge(job, len(images), folder)
    return _as_set(job, images, merged, clip=job.attack.get("clip", True))


def _as_set(job: AttackJob, images: Subset, columns: dict[str, Tensor], *, clip: bool) -> AdversarialSet:
    metadata = {
        "source": job.identity["source"],
        "data": {"name": job.data["name"], "subset": job.subset, **_content(job)},
        "attack": {**job.attack, "limit": job.limit},
        "amplify": job.attack.get("amplify"),
        "clip": clip,
        "seed": job.seed,
        "study": job.study,
        "version": __version__,
    }
    return AdversarialSet(
        inputs=images.images, labels=images.labels, indices=images.indices, metadata=metadata, **columns
    )


def _content(job: AttackJob) -> dict[str, Any]:
    """Of images in folders: the names of their classes, and the digest of their files."""
    data = job.identity["data"]
    return {key: data[key] for key in ("classes", "files") if key in data}


def _amplified(job: AttackJob, base: Path) -> AdversarialSet:
    plain = AdversarialSet.load(base / SET)
    found, adv_inputs = plain.success, plain.adv_inputs.clone()
    adv_inputs[found] = amplify(
        plain.inputs[found], adv_inputs[found], job.attack["amplify"], by=job.attack["amplify_by"]
    )
    size = distortion(plain.inputs, adv_inputs)
    columns = {
        "adv_inputs": adv_inputs,
        "targets": plain.targets,
        "success": plain.success,
        "distortion": torch.where(plain.success, size, torch.inf),
        "c": plain.c,
        "num_forwards": plain.num_forwards,
        "num_backwards": plain.num_backwards,
    }
    return _as_set(job, Subset(plain.inputs, plain.labels, plain.indices), columns, clip=False)


def _summary(made: AdversarialSet, seconds: float) -> dict[str, Any]:
    found = made.distortion[made.success]
    return {
        "num": len(made),
        "num_success": int(made.success.sum()),
        "mean_distortion": float(found.mean()) if len(found) else None,
        "median_distortion": float(found.median()) if len(found) else None,
        "forwards_per_image": float(made.num_forwards.double().mean()),
        "backwards_per_image": float(made.num_backwards.double().mean()),
        "seconds": seconds,
    }


def _record(job: AttackJob, folder: Path, made: AdversarialSet, result: dict[str, Any]) -> None:
    """Numbers to metrics.csv and W&B, pictures and the set itself to W&B."""
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
