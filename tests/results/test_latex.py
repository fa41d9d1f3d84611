"""Tables for LaTeX: the structure that it needs, and every text escaped."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from intriguing.results import ERROR, Cell, Table
from intriguing.results.latex import LONG, escaped
from intriguing.statistics.intervals import Interval

HOSTILE = r"50 % of a_b & $x^2$ #1 {~\cmd} <λ> “q” ≠ 猫"


def table(rows: int = 2) -> Table:
    labels = tuple(HOSTILE if i == 0 else f"row {i}" for i in range(rows))
    measured = Cell(
        quantity=ERROR,
        value=22.656,
        interval=Interval(18, 28.2),
        n=256,
        k=58,
        paper=11.7,
        paper_interval=Interval(8.3, 16.2),
    )
    return Table(
        key="table2_<x>",
        number="Table 2",
        title=HOSTILE,
        detail="excess",
        caption="Errors.",
        row_header="made for",
        rows=labels,
        columns=("A_1", "B"),
        cells={(label, "A_1"): measured for label in labels} | {(labels[0], "B"): replace(measured, paper=None)},
        sample="N = 256",
        method="Wilson",
    )


def test_a_table_is_a_float_with_rules_a_caption_and_a_label() -> None:
    lines = table().to_latex().splitlines()
    text = "\n".join(lines)
    assert lines[0].startswith("% needs") and "booktabs" in lines[0]
    order = ["begin{table}", "caption", "label{tab:table2-x-}", "begin{tabular}", "toprule", "midrule", "bottomrule"]
    places = [text.index(rf"\{word}") for word in (*order, "end{tabular}", "end{table}")]
    assert places == sorted(places)
    assert "(the paper's Table 2). Errors. N = 256. Wilson. In brackets: the paper's number, marked" in text
    body = [line for line in lines if line.endswith(r"\\")]
    assert all(line.count(" & ") + (line[0] == "&") == 2 or re.match(r" & ", line) for line in body)
    assert body[1].endswith(r" & 22.7 ($\neq$11.7) & 22.7 \\")
    assert body[2] == r" & {\scriptsize 18.0--28.2} & {\scriptsize 18.0--28.2} \\"
    assert body[3:] == [r"row 1 & 22.7 ($\neq$11.7) &  \\", r" & {\scriptsize 18.0--28.2} &  \\"]


def test_a_column_of_words_breaks_its_lines() -> None:
    worded = replace(table(), words={("row 1", "B"): "not stated & unknown"})
    text = worded.to_latex()
    assert r"rp{4cm}@{}}" in text
    assert r"not stated \& unknown \\" in text
    assert "not stated & unknown" in str(worded)
    assert "not stated &amp; unknown" in worded._repr_html_()


def test_every_special_letter_is_escaped() -> None:
    assert escaped(r"5% a_b & {~\ ^#$") == (
        r"5\% a\_\allowbreak{}b \& \{\textasciitilde{}\textbackslash{} \textasciicircum{}\#\$"
    )
    assert escaped("λ −1 to 2 × 3 naïve") == r"$\lambda$ $-$1 to 2 $\times$ 3 naïve"
    assert escaped("猫") == "U+732B"
    assert escaped("a\nb") == "a b"


def test_braces_are_balanced_and_math_is_closed() -> None:
    for rows in (1, 2, LONG):
        text = re.sub(r"\\[\\{}$%&#_]", "", table(rows).to_latex())
        assert text.count("{") == text.count("}")
        assert text.count("$") % 2 == 0
        assert text.count(r"\begin") == text.count(r"\end{")


def test_a_long_table_goes_on_over_pages_with_its_head() -> None:
    text = table(LONG).to_latex()
    assert "longtable" in text.splitlines()[0]
    assert text.count("made for") == 2 and r"\endhead" in text
    assert r"\begin{table}" not in text


def test_a_table_without_rows_is_one_too() -> None:
    text = replace(table(), rows=(), cells={}).to_latex()
    assert r"\midrule" in text and "In brackets" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_sets_it(tmp_path: Path) -> None:
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx,longtable}"
    tables = "".join(table(rows).to_latex() for rows in (1, LONG))
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{tables}\end{{document}}"
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
