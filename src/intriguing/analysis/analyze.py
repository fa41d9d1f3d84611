"""The third stage: from trained networks and adversarial sets to the paper's tables and figures.

It computes and draws; it writes nothing (see `intriguing.report`). The same inputs give the same result, byte for byte.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from intriguing.analysis.back_feeding.section import families
from intriguing.analysis.back_feeding.section import section as back_feeding
from intriguing.analysis.cells import display_labels, set_label
from intriguing.analysis.inputs import CraftedSet, Network
from intriguing.analysis.measure import MeasuredSet, Progress, measure
from intriguing.analysis.paper_tables import charts, pictures
from intriguing.analysis.paper_tables.error_tables import error_table
from intriguing.analysis.paper_tables.transfer import transfer_tables
from intriguing.analysis.paper_tables.weight_decay import lambda_curves, lambda_table
from intriguing.analysis.sections import EXTRA, Images, Made, Material, Subsets
from intriguing.analysis.stability.section import section as stability
from intriguing.analysis.summary import comparable, summarize
from intriguing.analysis.units.section import section as units
from intriguing.results import AnalysisResult, Figure, Table

T = TypeVar("T")

EXTRA["back_feeding"] = back_feeding
EXTRA["units"] = units
EXTRA["stability"] = stability

SECTIONS: tuple[str, ...] = (
    *("table1", "table2", "table3", "table4", "transfer", "lambda"),
    *("agreement", "figure7", "distortions", "examples"),
)
"""What an analysis makes unless it is told; "transfer" is every transfer matrix that the paper does not have.

The sections in `EXTRA` come on top where they are asked for.
"""


def analyze(
    networks: Sequence[Network],
    sets: Sequence[CraftedSet],
    *,
    title: str,
    seed: int = 0,
    batch_size: int = 1024,
    provenance: Mapping[str, Any] | None = None,
    sections: Sequence[str] = SECTIONS,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    images: Images | None = None,
    subsets: Subsets | None = None,
    figure_7: tuple[str, str] = pictures.FIGURE_7,
    progress: Progress | None = None,
) -> AnalysisResult:
    """Measures every adversarial set on its victims and makes the tables and figures.

    Args:
        networks: trained networks, in evaluation mode.
        sets: adversarial sets; each is loaded, measured and dropped, so memory is bounded by one of them.
        title: heading of the page.
        seed: of the equal-norm noise and of Figure 7's.
        batch_size: images per forward pass; it changes speed and memory, not results.
        provenance: what the report says about this analysis (commit, command, versions, times).
        sections: which of `SECTIONS` and `EXTRA` to make.
        settings: of the sections in `EXTRA`, by section.
        images: the images of a network's data, for the sections in `EXTRA`.
        subsets: the same, to be read batch by batch; None: from `images`.
        figure_7: labels of the linear and of the deep network in Figure 7.
        progress: called with (what, done, total) while sets are measured.

    Returns:
        Tables, figures and their words. A section without its inputs is simply missing.

    Raises:
        ValueError: an unknown section, a batch size below 1, or two runs of one name.
        UserError: two sets that would count the same images twice.
    """
    _check(networks, sets, sections, batch_size)
    check_networks(networks, sections)
    measured = [measure(s, networks, seed=seed, batch_size=batch_size, progress=progress) for s in sets]
    tables, curves = _tables(networks, measured, sections), ()
    if "lambda" in sections:
        curves = lambda_curves(networks, measured)
        tables += _present(lambda_table(curves))
    same_data = comparable(networks)
    figures: list[Figure] = []
    if "agreement" in sections and same_data:
        figures += _present(charts.agreement_figure(tables))
    if curves:
        runs = next(t.runs for t in tables if t.key == "lambda")
        figures += _present(charts.lambda_figure(curves, comparable=same_data, runs=runs))
    if "figure7" in sections:
        figures += _present(
            pictures.figure_7(networks, measured, sets, labels=figure_7, seed=seed, batch_size=batch_size)
        )
    if "distortions" in sections:
        figures += _present(charts.distortion_figure(measured, networks, comparable=same_data))
    if "examples" in sections:
        figures += _example_grids(networks, measured)
    extra = Made()
    for name in [name for name in sections if name in EXTRA]:
        if images is None:
            raise ValueError(f"section {name} needs images")
        material = Material(
            networks=networks,
            sets=sets,
            measured=measured,
            images=images,
            subsets=subsets,
            settings=(settings or {}).get(name, {}),
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
        extra = _joined(extra, EXTRA[name](material))
    tables, figures = [*tables, *extra.tables], [*figures, *extra.figures]
    return AnalysisResult(
        title=title,
        summary=(*summarize(networks, measured, tables), *extra.summary),
        tables=tuple(tables),
        figures=tuple(figures),
        runs=(*(n.run for n in networks), *(s.run for s in measured)),
        comparable=same_data,
        provenance=dict(provenance or {}),
    )


def _joined(first: Made, second: Made) -> Made:
    return Made(
        tables=(*first.tables, *second.tables),
        figures=(*first.figures, *second.figures),
        summary=(*first.summary, *second.summary),
    )


def _tables(networks: Sequence[Network], sets: Sequence[MeasuredSet], sections: Sequence[str]) -> list[Table]:
    """Tables 1 to 4 and their excess tables in the paper's order, then the matrices the paper does not have."""
    transfers = transfer_tables(networks, sets, keys=sections)
    tables: list[Table] = []
    for key in ("table1", "table2", "table3", "table4"):
        if key in ("table1", "table3") and key in sections:
            tables += _present(error_table(key, networks, sets))
        tables += [table for table in transfers if table.key.startswith(key)]
    return tables + [table for table in transfers if table.key.startswith("transfer")]


def _example_grids(networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> list[Figure]:
    """One grid for each network and attack, of its lowest seed."""
    labels = display_labels(networks)
    first: dict[tuple[str, str, str], MeasuredSet] = {}
    for one in sorted(sets, key=lambda s: s.seed):
        if not one.is_noise and one.amplify is None:
            first.setdefault((_title(labels, one), one.subset, one.attack_name), one)
    chosen = {one.name: title for (title, _, _), one in first.items()}
    grids = [pictures.grid_figure(one, chosen[one.name]) for one in sets if one.name in chosen]
    return [grid for grid in grids if grid is not None]


def _title(labels: Mapping[str, str], one: MeasuredSet) -> str:
    """The source as a heading: the same label may stand for a network of all images and for one of a half."""
    label = set_label(labels, one)
    return label if one.split == "full" else f"{label}, trained on {one.split.upper()}"


def _present(value: T | None) -> list[T]:
    return [] if value is None else [value]


def check_networks(networks: Sequence[Network], sections: Sequence[str]) -> None:
    """See that the sections can take these networks.

    Raises:
        UserError: two runs of which a section can take but one.
    """
    if "back_feeding" in sections:
        families(networks)


def _check(networks: Sequence[Network], sets: Sequence[CraftedSet], sections: Sequence[str], batch_size: int) -> None:
    known = (*SECTIONS, *EXTRA)
    if unknown := [section for section in sections if section not in known]:
        raise ValueError(f"sections must be among {', '.join(known)}, got {', '.join(unknown)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for what, names in (("networks", [n.name for n in networks]), ("sets", [s.name for s in sets])):
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{what} must have names of their own, got {', '.join(repeated)} more than once")
