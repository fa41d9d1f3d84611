"""Tables of the back-feeding section: the arms of a network, and the comparisons beyond the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from intriguing.analysis.back_feeding.arms import ATTACKS, Arm
from intriguing.analysis.back_feeding.comparisons import ArmComparison
from intriguing.analysis.back_feeding.pools import BASELINE, DROPOUT, POOLS
from intriguing.analysis.identity import differences
from intriguing.errors import plural
from intriguing.results import Cell, Quantity, Table
from intriguing.statistics.intervals import t_interval

PAPER = {BASELINE: "1.6 %", "dropout": "about 1.3 %", "all pools": "below 1.2 %"}
"""Test errors as section 4.2 gives them."""
ERROR, TRAIN_ERROR, GAIN = "test error, %", "train error, %", "less than weight decay, points"
P, Q, TEST_GAIN = "p (paired t)", "p, corrected", "less test error, points"
TO_BASELINE, FROM_BASELINE = "fools weight decay's, %", "fooled by weight decay's, %"
PERCENT, POINTS = Quantity(name="percent", unit="%"), Quantity(name="points", unit="points")
RMS, P_VALUE = Quantity(name="rms"), Quantity(name="p")

_TRANSFER = (
    " Transfer is the share of adversarial examples (lbfgs) made for one network that fool the other of equal seed, "
    "less its error on the originals."
)
_CORRECTED = "corrected over all comparisons of this network, those of the {} table too (Holm)"


def arm_table(key: str, name: str, arms: Sequence[Arm], tests: Sequence[ArmComparison]) -> Table:
    """Make the table of a network's arms.

    Args:
        key: of the table.
        name: of the network; empty where it is the only one.
        arms: one row each.
        tests: all comparisons; those with an arm's baseline are shown here.
    """
    attacks = [attack for attack in ATTACKS if any(arm.distortions(attack) for arm in arms)]
    distortions = {attack: f"distortion, {attack}" for attack in attacks}
    cells: dict[tuple[str, str], Cell] = {}
    for arm in arms:
        row = [
            (ERROR, _error_cell(arm, "test")),
            (TRAIN_ERROR, _error_cell(arm, "train")),
            *((distortions[a], seed_mean(arm.distortions(a), RMS, _set_runs(arm, a))) for a in attacks),
        ]
        if base := arm.baseline:
            for one in tests:
                if one.first is base and one.second is arm:
                    row += _test_cells(one, GAIN)
            row.append((TO_BASELINE, _transfer_cell(arm, base)))
            row.append((FROM_BASELINE, _transfer_cell(base, arm)))
        cells |= {(arm.name, column): cell for column, cell in row if cell is not None}
    transfer = [way for way in (TO_BASELINE, FROM_BASELINE) if any(column == way for _, column in cells)]
    sets = [one for arm in arms for found in arm.sets.values() for one in found]
    images = f", {plural(sets[0].num, 'image')} an attack" if sets else ""
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    return Table(
        key=key,
        title="Back-feeding: training on adversarial examples of every layer",
        detail=name,
        caption="One row for each way of training the network; each number is a mean over seeds. The distortion is the "
        f"mean distortion that an attack needs to fool the trained network.{_TRANSFER if transfer else ''}",
        row_header="training",
        rows=tuple(arm.name for arm in arms),
        columns=(ERROR, TRAIN_ERROR, GAIN, P, Q, *distortions.values(), *transfer),
        cells=cells,
        sample=f"{plural(len(seeds), 'seed')} ({', '.join(map(str, seeds))}){images}",
        method="95 % interval of Student's t over the seeds; the p-value is that of the two-sided paired t-test "
        f"against weight decay alone, {_CORRECTED.format('next')}",
        notes=(_paper_note(arms[0]), *_comparability_notes(arms), *_one_batch_notes(arms)),
        runs=tuple(run for arm in arms for run in arm.runs),
    )


def comparison_tables(key: str, name: str, tests: Sequence[ArmComparison]) -> list[Table]:
    """Make the table of the comparisons beyond those with the baseline; none where there are none."""
    beyond = {
        f"{one.second.name} against {one.first.name}": one for one in tests if one.first is not one.second.baseline
    }
    if not beyond:
        return []
    cells = {
        (row, column): cell
        for row, one in beyond.items()
        for column, cell in _test_cells(one, TEST_GAIN)
        if cell is not None
    }
    return [
        Table(
            key=f"{key}_tests",
            title="Gain of the pools at equal scale of the loss",
            detail=name,
            caption="With keep_scale=false each pool's loss is added to that of the originals, which also makes every "
            "step larger. Without pools, that many times the rate with as many times less decay makes equally large "
            "steps, so a gain over it comes from the pools. Pools of all layers are also compared with "
            "those of the input alone; where their number of pools differs, a part of the difference may come from the "
            "rate.",
            row_header="comparison",
            rows=tuple(beyond),
            columns=(TEST_GAIN, P, Q),
            cells=cells,
            sample=f"{plural(max(len(one.gains) for one in beyond.values()), 'seed')}",
            method="Mean over the seeds that both have, with its 95 % interval of Student's t; two-sided paired t-test "
            + _CORRECTED.format("previous"),
            runs=tuple(dict.fromkeys(run for one in beyond.values() for run in one.runs)),
        )
    ]


def seed_mean(values: Mapping[int, float], quantity: Quantity, runs: tuple[str, ...]) -> Cell | None:
    """Make the cell of a mean over seeds with Student's interval; None without values."""
    if not values:
        return None
    numbers = list(values.values())
    interval = t_interval(torch.tensor(numbers, dtype=torch.float64))
    return Cell(quantity=quantity, value=float(np.mean(numbers)), interval=interval, n=len(numbers), runs=runs)


