"""Rows follow the paper, and lambda as a number."""

from __future__ import annotations

from planted import planted_network

from intriguing.analysis import analyze, paper
from intriguing.analysis.order import in_order, ranks


def _ids(**lambdas: float):
    return {label: planted_network("FC10(1)", 0, weight_decay=[value]).id for label, value in lambdas.items()}


def test_lambda_grows_from_row_to_row_whatever_it_is_written_like() -> None:
    ids = _ids(a=1.0, b=1e-5, c=0.0, d=1e-4, e=10.0, f=0.003)
    assert in_order((), ids) == ("c", "b", "d", "f", "a", "e")


def test_a_sweep_keeps_the_place_of_the_papers_network_in_it() -> None:
    known = paper.order("table1")
    values = (1.0, 1e-5, 1e-4, 0.003, 1e-2, 10.0)
    ids = _ids(**{f"FC10({value:g})".replace("e-0", "e-"): value for value in values})
    ids["AE400-10"] = planted_network("AE400-10", 0).id
    ids["FC100-100-10"] = planted_network("FC100-100-10", 0).id
    ids["FC5(1)"] = planted_network("FC100-100-10", 0, model={"label": "FC5"}).id
    found = in_order(known, ids)
    lambdas = [ids[label].weight_decay[0] for label in found[:6]]
    assert lambdas == sorted(values)
    assert found[6:] == ("FC100-100-10", "AE400-10", "FC5(1)")


def test_the_papers_tables_keep_their_order() -> None:
    labels = paper.order("table1")
    ids = {label: planted_network(label, 0).id for label in reversed(labels)}
    assert in_order(labels, ids) == labels
    halves = paper.order("table3")
    ids = {label: planted_network(label, 0, split="p2" if label.endswith("'") else "p1").id for label in halves}
    assert in_order(halves, dict(reversed(ids.items()))) == halves
    assert ranks(halves, ids)["FC100-100-10'"].place == 2
    assert paper.order("none") == () and paper.order("table4", columns=True) == halves


def test_rows_columns_and_figures_of_a_sweep_are_in_its_order(crafted) -> None:
    values = (1.0, 1e-5, 1e-2, 10.0, 1e-4)
    nets = [
        planted_network(f"FC10({value:g})", i, name=f"run{i}", weight_decay=[value]) for i, value in enumerate(values)
    ]
    sets = [crafted(net, {0: 40}) for net in nets]
    sets.append(crafted(None, {0: 4}, attack={"name": "gaussian", "stddev": 0.1}))
    sections = ["table1", "table2", "distortions", "examples"]
    result = analyze(nets, sets, title="t", sections=sections)
    wanted = [f"FC10({value:g})" for value in sorted(values)]
    assert list(result.table("table1").rows) == wanted
    assert list(result.table("table2").rows) == [*wanted, "Gaussian .1"]
    assert list(result.table("table2").columns[:-1]) == wanted
    assert [figure.detail for figure in result.figures if figure.title == "Examples"] == wanted
