"""Make the shards of an adversarial set, in processes that share nothing but a folder.

The images of a shard, its targets, its random stream and the training images from which it begins follow from the job
alone. So the set does not depend on how many processes make the shards, in which order, or how often the attack was
interrupted. With attack.starts=batch an image begins from the others of its shard, so the size of a shard counts.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from intriguing.attacking.job import AttackJob, Processes
from intriguing.attacking.settings import CLOSEST
from intriguing.attacking.starts import start_images
from intriguing.attacks import AttackResult, AttackWarning, choose_targets
from intriguing.attacks.progress import watching
from intriguing.commands import command_name
from intriguing.data import Subset
from intriguing.errors import UserError, plural
from intriguing.nn.nonfinite import NotFiniteError, check_logits
from intriguing.storage import safetensors_file
from intriguing.storage.files import make_folder

Progress = Callable[[int, int, int], None]
"""Called with images done, images in all, and successful attacks among the finished shards, of this process."""
KEY = "shard"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """A part of a set: an attack's result, and the classes aimed at, (N,); None for noise."""

    result: AttackResult
    targets: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, on the CPU."""
        columns = replace(self.result, inputs=None, labels=None, targets=self.targets)  # the images are at hand
        return columns.tensors()

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Shard:
        """Make the shard of its tensors."""
        columns = dict(tensors)
        targets, c = columns.pop("targets", None), columns.pop("c", None)
        return cls(AttackResult(**columns, c=c), targets)


def make_fabric(processes: Processes) -> Fabric:
    """Make the Fabric of the devices, processes and nodes.

    Raises:
        UserError: an accelerator that is not there.
    """
    strategy = _strategy(processes)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it would announce each process, twice
    try:
        return Fabric(
            accelerator=processes.accelerator,
            devices=processes.devices,
            num_nodes=processes.num_nodes,
            strategy=strategy,
        )
    except (RuntimeError, ValueError) as error:
        words = str(error).splitlines()[0]
        raise UserError(f"trainer: {words} (accelerator={processes.accelerator})") from error


def _strategy(processes: Processes) -> str:
    """Choose how processes start: on one node here; on several, srun or torchrun has started them."""
    if processes.count == 1:
        return "auto"
    if processes.num_nodes > 1:
        return "ddp"
    # A fork has everything imported already, which spares each process ten seconds. It is safe as long as neither a
    # GPU nor a pool of threads was in use before.
    can_fork = sys.platform == "linux" and processes.accelerator == "cpu" and processes.threads == 1
    return "ddp_fork" if can_fork and threading.active_count() == 1 else "ddp_spawn"


def pick_images(job: AttackJob) -> Subset:
    """Take the images to attack: all of the subset, or ``limit`` of them, in their own order.

    Images of the class that all are to be taken for are left out.

    Raises:
        UserError: images that are not there, or not those that the network was trained on.
    """
    job.data.require(job.subset)
    subset = job.data.subset(job.subset)
    positions = torch.arange(len(subset))
    if job.attack.target_class is not None:
        positions = positions[subset.labels != job.attack.target_class]
    if not len(positions):
        raise UserError(f"subset={job.subset} has images of {job.attack.targets} alone, the class to be reached")
    if job.limit is not None and job.limit < len(positions):
        order = _by_label(subset.labels[positions]) if job.order == "label" else _drawn(len(positions), job.seed)
        positions = positions[order[: job.limit].sort().values]
    return subset.take(None if len(positions) == len(subset) else positions)


def _drawn(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _by_label(labels: Tensor) -> Tensor:
    """Order images so that each class has its turn: the first image of every class, then the second."""
    by_class = labels.argsort(stable=True)
    sizes = labels.bincount()
    turn = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
    return by_class[turn.argsort(stable=True)]


def fill(fabric: Fabric, job: AttackJob, images: Subset, folder: Path, code: str, progress: Progress | None) -> None:
    """Make this process's share of the missing shards.

    Args:
        fabric: places this process among all; every shard belongs to one.
        job: the attack.
        images: the images to attack.
        folder: folder of the shards; made if it is missing.
        code: digest of the code; a shard that other code has made is made again.
        progress: called before the first shard, during each and after it.
    """
    torch.set_num_threads(job.processes.threads)
    make_folder(folder)
    model = None if job.source is None else job.source.model.to(fabric.device)
    targets = _targets(job, model, images)
    device = fabric.device if model is not None else torch.device("cpu")
    starts = functools.cache(lambda: start_images(job.attack, job.data, job.seed, device))  # read if a shard is missing
    firsts = range(0, len(images), job.shard)[fabric.global_rank :: fabric.world_size]
    parts = [slice(first, min(first + job.shard, len(images))) for first in firsts]
    done, total, success = 0, sum(part.stop - part.start for part in parts), 0
    if progress is not None:
        progress(0, total, 0)
    for part in parts:
        file = _file(job, folder, part.start)
        shard = _load(file, code)
        if shard is None:
            with watching(_within(progress, done, part, total, success)):
                shard = _make(job, model, images, targets, part, starts())
            safetensors_file.save(shard.tensors(), file, KEY, {"format": 1, "code": code})
        done, success = done + part.stop - part.start, success + int(shard.result.success.sum())
        if progress is not None:
            progress(done, total, success)
    if model is not None:
        model.cpu()


def _within(progress: Progress | None, done: int, part: slice, total: int, success: int) -> Callable[[float], None]:
    """Turn the share of a shard that is done into a number of images, and report each number once."""
    size, last = part.stop - part.start, 0

    def observe(share: float) -> None:
        nonlocal last
        now = int(share * size)
        if progress is not None and now > last:
            last = now
            progress(done + now, total, success)

    return observe


def merge(job: AttackJob, num_images: int, folder: Path, code: str) -> Shard:
    """Join all shards in the order of the images.

    Raises:
        UserError: a shard is missing: a process that should have made it has failed.
    """
    shards = [_load(_file(job, folder, first), code) for first in range(0, num_images, job.shard)]
    whole = [shard.tensors() for shard in shards if shard is not None]
    if len(whole) < len(shards):
        raise UserError(
            f"{folder} lacks {len(shards) - len(whole)} of {plural(len(shards), 'shard')}; run the same command again"
        )
    return Shard.of({name: torch.cat([tensors[name] for tensors in whole]) for name in whole[0]})


def count_shards(job: AttackJob, num_images: int, folder: Path) -> str:
    """Count the shards that exist, in words: "3 of 8 shards are"."""
    files = [_file(job, folder, first) for first in range(0, num_images, job.shard)]
    there = sum(file.is_file() for file in files)
    return f"{there} of {plural(len(files), 'shard')} {'is' if there == 1 else 'are'}"


def _file(job: AttackJob, folder: Path, first: int) -> Path:
    return folder / f"{first:08d}-{job.shard}.safetensors"


def _load(file: Path, code: str) -> Shard | None:
    """Read a shard; None where it is absent, damaged or made by other code, for it is then made again."""
    if not file.exists():
        return None
    try:
        entry, tensors = safetensors_file.load(file, KEY, lambda entry, path: None, what="attack's shard")
    except UserError as error:
        log.warning("%s: this shard is made again", str(error).removesuffix(f"; run {command_name('attack')} again"))
        return None
    if entry.get("code") != code:
        log.warning("%s was made by other code or another PyTorch: this shard is made again", file)
        return None
    return Shard.of(tensors)


def _targets(job: AttackJob, model: nn.Module | None, images: Subset) -> Tensor | None:
    """Choose the targets (N,) of the whole set, which do not depend on the shards; None where the attack chooses."""
    if model is None or job.attack.targets in ("", CLOSEST):
        return None
    if job.attack.target_class is not None:
        return torch.full_like(images.labels, job.attack.target_class)
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = torch.cat(
            [model(batch.to(device)).cpu() for batch in images.images.split(min(1000, job.data.evaluation_batch))]
        )
    check_logits(model, images.images.to(device), logits)
    generator = torch.Generator().manual_seed(job.seed)
    return choose_targets(job.attack.targets, images.labels, logits, generator=generator)


def _seed(job: AttackJob, first: int) -> int:
    """Derive the seed of one shard, so that a shard made after an interruption is the one it would have been."""
    if job.source is not None:
        return job.seed * 1_000_003 + first
    # Two sets of noise of one seed must not hold one noise in two sizes.
    what = json.dumps([job.seed, first, job.subset, job.attack.description], sort_keys=True)
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big") >> 1


def _make(
    job: AttackJob,
    model: nn.Module | None,
    images: Subset,
    targets: Tensor | None,
    part: slice,
    starts: Mapping[str, Any],
) -> Shard:
    device = torch.device("cpu") if model is None else next(model.parameters()).device
    inputs, labels = images.images[part].to(device), images.labels[part].to(device)
    wanted = None if targets is None else targets[part].to(device)
    generator = torch.Generator().manual_seed(_seed(job, part.start))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AttackWarning)
        try:
            settings = {**job.attack.settings, **starts}
            result = job.attack.attack(model, inputs, labels, targets=wanted, generator=generator, **settings)
        except NotFiniteError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(f"attack={job.attack.name}: {error}") from error
    for one in caught:
        if one.category is AttackWarning:
            log.warning("%s: %s", job.name, one.message)
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if wanted is None and model is not None:
        with torch.no_grad():
            wanted = model(result.adv_inputs).argmax(1)
    return Shard(result, wanted)