def _error_cell(arm: Arm, subset: str) -> Cell | None:
    """Make the cell of an arm's mean error on a subset, with the count of each seed."""
    cell, counts = seed_mean(arm.errors(subset), PERCENT, arm.runs), arm.counts(subset)
    return cell and replace(cell, by_seed=tuple(sorted(counts.items())))


def _test_cells(one: ArmComparison, gain: str) -> Iterator[tuple[str, Cell | None]]:
    """Yield columns and cells of a comparison; p and q only where there is a test."""
    yield gain, seed_mean(one.gains, POINTS, one.runs)
    for column, value in ((P, one.p), (Q, one.q)):
        if value is not None:
            yield column, Cell(quantity=P_VALUE, value=value, interval=None, n=len(one.gains), runs=one.runs)


def _set_runs(arm: Arm, attack: str) -> tuple[str, ...]:
    return tuple(one.name for one in arm.of_attack(attack).values())


def _transfer_cell(source: Arm, victim: Arm) -> Cell | None:
    """Make the cell of the share of the source's lbfgs examples that fool the victim, less its clean error."""
    found = {}
    for seed, one in source.of_attack("lbfgs").items():
        outcome = one.outcomes.get(victim.networks[seed].name) if seed in victim.networks else None
        if outcome is not None and outcome.against_clean.n:
            counts = outcome.against_clean
            found[seed] = 100 * (counts.only_first - counts.only_second) / counts.n
    return seed_mean(found, PERCENT, (*_set_runs(source, "lbfgs"), *victim.runs))


def _paper_note(arm: Arm) -> str:
    where = "" if arm.mnist else f", on MNIST (these networks were trained on {arm.first.data_set})"
    values = ", ".join(f"{way} {value}" for way, value in PAPER.items())
    return f"The paper gives test errors without a spread or a number of seeds{where}: {values}."


def _comparability_notes(arms: Sequence[Arm]) -> list[str]:
    """Name the arms that differ from their baseline in more than the pools, or have no baseline."""
    notes = []
    for arm in arms:
        if not arm.plain and arm.scale != 1 and arm.matched is None:
            scale = "larger" if arm.scale is None else f"{arm.scale:g} times as large"
            notes.append(
                f"{arm.name}: its loss is {scale}, and no network without pools has a rate and decay that compensate "
                "for it, so a part of its gain may come from the rate."
            )
        if arm.baseline is None:
            if not arm.plain:
                notes.append(f"{arm.name}: not compared, for no network without pools has its settings.")
            continue
        if arm.baseline.name != BASELINE:
            notes.append(f"{arm.name}: compared with {arm.baseline.name}.")
        if other := differences(arm.id, arm.baseline.id, POOLS, DROPOUT):
            notes.append(f"{arm.name} also differs from {arm.baseline.name} in other settings: {other}.")
    return notes


def _one_batch_notes(arms: Sequence[Arm]) -> list[str]:
    """Name the arms whose pools hold only the examples of the previous batch."""
    names = []
    for arm in arms:
        pools, batch = arm.pools, arm.id.get("data.batch_size")
        if pools is None or batch is None or pools.size is None or pools.size > batch:
            continue
        if pools.refresh == 1 and pools.every == 1:
            names.append(arm.name)
    if not names:
        return []
    return [
        f"{'; '.join(names)}: a pool holds no more than one batch and is renewed completely at every step, so it "
        "contains the adversarial examples of the previous batch only."
    ]
