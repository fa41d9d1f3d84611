"""Craft one adversarial set: shard by shard, each saved at once, then merged by image."""

from __future__ import annotations

import functools
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from intriguing import __version__, tracking
from intriguing.adversarial_set import AdversarialSet
from intriguing.attacking.job import ATTACKS, AttackJob
from intriguing.attacks import amplify, choose_targets, closest, gaussian
from intriguing.checkpoints import load_model
from intriguing.data import ImageData, Subset
from intriguing.errors import UserError
from intriguing.metrics import distortion

log = logging.getLogger(__name__)
SET = "set.safetensors"
Progress = Callable[[int, int], None]


def craft(job: AttackJob, *, progress: Progress | None = None) -> Path:
    """Make the adversarial set of a job, or skip it when its folder is finished, or go on at the next shard.

    Args:
        job: what to attack, and how.
        progress: called with (images done, images in all) after each shard.

    Returns:
        The run folder, with ``set.safetensors``, ``metrics.csv`` and ``run.json``.

    Raises:
        UserError: data that is not there, a folder that holds another run, settings the attack does not take.
    """
    torch.set_num_threads(job.threads)
    runs, start = Path(job.runs), time.perf_counter()
    if tracking.standing(runs, "attack", job.name, job.identity) == "finished":
        log.info("%s is finished: skipped", runs / "attack" / job.name)
        return runs / "attack" / job.name
    # Amplifying is a function of the plain set, which is worth having of its own: make that one first.
    base = craft(_plain(job), progress=progress) if job.attack.get("amplify") else None
    model = None if job.checkpoint is None else load_model(job.checkpoint).to(_device(job.accelerator))
    images = _images(job)
    with tracking.open_run(
        runs,
        "attack",
        job.name,
        job.identity,
        label=job.label,
        study=job.study,
        tags=list(job.tags),
        command=job.command,
    ) as run:
        if run.finished:
            return run.folder
        shards = run.folder / "shards"
        made = _amplified(job, base) if base else _in_shards(job, model, images, shards, progress)
        made.save(run.path(SET))
        seconds = round(time.perf_counter() - start, 3)
        result = _summary(made, seconds)
        _record(job, run.folder, made, result)
        run.finish(result, [SET])
        shutil.rmtree(shards, ignore_errors=True)
    return run.folder


def _plain(job: AttackJob) -> AttackJob:
    suffix = f"_amplify{job.attack['amplify']:g}"
    attack = {**job.attack, "amplify": None}
    name = job.name.replace(suffix, "") if suffix in job.name else f"{job.name}_plain"
    return replace(job, name=name, attack=attack, identity={**job.identity, "attack": attack})


def _device(accelerator: str) -> torch.device:
    wants_gpu = accelerator in ("gpu", "cuda")
    if wants_gpu and not torch.cuda.is_available():
        raise UserError("device=gpu was asked for, but torch sees no CUDA device; use device=cpu")
    return torch.device("cuda" if wants_gpu or (accelerator == "auto" and torch.cuda.is_available()) else "cpu")


def _images(job: AttackJob) -> Subset:
    """The images to attack: all of the subset, or ``limit`` of them drawn by the seed, in their own order."""
    subset = ImageData(**job.data).subset(job.subset)
    if len(subset) == 0:
        raise UserError(f"{job.name}: the network was trained without a validation part, so subset=val is empty")
    if job.limit is None or job.limit >= len(subset):
        return subset
    order = torch.randperm(len(subset), generator=torch.Generator().manual_seed(job.seed))
    chosen = order[: job.limit].sort().values
    return Subset(subset.images[chosen], subset.labels[chosen], subset.indices[chosen])


def _in_shards(
    job: AttackJob, model: nn.Module | None, images: Subset, folder: Path, progress: Progress | None
) -> AdversarialSet:
    folder.mkdir(parents=True, exist_ok=True)
    targets = _targets(job, model, images)
    columns: list[dict[str, Tensor]] = []
    for first in range(0, len(images), job.shard):
        file = folder / f"{first:08d}-{job.shard}.safetensors"
        part = slice(first, min(first + job.shard, len(images)))
        columns.append(_load_shard(file) or _make_shard(job, model, images, targets, part, file))
        if progress is not None:
            progress(part.stop, len(images))
    merged = {key: torch.cat([column[key] for column in columns]) for key in columns[0]}
    return _as_set(job, images, merged, clip=job.attack.get("clip", True))


def _load_shard(file: Path) -> dict[str, Tensor] | None:
    try:
        return load_file(file)
    except Exception:  # absent, or half-written by a killed process: made again
        return None


def _targets(job: AttackJob, model: nn.Module | None, images: Subset) -> Tensor | None:
    """Targets (N,) of the whole set, so that they do not depend on the shards; None for closest and for noise."""
    rule = job.attack.get("targets", "closest")
    if model is None or rule == "closest":
        return None
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = torch.cat([model(batch.to(device)).cpu() for batch in images.images.split(1000)])
    return choose_targets(rule, images.labels, logits, generator=torch.Generator().manual_seed(job.seed))


def _make_shard(
    job: AttackJob, model: nn.Module | None, images: Subset, targets: Tensor | None, part: slice, file: Path
) -> dict[str, Tensor]:
    # every shard has its own stream, so that one made after an interruption is the one it would have been
    generator = torch.Generator().manual_seed(job.seed * 1_000_003 + part.start)
    inputs, labels = images.images[part], images.labels[part]
    if model is None:
        adv_inputs = gaussian(inputs, job.attack["stddev"], clip=job.attack["clip"], generator=generator)
        columns = _noise_columns(inputs, adv_inputs)
    else:
        wanted = None if targets is None else targets[part]
        columns = _attack(job, model, inputs, labels, wanted, generator)
    part_file = file.with_name(f".{file.name}.part")
    save_file({key: value.contiguous() for key, value in columns.items()}, part_file)
    part_file.replace(file)
    return columns


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
    try:
        if targets is not None and name == "nearest":
            result = attack(model, inputs, labels, targets=targets.to(device), **settings)
        elif targets is not None:
            result = attack(model, inputs, targets.to(device), **settings)
        elif name == "nearest":
            result = attack(model, inputs, labels, **settings)
        else:
            result = closest(functools.partial(attack), model, inputs, labels, **settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"attack={name}: {str(error).split('() ')[-1]}") from error
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


def _as_set(job: AttackJob, images: Subset, columns: dict[str, Tensor], *, clip: bool) -> AdversarialSet:
    metadata = {
        "source": job.identity["source"],
        "data": {"name": job.data["name"], "subset": job.subset},
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


def _amplified(job: AttackJob, base: Path) -> AdversarialSet:
    plain = AdversarialSet.load(base / SET)
    adv_inputs = amplify(plain.inputs, plain.adv_inputs, job.attack["amplify"])
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
    tracking.CsvLog(folder / "metrics.csv").append(metrics)
    with tracking.start_wandb(
        folder=folder,
        name=job.name,
        group=job.study,
        job_type="attack",
        config=job.identity,
        tags=job.tags,
        mode=job.logger["mode"] if job.logger["wandb"] else "disabled",
        project=job.logger["project"],
    ) as run:
        if not run.active:
            return
        run.log({key: value for key, value in metrics.items() if value is not None})
        run.log_histogram("attack/distortion", made.distortion.numpy())
        pairs = torch.stack([made.inputs[:8], made.adv_inputs[:8]], 1).flatten(0, 1)
        run.log_images("attack/examples", pairs.numpy(), ["original", "adversarial"] * len(made.inputs[:8]))
        run.log_artifact(folder / SET, kind="adversarial_set", metadata=job.identity)
