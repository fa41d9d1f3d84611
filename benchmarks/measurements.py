"""Measure an attack on the images of a network, and keep every measurement as soon as it is made."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmark_networks import Case
from peers import Method
from torch import Tensor, nn
from tracking import BudgetSpent, RowsMixed, Tracked, judge

from intriguing.attacks import frozen


@dataclass(frozen=True)
class Measurement:
    """What one attack gave on the images of one network.

    Attributes:
        network: its name.
        mode: "targeted" or "untargeted".
        method: the attack, with its settings.
        images: number of images.
        device: on what it ran.
        ms_per_image: milliseconds an image, without those of the tracking.
        success: share of images for which it found an adversarial one.
        distortion: mean distortion (per-pixel RMS) of the successes.
        evaluations: forward and backward passes of the whole batch that its time would have paid for.
        budget: propagations an image after which nothing counted; None: no limit.
        propagations: mean forward and backward passes an image.
        most_propagations: largest number for an image; None where it cannot be known.
        l2: distance of each image, None where it failed.
        error: why it gave nothing.
    """

    network: str
    mode: str
    method: str
    images: int
    device: str
    ms_per_image: float = math.nan
    success: float = 0.0
    distortion: float = math.nan
    evaluations: float = math.nan
    budget: int | None = None
    propagations: float = math.nan
    most_propagations: int | None = None
    l2: list[float | None] | None = None
    error: str | None = None

    @property
    def key(self) -> tuple[str, str, str, int | None, int, str]:
        return self.network, self.mode, self.method, self.budget, self.images, self.device

    def found(self, distances: Tensor, pixels: int) -> Measurement:
        """Return a copy with the distances (N,) of the images; inf where it failed."""
        finite = distances[distances.isfinite()].double()
        return replace(
            self,
            success=len(finite) / len(distances),
            distortion=float(finite.mean()) / math.sqrt(pixels) if len(finite) else math.nan,
            l2=[one if math.isfinite(one) else None for one in distances.tolist()],
        )


class Results:
    """Measurements by their key, on disk as soon as they are made."""

    def __init__(self, path: Path, again: bool) -> None:
        self.path, self.again = path, again
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = json.loads(path.read_text()) if path.exists() else []
        known = {field.name for field in fields(Measurement)}
        self.rows = [Measurement(**{name: row[name] for name in row.keys() & known}) for row in rows]

    def find(self, wanted: Measurement) -> Measurement | None:
        """Return what was measured before under the same key."""
        return next((row for row in self.rows if row.key == wanted.key), None)

    def measure(self, wanted: Measurement, work: Callable[[Measurement], Measurement]) -> None:
        places = [place for place, known in enumerate(self.rows) if known.key == wanted.key]
        if places and not self.again:
            return
        print("measuring", *(part for part in wanted.key if part is not None), flush=True)
        made = work(wanted)
        if places:
            self.rows[places[0]] = made
        else:
            self.rows.append(made)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps([asdict(row) for row in self.rows]).replace("}, {", "},\n{"))
        os.replace(temporary, self.path)


def measure(results: Results, case: Case, method: Method, classes: Tensor, targeted: bool) -> None:
    """Measure one attack, unless that is done.

    An attack that limits the propagations of each image by its own settings is not measured again with a budget, if it
    kept to that on average, as counted around the network.
    """
    num = min(method.images or len(case.inputs), len(case.inputs))
    mode, device = "targeted" if targeted else "untargeted", device_name(case.inputs.device)
    inputs, classes = case.inputs[:num], classes[:num]

    def work(wanted: Measurement) -> Measurement:
        whole = (
            results.find(replace(wanted, method=method.without_limit, budget=None)) if method.without_limit else None
        )
        if whole is not None and whole.propagations <= (method.budget or 0):
            return replace(whole, method=wanted.method, budget=wanted.budget, evaluations=math.nan)
        with frozen(case.model):
            try:
                if method.budget is None:
                    return _without_limit(wanted, case.model, method, inputs, classes, targeted)
                return _within(wanted, case.model, method, inputs, classes, targeted, method.budget)
            except (RuntimeError, ValueError, IndexError) as error:  # of an attack that cannot work on this network
                print(f"failed: {error}", flush=True)
                nothing = torch.full((num,), torch.inf)
                return replace(wanted, error=str(error).splitlines()[0]).found(nothing, inputs[0].numel())

    results.measure(Measurement(case.name, mode, method.name, num, device, budget=method.budget), work)


def _without_limit(
    wanted: Measurement, model: nn.Module, method: Method, inputs: Tensor, classes: Tensor, targeted: bool
) -> Measurement:
    """Run an attack to its end on all images, and classify again what it returns."""
    _warm_up(model, method, inputs, classes, targeted)
    evaluation = min(_clock(inputs.device, lambda: _evaluate(model, inputs, classes))[0] for _ in range(10))
    tracked = Tracked(model, inputs, classes, targeted)
    torch.manual_seed(0)
    seconds, adv_inputs = _clock(inputs.device, lambda: method.attack(tracked, inputs, classes, inputs))
    seconds -= tracked.seconds
    distances = judge(model, inputs, adv_inputs, classes, targeted)
    return replace(
        wanted,
        ms_per_image=1e3 * seconds / len(inputs),
        evaluations=seconds / evaluation,
        propagations=tracked.total / len(inputs),
    ).found(distances, inputs[0].numel())


def _within(
    wanted: Measurement,
    model: nn.Module,
    method: Method,
    inputs: Tensor,
    classes: Tensor,
    targeted: bool,
    budget: int,
) -> Measurement:
    """Run an attack until the budget of each image is spent; the nearest success that the network was shown counts.

    An attack whose rows are mixed is given one image at a time.
    """

    def run(first: int, last: int) -> Tracked:
        part, wished = inputs[first:last], classes[first:last]
        shared = len(inputs) - (last - first) if method.reads_pool else 0  # one pass of the pool serves all images
        tracked = Tracked(model, part, wished, targeted, budget, shared)
        torch.manual_seed(0)
        with contextlib.suppress(BudgetSpent):
            method.attack(tracked, part, wished, inputs)
        return tracked

    start = time.perf_counter()
    try:
        runs = [run(0, len(inputs))]
    except RowsMixed:
        start = time.perf_counter()
        runs = [run(i, i + 1) for i in range(len(inputs))]
    seconds = time.perf_counter() - start - sum(one.seconds for one in runs)
    spent = torch.cat([one.spent for one in runs])
    return replace(
        wanted,
        ms_per_image=1e3 * seconds / len(inputs),
        propagations=float(spent.clamp(max=budget).double().mean()),
        most_propagations=int(spent.max()),
    ).found(torch.cat([one.nearest for one in runs]), inputs[0].numel())


def _warm_up(model: nn.Module, method: Method, inputs: Tensor, classes: Tensor, targeted: bool) -> None:
    """Run an attack for a moment on one image, so that what is set up once is not timed."""
    with contextlib.suppress(BudgetSpent):
        method.attack(Tracked(model, inputs[:1], classes[:1], targeted, 50), inputs[:1], classes[:1], inputs[:1])


def _evaluate(model: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    x = inputs.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), classes, reduction="sum"), x)[0]


def _clock(device: torch.device, work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    result = work()
    wait()
    return time.perf_counter() - start, result


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU thread"
