"""A result that no layout likes: labels of eighty letters, sixty rows and columns, one row, none, and no numbers."""

from __future__ import annotations

import math

from intriguing.results import ERROR, AnalysisResult, Cell, Figure, Quantity, Table
from intriguing.statistics.intervals import Interval

SPACED = "wide_resnet_28_10 on P1, max_epochs=200, optimizer.lr=0.05, without back_feeding (2)"
UNBROKEN = "torchvision_models_resnet152_imagenet1k_v2_finetuned_on_my_own_image_folder_2026"
SCORE = Quantity(name="score")


def rate(k: int, n: int = 256) -> Cell:
    value = 100 * k / n
    interval = Interval(max(0, value - 6), min(100, value + 6))
    return Cell(quantity=ERROR, value=value, interval=interval, n=n, k=k, paper=22.7, paper_interval=Interval(18, 28))


def score(value: float, reach: float | None = 0.25) -> Cell:
    interval = None if reach is None else Interval(value - reach, value + reach)
    return Cell(quantity=SCORE, value=value, interval=interval, n=10)


def table(key: str, rows: tuple[str, ...], columns: tuple[str, ...], cells: dict[tuple[str, str], Cell]) -> Table:
    return Table(
        key=key,
        title=key,
        caption="What it shows.",
        row_header="network, layer and score",
        rows=rows,
        columns=columns,
        cells=cells,
        sample="N = 256",
        method="Wilson",
        source="arXiv",
    )


def stress() -> AnalysisResult:
    many = tuple(f"FC10({i})" for i in range(60))
    long = (SPACED, UNBROKEN, "short", f"{SPACED} {UNBROKEN}")
    columns = ("test error", "average distortion", UNBROKEN)
    nothing = score(math.nan, None)
    tables = (
        table(
            "sweep",
            many,
            ("train error", "test error"),
            {(r, c): rate(i) for i, r in enumerate(many) for c in ("train error", "test error")},
        ),
        table(
            "matrix",
            many,
            many,
            {(r, c): rate((7 * i + j) % 257) for i, r in enumerate(many) for j, c in enumerate(many)},
        ),
        table("labels", long, columns, {(r, c): rate(30 * i) for i, r in enumerate(long) for c in columns}),
        table(
            "classes",
            tuple(f"class {i}" for i in range(1000)),
            ("purity",),
            {(f"class {i}", "purity"): score(i / 7) for i in range(1000)},
        ),
        table("one", ("only",), ("test error",), {("only", "test error"): rate(1)}),
        table("none", (), ("test error",), {}),
        table(
            "missing",
            ("a", "b"),
            ("x", "y"),
            {("a", "x"): nothing, ("b", "y"): score(math.inf, None), ("b", "x"): score(1e-9), ("a", "y"): score(-3e8)},
        ),
    )
    picture = Figure(
        key="f",
        title="Figure",
        detail=UNBROKEN,
        caption="c",
        alt="a",
        png=b"",
        svg='<svg viewBox="0 0 900 90"><text>words</text></svg>',
    )
    return AnalysisResult(
        title=f"Stress {UNBROKEN}", summary=(f"{SPACED}.",), tables=tables, figures=(picture,), runs=(), comparable=True
    )
