import csv
import dataclasses
import io
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from stress import UNBROKEN, stress

from intriguing import report
from intriguing.errors import UserError
from intriguing.report.console import grids
from intriguing.report.files import standalone_svg
from intriguing.results import TIDY_COLUMNS, AnalysisResult, Figure

VOID = {"meta", "link", "br", "img", "path", "use"}


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]


@pytest.fixture
def written(result, tmp_path):
    return {path.relative_to(tmp_path).as_posix(): path for path in report.write(result, tmp_path)}


@pytest.fixture
def html(written):
    return written["report.html"].read_text(encoding="utf-8")


def test_files_are_where_they_are_said_to_be(written, tmp_path):
    assert list(written) == [
        *("tables/table2.csv", "tables/table2_wide.csv", "tables/table2.tex"),
        *(f"tables/table2_excess_clean{end}" for end in (".csv", "_wide.csv", ".tex")),
        "tables/all.csv",
        *("figures/agreement.png", "figures/agreement.svg", "figures/lambda.png", "figures/lambda.svg"),
        *("figures/lambda.pdf", "figures/examples_x_.._y.png"),
        *("report.md", "report.html"),
    ]
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(written.values())


def test_the_same_result_gives_the_same_bytes(result, written, tmp_path):
    for path in report.write(result, tmp_path / "again"):
        assert path.read_bytes() == written[path.relative_to(tmp_path / "again").as_posix()].read_bytes()


def test_tidy_csv_has_one_row_a_cell(written):
    rows = list(csv.DictReader(io.StringIO(written["tables/table2.csv"].read_text())))
    assert tuple(rows[0]) == TIDY_COLUMNS
    assert len(rows) == 5
    assert rows[1] == {
        "table": "table2",
        "row": "A",
        "column": "B",
        "quantity": "error",
        "k": "8",
        "n": "256",
        "images": "256",
        "percent": "3.125",
        "distortion": "",
        "low": "1.6",
        "high": "6.0",
        "paper": "2",
        "paper_low": "0.8",
        "paper_high": "4.5",
        "meets": "True",
        "own": "False",
        "by_seed": "0:3/128 1:5/128",
        "value": "",
        "runs": "run a",
    }
    assert rows[0]["runs"] == "run a elsewhere"  # those of its table
    assert rows[3]["percent"] == ""
    assert (rows[3]["distortion"], rows[3]["meets"]) == ("0.06218", "")
    everything = list(csv.DictReader(io.StringIO(written["tables/all.csv"].read_text())))
    assert [row["table"] for row in everything] == ["table2"] * 5 + ["table2_excess_clean"] * 5


def test_wide_csv_reads_like_the_table(written):
    rows = list(csv.reader(io.StringIO(written["tables/table2_wide.csv"].read_text())))
    assert rows[0] == ["made for", "A", "B", "av. distortion"]
    assert rows[1][2] == "3.1 [1.6 to 6.0] 8/256, paper 2 ✓"
    assert rows[2][1:] == ["50.0 [43.9 to 56.1] 128/256, paper 11.7 ≠", "", ".0622 [.0601 to .0642] n=256, paper .062"]
    assert rows[3][2] == "−0.4 [−2.0 to +1.2] -1/256"


def test_a_cell_may_hold_words_in_place_of_a_number(result, tmp_path):
    (table, *_) = result.tables
    worded = dataclasses.replace(table, words={("B", "B"): "no <norm> | named"})
    written = {path.name: path for path in report.write(dataclasses.replace(result, tables=(worded,)), tmp_path)}
    rows = list(csv.reader(io.StringIO(written["table2_wide.csv"].read_text())))
    assert rows[2][2] == "no <norm> | named"
    assert len(list(csv.DictReader(io.StringIO(written["table2.csv"].read_text())))) == 5  # numbers alone
    assert "| no <norm> \\| named |" in written["report.md"].read_text()
    assert '<td class="words">no &lt;norm&gt; | named</td>' in written["report.html"].read_text()
    console = Console(file=io.StringIO(), width=100)
    for part in grids(worded, width=100):
        console.print(part)
    assert "no <norm> | named" in console.file.getvalue()


def test_page_asks_for_nothing_outside_itself(html):
    page = Page(html)
    assert "http" not in re.sub(r"http-equiv", "", html)
    assert "@import" not in html
    links = page.attributes("src") + page.attributes("href") + page.attributes("xlink:href")
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert all(not address.startswith(("http", "//")) for address in re.findall(r"url\((.*?)\)", html))
    assert "default-src 'none'" in html


