"""Section "two_classes": how well networks tell one class from the rest, which a bare error rate hides."""

from __future__ import annotations

import torch

from intriguing.analysis.cells import display_labels, network_order
from intriguing.analysis.inputs import Network
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.nn.evaluation import logits
from intriguing.results import ERROR, Cell, Quantity, Table
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval, wilson_interval
from intriguing.statistics.ranking import Estimate, area_under_roc, balanced_error

BALANCED, MISSED, FALSE_ALARMS, ALL, AREA = "balanced error", "class missed", "false alarms", "error", "area under ROC"
_AREA = Quantity(name="area_under_roc", digits=3)


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the table of the networks with two classes, on their test images; without one of them nothing."""
    labels, order = display_labels(inputs.networks), network_order(inputs.networks)
    cells: dict[tuple[str, str], Cell] = {}
    rows, runs = [], []
    for network in sorted(inputs.networks, key=lambda one: order[one.name]):
        label = labels[network.name]
        if getattr(network.module, "num_classes", None) != 2 or label in rows:
            continue
        found = _row(network, inputs)
        if found:
            rows.append(label)
            runs.append(network.name)
            cells |= {(label, column): cell for column, cell in found.items()}
    if not rows:
        return SectionOutput()
    table = Table(
        key="two_classes",
        title="One class against the rest",
        caption="Errors on the test images. The balanced error is the mean of the share of the class that is missed "
        "and the share of the rest that is taken for it; guessing gives 50 %, whatever the numbers of images.",
        row_header="network",
        rows=tuple(rows),
        columns=(BALANCED, MISSED, FALSE_ALARMS, ALL, AREA),
        cells=cells,
        sample="the lowest seed of each network, on all test images",
        method="Wilson's intervals; of the balanced error two of them, combined by squares; of the area DeLong's",
        notes=("Area under ROC: the probability that an image of the class scores above one of the rest.",),
        runs=tuple(runs),
    )
    return SectionOutput(tables=(table,), summary=(_sentence(table),))


def _row(network: Network, inputs: SectionInputs) -> dict[str, Cell]:
    """Measure a network; nothing where a class has no test image."""
    batches = inputs.subset(network, "test").batches(inputs.batch_size)
    outputs = [(found.double().cpu(), labels.cpu()) for found, labels in logits(network.module, batches)]
    if not outputs:
        return {}
    found, labels = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    wrong, of_class = found.argmax(1) != labels, labels == 1
    if not 0 < int(of_class.sum()) < len(labels):
        return {}
    missed, alarms = Count.of(wrong[of_class]), Count.of(wrong[~of_class])
    score = found[:, 1] - found[:, 0]
    area = area_under_roc(score[of_class], score[~of_class])
    runs = (network.name,)
    balanced = balanced_error(missed, alarms)
    rates = {MISSED: missed, FALSE_ALARMS: alarms, ALL: missed + alarms}
    return {
        BALANCED: Cell(
            quantity=ERROR, value=100 * balanced.value, interval=_percent(balanced), n=len(labels), runs=runs
        ),
        **{
            column: Cell(
                quantity=ERROR,
                value=one.percent,
                interval=_percent(Estimate(one.rate, wilson_interval(one.k, one.n))),
                n=one.n,
                k=one.k,
                runs=runs,
            )
            for column, one in rates.items()
        },
        AREA: Cell(quantity=_AREA, value=area.value, interval=area.interval, n=len(labels), runs=runs),
    }


def _percent(estimate: Estimate) -> Interval | None:
    return None if estimate.interval is None else Interval(*(100 * end for end in estimate.interval))


def _sentence(table: Table) -> str:
    parts = []
    for row in table.rows:
        error, area = table.text(row, BALANCED), table.text(row, AREA)
        assert error is not None and area is not None
        parts.append(f"{row} {error.value} % ({error.interval}; area under ROC {area.value})")
    return f"One class against the rest, balanced error on the test images: {', '.join(parts)}."
