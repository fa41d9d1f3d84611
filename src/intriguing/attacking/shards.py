"""Shards of an adversarial set: made side by side by processes that share nothing but a folder, each saved at once.

Which images a shard holds, its targets and its random stream follow from the job alone. So it does not matter how many
processes make them, in which order, or how often the attack was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from intriguing.attacking.job import ATTACKS, AttackJob
from intriguing.attacks import AttackWarning, choose_targets, closest, gaussian
from intriguing.checkpoints import load_model
from intriguing.data import ImageData, Subset, open_images
from intriguing.errors import UserError, plural
from intriguing.metrics import distortion
from intriguing.nn.nonfinite import NotFiniteError, check_logits
from intriguing.storage import safetensors_file
from intriguing.storage.files import make_folder

Progress = Callable[[int, int, int], None]
"""Called with images done, images in all, and how many attacks succeeded so far, of this process."""
KEY = "shard"
log = logging.getLogger(__name__)


def processes(job: AttackJob) -> int:
    """How many processes make the shards of a job."""
    return job.devices * job.num_nodes


def make_fabric(job: AttackJob) -> Fabric:
    """Where the shards are made: devices, processes and nodes.

    Raises:
        UserError: an accelerator that is not there.
    """
    strategy = _strategy(job)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it would announce each process, twice
    try:
        return Fabric(accelerator=job.accelerator, devices=job.devices, num_nodes=job.num_nodes, strategy=strategy)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]} (accelerator={job.accelerator})") from error


def _strategy(job: AttackJob) -> str:
    """On one node the processes are started here; on several, srun or torchrun has started them."""
    if processes(job) == 1:
        return "auto"
    if job.num_nodes > 1:
        return "ddp"
    # A fork has everything imported already, which spares each process ten seconds. It is safe as long as neither a
    # GPU nor a pool of threads was in use before.
    can_fork = sys.platform == "linux" and job.accelerator == "cpu" and job.threads == 1
    return "ddp_fork" if can_fork and threading.active_count() == 1 else "ddp_spawn"


def pick_images(job: AttackJob, data: ImageData | None = None) -> Subset:
    """The images to attack: all of the subset, or ``limit`` of them drawn by the seed, in their own order.

    Args:
        job: what to attack.
        data: the images that the job describes, where they are open already.

    Raises:
        UserError: images that are not there, or not those that the network was trained on.
    """
    if data is None:
        data = open_images(**job.data)
        data.prepare_data()
    data.require(job.subset)
    subset = data.subset(job.subset)
    if job.limit is None or job.limit >= len(subset):
        return subset.take()
    order = torch.randperm(len(subset), generator=torch.Generator().manual_seed(job.seed))
    chosen = order[: job.limit].sort().values
    return subset.take(chosen)


def fill(fabric: Fabric, job: AttackJob, folder: Path, progress: Progress | None) -> None:
    """Make this process's share of the shards that are not there yet.

    Args:
        fabric: this process's place among all; every shard belongs to one.
        job: what to attack, and how.
        folder: where the shards go; made if it is missing.
        progress: told after each shard.
    """
    torch.set_num_threads(job.threads)
    make_folder(folder)
    data = open_images(**job.data)
    if fabric.local_rank == 0:
        data.prepare_data()  # the disk of a further node may lack MNIST
    fabric.barrier()
    images = pick_images(job, data)
    model = None if job.checkpoint is None else load_model(job.checkpoint).to(fabric.device)
    targets = _targets(job, model, images)
    firsts = range(0, len(images), job.shard)[fabric.global_rank :: fabric.world_size]
    parts = [slice(first, min(first + job.shard, len(images))) for first in firsts]
    done, total, success = 0, sum(part.stop - part.start for part in parts), 0
    for part in parts:
        file = _file(job, folder, part.start)
        columns = _load(file)
        if columns is None:
            columns = _make(job, model, images, targets, part)
            _save(columns, file)
        done, success = done + part.stop - part.start, success + int(columns["success"].sum())
        if progress is not None:
            progress(done, total, success)


def merge(job: AttackJob, num_images: int, folder: Path) -> dict[str, Tensor]:
    """All shards as one, in the order of the images.

    Raises:
        UserError: a shard is missing: a process that should have made it has failed.
    """
    columns = [_load(_file(job, folder, first)) for first in range(0, num_images, job.shard)]
    whole = [column for column in columns if column is not None]
    if len(whole) < len(columns):
        raise UserError(
            f"{folder} lacks {len(columns) - len(whole)} of {plural(len(columns), 'shard')}; run the same command again"
        )
    return {key: torch.cat([column[key] for column in whole]) for key in whole[0]}


def count_shards(job: AttackJob, num_images: int, folder: Path) -> str:
    """How many of the shards are there: "3 of 8 shards are"."""
    files = [_file(job, folder, first) for first in range(0, num_images, job.shard)]
    there = sum(file.is_file() for file in files)
    return f"{there} of {plural(len(files), 'shard')} {'is' if there == 1 else 'are'}"


def _file(job: AttackJob, folder: Path, first: int) -> Path:
    return folder / f"{first:08d}-{job.shard}.safetensors"


def _load(file: Path) -> dict[str, Tensor] | None:
    """A shard's columns; None where it is absent or damaged. It is made again then, the same bit for bit."""
    if not file.exists():
        return None
    try:
        return safetensors_file.load(file, KEY, lambda entry, path: None, what="attack's shard")[1]
    except UserError as error:
        log.warning("%s: this shard is made again", str(error).removesuffix("; run attack.py again"))
        return None