def test_every_inner_link_leads_somewhere_and_every_name_is_its_own(html):
    page = Page(html)
    names = page.attributes("id")
    assert len(names) == len(set(names))
    inner = [link[1:] for link in page.attributes("href") + page.attributes("xlink:href") if link.startswith("#")]
    assert inner
    assert set(inner) <= set(names)
    assert {"table2", "runs", "run-run-a", "figure-agreement", "analysis"} <= set(names)


def test_page_shows_both_numbers_and_whether_they_agree_by_colour_and_sign(html):
    cells = re.findall(r'<td class="(own|plain|met|unmet)" title="([^"]*)">(.*?)</td>', html, flags=re.DOTALL)
    assert [state for state, _, _ in cells[:5]] == ["own", "met", "unmet", "plain", "plain"]
    _, details, content = cells[1]
    assert details == (
        "measured 3.1\u00a0% (8 of 256), interval 1.6 to 6.0; paper 2, interval 0.8 to 4.5; "
        "seed 0: 3 of 128; seed 1: 5 of 128"
    )
    for piece in (
        ">3.1</a></b>",
        "✓",
        "</span> 2</i>",
        "<small>1.6–6.0</small>",
        "<small>8/256</small>",
        "<small>0.8–4.5</small>",
    ):
        assert piece in content
    assert "≠" in cells[2][2]
    assert "✓" not in cells[0][2]  # its own column agrees by construction and claims nothing


def test_page_traces_numbers_to_runs(html):
    assert '<a href="#run-run-a">run a</a>' in html
    assert (
        html.count('href="#run-run-a" data-runs="run-run-a">') == 6
    )  # five of the first table, and one that says so itself
    assert html.count('href="#analysis" data-runs="analysis">') == 4  # of the second, which names no run
    assert 'Shown in <a href="#table2">Table 2 · Transfer</a>' in html
    assert "<li>elsewhere</li>" in html
    assert "python train.py network=a &amp;&amp; echo &#39;&lt;script&gt;&#39;" in html
    assert "fully_connected" in html
    assert "N = 256 a cell, seeds 0, 1" in html
    assert "<dt>commit</dt><dd>abc</dd>" in html
    assert "<dd>torch 2.15.0, numpy 2.4.6</dd>" in html


def test_figures_of_one_title_have_one_heading_and_say_alike_words_once(result, tmp_path):
    figures = tuple(
        Figure(
            key=f"examples_{i}",
            title="Examples",
            detail=f"net {i}",
            caption="Read so.",
            note=f"Attack {i}.",
            alt="a",
            png=result.figures[0].png,
        )
        for i in range(3)
    )
    text = report.write(dataclasses.replace(result, figures=figures), tmp_path)[-1].read_text(encoding="utf-8")
    assert text.count("Read so.") == 1 and text.count("<h2>Examples</h2>") == 1
    assert re.findall(r"<h3>(net \d)</h3>", text) == ["net 0", "net 1", "net 2"]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == ["Attack 0.", "Attack 1.", "Attack 2."]
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert markdown.count("Read so.") == 1 and "Attack 2." in markdown
    other = dataclasses.replace(figures[2], caption="Read otherwise.")
    mixed = dataclasses.replace(result, figures=(*figures[:2], other))
    text = report.write(mixed, tmp_path)[-1].read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert captions == ["Read so. Attack 0.", "Read so. Attack 1.", "Read otherwise. Attack 2."]


def test_a_saved_drawing_has_a_size_and_no_colour_of_a_page():
    style = "fill: var(--ink, #1b1f24); stroke: var(--line, #c9ced6)"
    markup = f'<svg xmlns="x" viewBox="0 0 40.5 30"><path style="{style}"/></svg>'
    text = standalone_svg(markup)
    assert text.startswith("<?xml") and 'width="40.5pt" height="30pt"' in text
    assert "fill: #1b1f24; stroke: #c9ced6" in text and "var(" not in text
    assert ElementTree.fromstring(text.encode()).get("viewBox") == "0 0 40.5 30"


def test_two_intervals_of_a_cell_stand_apart(html):
    cell = re.findall(r'<td class="met".*?</td>', html, flags=re.DOTALL)[0]
    measured, paper = cell.split('<div class="paper">')
    assert "<small>1.6–6.0</small>" in measured and "<small>0.8–4.5</small>" in paper
    style = re.sub(r"@media.*", "", html[: html.index("</style>")], flags=re.DOTALL)
    rule = re.findall(r"\.cells \.paper \{(.*?)\}", html)[0]
    assert "border-left" in rule and "padding-left" in rule and style


def test_headers_name_their_rows_and_columns(html):
    heads = [attributes for tag, attributes in Page(html).elements if tag == "th"]
    assert heads and {attributes.get("scope") for attributes in heads} == {"col", "row"}


