"""A small result with every kind of cell, made by hand."""

import pytest

from intriguing.results import DISTORTION, ERROR, EXCESS, AnalysisResult, Cell, Figure, RunSummary, Table
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 10 10">'
    '<defs><path id="m1" d="M0 0h5"/></defs><g clip-path="url(#m1)"><use xlink:href="#m1"/><text>ink</text></g></svg>'
)


def cell(value: float, low: float, high: float, **more) -> Cell:
    return Cell(**{"quantity": ERROR, "interval": Interval(low, high), "n": 256, **more, "value": value})


def table(key: str = "table2", **more) -> Table:
    cells = {
        ("A", "A"): cell(100, 98.5, 100, k=256, paper=100, paper_interval=Interval(98.5, 100), own=True),
        ("A", "B"): cell(
            *(3.125, 1.6, 6.0),
            k=8,
            paper=2,
            paper_interval=Interval(0.8, 4.5),
            by_seed=((0, Count(3, 128)), (1, Count(5, 128))),
            runs=("run a",),
        ),
        ("B", "A"): cell(50, 43.9, 56.1, k=128, paper=11.7, paper_interval=Interval(8.3, 16.2)),
        ("B", "av. distortion"): cell(0.06218, 0.0601, 0.0642, quantity=DISTORTION, paper=0.062),
        ("<b>&|", "B"): cell(-0.4, -2.0, 1.2, quantity=EXCESS, k=-1),
    }
    return Table(
        **{
            "key": key,
            "number": "Table 2",
            "title": "Transfer",
            "caption": "What examples do.",
            "row_header": "made for",
            "rows": ("A", "B", "<b>&|"),
            "columns": ("A", "B", "av. distortion"),
            "cells": cells,
            "sample": "N = 256 a cell, seeds 0, 1",
            "method": "95 % Wilson",
            "source": "arXiv 1312.6199, Table 2",
            "notes": ("Mind this.",),
            "runs": ("run a", "elsewhere"),
            **more,
        }
    )


@pytest.fixture
def result() -> AnalysisResult:
    figures = (
        Figure(key="agreement", title="Agreement", caption="Dots.", alt='a "plot"', png=PNG, svg=SVG, runs=("run a",)),
        Figure(key="lambda", title="Curve", caption="Lines.", alt="lines", png=PNG, svg=SVG, pdf=b"%PDF"),
        Figure(key="examples_x/../y", title="Examples", detail="A", caption="Digits.", alt="digits", png=PNG),
    )
    run = RunSummary(
        name="run a",
        stage="train",
        label="A",
        folder="runs/train/a",
        command="python train.py network=a && echo '<script>'",
        config={"seed": 0, "model": {"name": "fully_connected"}},
        facts={"seconds": 3.2},
    )
    return AnalysisResult(
        title="Tables <1> to 4",
        summary=("One thing was measured.", "It agrees in 1 of 2 cells (50 %)."),
        tables=(table(), table("table2_excess_clean", detail="excess", source="", notes=(), runs=())),
        figures=figures,
        runs=(run,),
        comparable=True,
        provenance={"commit": "abc", "versions": {"torch": "2.15.0", "numpy": "2.4.6"}, "started": "2026-01-01"},
    )
