"""Tabulate how adversarial sets carry over from one network to others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis.cells import MEAN, NEWCOMBE, WILSON, distortion_cell, error_cell, excess_cell
from intriguing.analysis.excess import OVER_CLEAN, OVER_NOISE
from intriguing.analysis.measure import Outcome, image_indices, mixed_seed, outcomes
from intriguing.attacks.network import Model
from intriguing.errors import UserError, error_message, plural
from intriguing.interface.network import answers, as_module, device_of, taking_float32
from intriguing.nn import PickOutput
from intriguing.nn.evaluation import wrong_answers
from intriguing.results import Cell, Table
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval

UNPERTURBED = "unperturbed images"
"""Row of the errors on the images themselves."""
DISTORTION = "av. distortion"
"""Column of the mean distortion of each set."""

Baseline = Literal["clean", "noise"]
_EXCESSES = {"clean": OVER_CLEAN, "noise": OVER_NOISE}


def transfer_table(
    nets: Mapping[str, Model],
    sets: Mapping[str, AdversarialSet],
    *,
    excess_over: Baseline | None = None,
    seed: int = 0,
    batch_size: int = 1000,
) -> Table:
    """Tabulate the errors of networks on the adversarial examples made for each other (Tables 2 and 4).

    Only images whose attack succeeded are shown. As in the paper, the errors contain those on images that a network
    gets wrong anyway; the last row has these alone, and ``excess_over`` subtracts them image by image.

    Args:
        nets: torch modules, or functions of modules, by name: the columns. They take images of one shape and answer
            with one number of classes.
        sets: adversarial sets by the name of the network that each was made for: the rows. A network that is not among
            ``nets``, and noise, may have any other name.
        excess_over: None for errors in percent. ``clean`` for the difference to the errors on the same images,
            ``noise`` to those under Gaussian noise of equal norm, in percentage points.
        seed: of the noise.
        batch_size: images per forward pass.

    Returns:
        The table, with 95 % intervals (Wilson's of a rate, Newcombe's of a difference, Student's of a mean). It shows
        itself in a notebook; ``to_frame()`` makes a pandas DataFrame of it.

    Raises:
        UserError: nothing to tabulate, or networks and sets that do not fit each other.

    Example:
        >>> import intriguing as ig, torch
        >>> _ = torch.manual_seed(0)
        >>> nets = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 3)) for name in ("one", "two")}
        >>> images = torch.rand(20, 1, 3, 3)
        >>> labels = nets["one"](images).argmax(1)
        >>> sets = {name: ig.craft(net, images, labels) for name, net in nets.items()}
        >>> table = ig.transfer_table(nets, sets)
        >>> table.cells["one", "one"].value, table.cells["unperturbed images", "one"].value
        (100.0, 0.0)
    """
    if excess_over is not None and excess_over not in _EXCESSES:
        raise UserError(f"excess_over must be None, 'clean' or 'noise', got {excess_over!r}")
    victims = _victims(nets, sets)
    measured = {
        name: outcomes(
            one,
            one.success.nonzero().flatten(),
            victims,
            generator=torch.Generator().manual_seed(mixed_seed(seed, name)) if excess_over == "noise" else None,
            batch_size=batch_size,
        )
        for name, one in sets.items()
    }
    cells: dict[tuple[str, str], Cell | None] = {}
    for row, by_victim in measured.items():
        for column, outcome in by_victim.items():
            own = row == column and sets[row].metadata["amplify"] is None
            cells[row, column] = _cell(outcome, excess_over, own=own)
        if excess_over is None:
            cells[row, DISTORTION] = _distortion(sets[row])
    if excess_over is None:
        for column, count in _clean_errors(victims, sets.values(), batch_size).items():
            cells[UNPERTURBED, column] = error_cell([(0, count)])
    return _table(victims, sets, {place: cell for place, cell in cells.items() if cell is not None}, excess_over)


def _victims(nets: Mapping[str, Model], sets: Mapping[str, AdversarialSet]) -> dict[str, nn.Module]:
    """Return the networks as modules that take the sets' images.

    Raises:
        UserError: see `transfer_table`.
    """
    if not nets or not sets:
        raise UserError(f"expected networks and adversarial sets, got {len(nets)} and {len(sets)}")
    if taken := {UNPERTURBED, DISTORTION} & {*nets, *sets}:
        raise UserError(f"{taken.pop()!r} has a row or column of its own; give another name")
    for name, one in sets.items():
        if not isinstance(one, AdversarialSet):
            raise UserError(f"sets[{name!r}] must be an AdversarialSet (ig.craft makes one), got {type(one).__name__}")
        if not len(one):
            raise UserError(f"sets[{name!r}] holds no image")
    shapes = {name: tuple(one.inputs.shape[1:]) for name, one in sets.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"the sets hold images of different shapes: {_listed(shapes)}; make a table of each shape")
    some = next(iter(sets.values())).inputs[:2]
    victims, classes = {}, {}
    for name, net in nets.items():
        if not callable(net):
            raise UserError(f"nets[{name!r}] must be a torch module or a function, got {type(net).__name__}")
        shape = getattr(net, "input_shape", None)
        if shape is not None and tuple(shape) != tuple(some.shape[1:]):
            raise UserError(f"{name} takes images of shape {tuple(shape)}, the sets hold {tuple(some.shape[1:])}")
        images = some.to(device_of(net))
        victims[name] = PickOutput(as_module(taking_float32(net, images)))
        classes[name] = _num_classes(name, victims[name], images)
    if len(set(classes.values())) > 1:
        raise UserError(f"the networks have different numbers of classes: {_listed(classes)}; make a table of each")
    num_classes = next(iter(classes.values()))
    for name, one in sets.items():
        most = int(one.labels.max())
        if most >= num_classes:
            raise UserError(f"the labels of sets[{name!r}] reach {most}, but the networks have {num_classes} classes")
    return victims


def _num_classes(name: str, net: nn.Module, images: Tensor) -> int:
    try:
        logits = answers(net, images)
    except Exception as error:
        raise UserError(
            f"{name} does not take images of shape {tuple(images.shape[1:])}, which the sets hold: "
            f"{error_message(error)}"
        ) from error
    if logits.dim() != 2 or len(logits) != len(images):
        raise UserError(f"{name} must return logits (N, K), got {tuple(logits.shape)} for {len(images)} images")
    return logits.shape[1]


def _cell(outcome: Outcome, excess_over: Baseline | None, *, own: bool) -> Cell | None:
    found = outcome.answers
    assert found is not None
    if excess_over is None:
        return error_cell([(0, outcome.against_clean.first)], by_image=[(found.adversarial, found.indices)], own=own)
    excess = _EXCESSES[excess_over]
    counts = excess.counts(outcome)
    assert counts is not None
    return excess_cell([counts], by_image=[(excess.difference(found), found.indices)], own=own)


def _distortion(one: AdversarialSet) -> Cell | None:
    keep = one.success.nonzero().flatten()
    cell = distortion_cell([one.distortion[keep].double()], indices=[image_indices(one, keep)])
    if cell is None or cell.interval is None:
        return cell
    return replace(cell, interval=Interval(max(0.0, cell.interval.low), cell.interval.high))  # no distortion is below 0


def _clean_errors(
    victims: Mapping[str, nn.Module], sets: Iterable[AdversarialSet], batch_size: int
) -> dict[str, Count]:
    """Count the errors on the unperturbed images of all sets, each image once."""
    seen: set[tuple[bytes, int]] = set()
    counts = dict.fromkeys(victims, Count(0, 0))
    for one in sets:
        rows = []
        for row, (image, label) in enumerate(zip(one.inputs, one.labels.tolist(), strict=True)):
            if (key := (image.numpy().tobytes(), label)) not in seen:
                seen.add(key)
                rows.append(row)
        for some in torch.tensor(rows, dtype=torch.int64).split(batch_size):
            for name, net in victims.items():
                counts[name] += Count.of(wrong_answers(net, [(one.inputs[some], one.labels[some])]))
    return counts


def _table(
    victims: Mapping[str, nn.Module],
    sets: Mapping[str, AdversarialSet],
    cells: Mapping[tuple[str, str], Cell],
    excess_over: Baseline | None,
) -> Table:
    attacks = ", ".join(dict.fromkeys(_attack(one) for one in sets.values()))
    sizes = sorted({cell.n for (row, _), cell in cells.items() if row in sets}) or [0]
    many = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    if excess_over is None:
        caption = f"Error in percent of the column's network on examples made for the row's network. Attack: {attacks}."
    else:
        caption = (
            "Error of the column's network on examples made for the row's network minus "
            f"{_EXCESSES[excess_over].baseline}, in percentage points. Attack: {attacks}."
        )
    return Table(
        key="transfer" + ("" if excess_over is None else _EXCESSES[excess_over].suffix),
        title="Transfer",
        detail="" if excess_over is None else _EXCESSES[excess_over].name,
        caption=caption,
        row_header="examples made for",
        rows=tuple(sets) + ((UNPERTURBED,) if excess_over is None else ()),
        columns=tuple(victims) + ((DISTORTION,) if excess_over is None else ()),
        cells=cells,
        sample=f"N = {many} images a cell",
        method=f"{WILSON}; distortion: {MEAN}" if excess_over is None else NEWCOMBE,
        notes=tuple(_notes(victims, sets, cells)),
        sources={name: name for name in sets if name in victims},
    )


def _attack(one: AdversarialSet) -> str:
    attack = one.metadata["attack"]
    targets = str(attack.get("targets") or "")
    return str(attack["name"]) + (f", {targets.replace('_', ' ')} targets" if targets else "")


def _notes(
    victims: Mapping[str, nn.Module], sets: Mapping[str, AdversarialSet], cells: Mapping[tuple[str, str], Cell]
) -> Iterable[str]:
    counts = {name: int((one.distortion == 0).sum()) for name, one in sets.items()}
    if already := [f"{count} of those for {name}" for name, count in counts.items() if count]:
        yield f"Unperturbed images that already meet the goal count, with a distortion of 0: {', '.join(already)}."
    for name, one in sets.items():
        if failed := int((~one.success).sum()):
            yield f"{name}: {failed} of {plural(len(one), 'attack')} failed; those images are left out."
        cell = cells.get((name, name))
        if cell is not None and cell.own and cell.k != cell.n and name in victims and not cell.quantity.signed:
            yield (
                f"{name}: the network of this name gets {cell.n - (cell.k or 0)} of these {cell.n} examples right, "
                "against the success that the set records."
            )


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
