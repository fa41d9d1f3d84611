r"""Tables for LaTeX: booktabs, numbers with their intervals, every text escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from intriguing.results.cells import CellText

LONG, WIDE = 40, 12
"""Rows from which, and columns beyond which, a table goes on over several pages."""
BLOCK = 5
"""Columns of such a table beside one another."""
LABEL = 40
"""Letters of a label that has no line break."""
_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#{}"},
    "_": r"\_\allowbreak{}",  # so that a long name breaks
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "∞": r"$\infty$",
    "≠": r"$\neq$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "…": r"\ldots{}",
    "\u00a0": "~",
    "λ": r"$\lambda$",
    "φ": r"$\varphi$",
    "σ": r"$\sigma$",
    "μ": r"$\mu$",
    "ε": r"$\varepsilon$",
    "ₖ": "$_k$",
    "'": "'",
    "’": "'",
    "\n": " ",
    "\t": " ",
    "✓": r"$\surd$",
}


def escaped(text: str) -> str:
    """Write a text so that LaTeX sets it as it is; letters that its usual fonts lack become their code, U+4E00."""
    return "".join(_SPECIAL.get(sign) or (sign if _known(sign) else f"U+{ord(sign):04X}") for sign in text)


def latex_table(
    *,
    key: str,
    caption: str,
    head: Sequence[str],
    rows: Sequence[tuple[str, Sequence[CellText | None]]],
    reference: str,
) -> str:
    r"""Write a table as a float of LaTeX.

    Args:
        key: of the table; the label is ``tab:`` and the key.
        caption: in plain text.
        head: header of the rows, then those of the columns.
        rows: label and cells of each row; None for an empty cell.
        reference: whose numbers stand beside the measured ones.

    Returns:
        A ``table``, or from `LONG` rows or beyond `WIDE` columns on ``longtable``s of `BLOCK` columns each. The first
        line says which packages it needs.
    """
    shown = [cell for _, cells in rows for cell in cells if cell and cell.paper]
    if shown:
        marked = any(cell.sign == "≠" for cell in shown)
        caption += f" In brackets: {reference}'s number" + (
            ", marked ≠ where the two intervals do not meet." if marked else "."
        )
    label = f"tab:{re.sub(r'[^A-Za-z0-9:.-]+', '-', key)}"
    worded = [any((cell := cells[i]) and cell.is_words for _, cells in rows) for i in range(len(head) - 1)]
    broad = max((len(name) for name in (head[0], *(name for name, _ in rows))), default=0)
    title = rf"\caption{{{escaped(caption)}}}\label{{{label}}}"
    if len(rows) < LONG and len(head) - 1 <= WIDE:
        lines = [
            r"% needs \usepackage{booktabs,graphicx}; a table wider than the text is made as wide as the text",
            *(r"\begin{table}", r"\centering", r"\small", title, r"\par\vspace{4pt}"),
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{_columns(worded, broad)}}}",
            *(*_head(head), *_body(rows), r"\bottomrule", r"\end{tabular}}", r"\end{table}"),
        ]
        return "\n".join(lines) + "\n"
    lines = [
        r"% needs \usepackage{booktabs,longtable}; columns that do not fit follow below, under the number of the first"
    ]
    for start in range(0, max(1, len(head) - 1), BLOCK):
        part, columns = (head[0], *head[1 + start : 1 + start + BLOCK]), _columns(worded[start : start + BLOCK], broad)
        cells = [(name, texts[start : start + BLOCK]) for name, texts in rows]
        lines += [r"\addtocounter{table}{-1}"] if start else []
        lines += [
            rf"{{\footnotesize\setlength{{\tabcolsep}}{{2pt}}\begin{{longtable}}{{{columns}}}",
            *([rf"{title} \\"] if start == 0 else []),
            *(*_head(part), r"\endfirsthead", *_head(part), r"\endhead", r"\bottomrule", r"\endfoot"),
            *(*_body(cells), r"\end{longtable}}"),
        ]
    return "\n".join(lines) + "\n"


def _columns(worded: Sequence[bool], broad: int) -> str:
    """Declare the columns: labels, numbers to the right, and words that break."""
    first = "l" if broad <= LABEL else r"p{5cm}"
    others = "".join("p{4cm}" if words else "r" for words in worded)
    return f"@{{}}{first}{others}@{{}}"


def _head(names: Sequence[str]) -> list[str]:
    return [r"\toprule", " & ".join(f"{{{escaped(name)}}}" for name in names) + r" \\", r"\midrule"]


def _body(rows: Sequence[tuple[str, Sequence[CellText | None]]]) -> list[str]:
    return [line for name, cells in rows for line in _row(name, cells)]


def _row(name: str, cells: Sequence[CellText | None]) -> list[str]:
    """Write the numbers of a row, the paper's in brackets, and their intervals in a line below."""
    above = [escaped(name)]
    below = [""]
    for cell in cells:
        paper = f" ({'≠' if cell.sign == '≠' else ''}{cell.paper})" if cell and cell.paper else ""
        above.append(escaped(f"{cell.value}{paper}" if cell else ""))
        below.append(rf"{{\scriptsize {escaped(cell.short(cell.interval))}}}" if cell and cell.interval else "")
    lines = [above, below] if any(below) else [above]
    return [" & ".join(line) + r" \\" for line in lines]


def _known(sign: str) -> bool:
    """Check for a letter that LaTeX's usual fonts have: Latin with its accents."""
    return " " <= sign < "\u007f" or "\u00c0" <= sign <= "\u017f"