def test_no_table_breaks_the_page(tmp_path):
    result = stress()
    text = report.write(result, tmp_path)[-1].read_text(encoding="utf-8")
    page = Page(text)
    tables = [attributes for tag, attributes in page.elements if tag == "table" and attributes.get("class")]
    assert len(tables) == 6  # of seven: the one without numbers says so
    assert text.count("This table has no numbers.") == 1
    assert len(re.findall('<div class="wide tall">', text)) == 3
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower()
    for table in result.tables:
        assert (tmp_path / "tables" / f"{table.key}.tex").read_text().count(r"\begin{") > 0


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_console_cuts_no_label_and_breaks_no_number(width):
    result = dataclasses.replace(
        stress(), tables=tuple(t for t in stress().tables if t.key in ("labels", "missing", "one"))
    )
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    report.show(result, console)
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    together = re.sub(r"\s+", "", text)
    assert "short" in together and text.count("35.2 ≠") == 3 and text.count("22.7") >= 12
    first_column = "".join(line[: max(16, width // 3)].strip() for line in text.splitlines())
    assert re.sub(r"\s", "", UNBROKEN) in first_column.replace(" ", "")


def test_the_second_line_of_a_console_cell_is_the_papers_number_or_the_interval_but_not_both(result):
    bare = {
        place: dataclasses.replace(cell, paper=None, paper_interval=None)
        for place, cell in result.tables[0].cells.items()
    }
    for cells, legend, below in (
        (result.tables[0].cells, "above the paper's", "11.7"),
        (bare, "interval below", "43.9–56.1"),
    ):
        table = dataclasses.replace(result.tables[0], cells=cells)
        console = Console(width=100, file=io.StringIO(), force_terminal=False)
        report.show(dataclasses.replace(result, tables=(table,)), console)
        text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
        assert legend in text and below in text
        assert ("43.9–56.1" in text) == (cells is bare)


def test_text_is_escaped(html):
    assert "Tables &lt;1&gt; to 4" in html
    assert '<th scope="row">&lt;b&gt;&amp;|</th>' in html


def test_page_mutes_agreement_where_the_data_are_not_the_papers(result, tmp_path):
    other = dataclasses.replace(result, comparable=False)
    text = report.write(other, tmp_path)[-1].read_text(encoding="utf-8")
    assert '<body class="other-data">' in text
    assert "shown for orientation only" in text


def test_markdown_links_its_pictures(written, tmp_path):
    text = written["report.md"].read_text(encoding="utf-8")
    assert "**3.1** (1.6 to 6.0), 2 ✓" in text
    assert "<b>&\\|" in text
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert len(pictures) == 3
    assert all((tmp_path / picture).is_file() for picture in pictures)


def test_console_fits_and_shows_signs(result):
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    report.show(result, console)
    lines = console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    text = "\n".join(lines)
    assert "3.1 ✓" in text
    assert "50.0 ≠" in text
    assert "It agrees in 1 of 2 cells (50 %)." in text
    assert max(map(len, lines)) <= 80


def test_a_table_too_wide_for_the_console_goes_on_below(result):
    first = result.tables[0]
    names = tuple(f"column {i:02}" for i in range(30))
    wide = dataclasses.replace(first, columns=names, cells={("A", names[-1]): first.cells["A", "B"]})
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    report.show(dataclasses.replace(result, tables=(wide,)), console)
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert max(map(len, text.splitlines())) <= 80
    assert text.split().count("column") == 30 and "3.1 ✓" in text
    assert text.count("made for") > 1


def test_a_file_is_replaced_whole_and_nothing_is_left_behind(result, written, tmp_path):
    report.write(dataclasses.replace(result, title="again"), tmp_path)
    assert "again" in written["report.html"].read_text(encoding="utf-8")
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write") as caught:
        report.write(result, tmp_path / "file" / "below")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("columns", ["1", "20", "200"])
def test_tables_are_shown_on_any_console(
    columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: AnalysisResult
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "dumb")
    with open(tmp_path / "console", "w", encoding="ascii") as console:
        monkeypatch.setattr(sys, "stdout", console)
        report.show(result)
    assert "Table" in (tmp_path / "console").read_text().replace("\n", "")


def test_the_contents_group_tables_by_their_number_and_figures_by_their_title(html: str) -> None:
    contents = html[html.index('id="contents"') : html.index("</nav>")]
    below = re.findall(r"<b>Table 2</b>\n<ul>\n(.*?)</ul>", contents, flags=re.DOTALL)
    links = re.findall(r'<a href="#(.*?)">(.*?)</a>', below[0])
    assert links == [("table2", "Transfer"), ("table2_excess_clean", "excess")]
    assert '<a href="#figure-lambda"><b>Curve</b></a>' in contents
    assert "<b>Examples</b> A</a>" in contents