def _save(columns: dict[str, Tensor], file: Path) -> None:
    safetensors_file.save({key: value.contiguous() for key, value in columns.items()}, file, KEY, {"format": 1})


def _targets(job: AttackJob, model: nn.Module | None, images: Subset) -> Tensor | None:
    """Targets (N,) of the whole set, so that they do not depend on the shards; None for closest and for noise."""
    rule = job.attack.get("targets", "closest")
    if model is None or rule == "closest":
        return None
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = torch.cat([model(batch.to(device)).cpu() for batch in images.images.split(1000)])
    check_logits(model, images.images.to(device), logits)
    return choose_targets(rule, images.labels, logits, generator=torch.Generator().manual_seed(job.seed))


def _make(
    job: AttackJob, model: nn.Module | None, images: Subset, targets: Tensor | None, part: slice
) -> dict[str, Tensor]:
    # every shard has its own stream, so that one made after an interruption is the one it would have been
    generator = torch.Generator().manual_seed(job.seed * 1_000_003 + part.start)
    inputs, labels = images.images[part], images.labels[part]
    if model is None:
        generator.manual_seed(_noise_seed(job, part.start))
        adv_inputs = gaussian(inputs, job.attack["stddev"], clip=job.attack["clip"], generator=generator)
        return _noise_columns(inputs, adv_inputs)
    return _attack(job, model, inputs, labels, None if targets is None else targets[part], generator)


def _noise_seed(job: AttackJob, first: int) -> int:
    """A seed for one shard of one noise set: two sets of a seed must not hold the same noise in two sizes."""
    what = json.dumps([job.seed, first, job.subset, job.attack], sort_keys=True)
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big") >> 1


def _noise_columns(inputs: Tensor, adv_inputs: Tensor) -> dict[str, Tensor]:
    count = torch.zeros(len(inputs), dtype=torch.int64)
    return {
        "adv_inputs": adv_inputs,
        "targets": count - 1,
        "success": torch.ones(len(inputs), dtype=torch.bool),
        "distortion": distortion(inputs, adv_inputs),
        "c": torch.full((len(inputs),), torch.nan),
        "num_forwards": count,
        "num_backwards": count.clone(),
    }


def _attack(
    job: AttackJob, model: nn.Module, inputs: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
) -> dict[str, Tensor]:
    name, settings = job.attack["name"], dict(job.attack["settings"])
    attack: Callable[..., Any] = ATTACKS[name]
    if name == "adam_l1":
        settings["generator"] = generator
    device = next(model.parameters()).device
    inputs, labels = inputs.to(device), labels.to(device)
    wanted = None if targets is None else targets.to(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AttackWarning)
        try:
            if name == "nearest":
                result = attack(model, inputs, labels, targets=wanted, **settings)
            elif wanted is not None:
                result = attack(model, inputs, wanted, **settings)
            else:
                result = closest(attack, model, inputs, labels, **settings)
        except NotFiniteError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(f"attack={name}: {str(error).split('() ')[-1]}") from error
    for one in caught:
        if one.category is AttackWarning:
            log.warning("%s: %s", job.name, one.message)
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if targets is None:
        with torch.no_grad():
            targets = model(result.adv_inputs).argmax(1)
    c = torch.full_like(result.distortion, torch.nan) if result.c is None else result.c
    columns = {
        "adv_inputs": result.adv_inputs,
        "targets": targets,
        "success": result.success,
        "distortion": result.distortion,
        "c": c,
        "num_forwards": result.num_forwards,
        "num_backwards": result.num_backwards,
    }
    return {key: value.cpu() for key, value in columns.items()}
