r"""Tables for LaTeX: booktabs, numbers with their intervals, every text escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from intriguing.results.cells import CellText

LONG = 40
"""Rows from which a table goes on over several pages."""
_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
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
    *, key: str, caption: str, head: Sequence[str], rows: Sequence[tuple[str, Sequence[CellText | None]]]
) -> str:
    r"""Write a table as a float of LaTeX.

    Args:
        key: of the table; the label is ``tab:`` and the key.
        caption: in plain text.
        head: header of the rows, then those of the columns.
        rows: label and cells of each row; None for an empty cell.

    Returns:
        A ``table``, or a ``longtable`` from `LONG` rows on. The first lines say which packages it needs.
    """
    shown = [cell for _, cells in rows for cell in cells if cell and cell.paper]
    if shown:
        marked = any(cell.sign == "≠" for cell in shown)
        caption += " In brackets: the paper's number" + (
            ", marked ≠ where the two intervals do not meet." if marked else "."
        )
    label = f"tab:{re.sub(r'[^A-Za-z0-9:.-]+', '-', key)}"
    columns = f"@{{}}l{'r' * (len(head) - 1)}@{{}}"
    first = [" & ".join(f"{{{escaped(name)}}}" for name in head) + r" \\"]
    body = [line for name, cells in rows for line in _row(name, cells)]
    title = rf"\caption{{{escaped(caption)}}}\label{{{label}}}"
    if len(rows) >= LONG:
        above = [r"\toprule", *first, r"\midrule"]
        lines = [
            r"% needs \usepackage{booktabs,longtable}",
            rf"{{\footnotesize\begin{{longtable}}{{{columns}}}",
            rf"{title} \\",
            *(*above, r"\endfirsthead", *above, r"\endhead", r"\bottomrule", r"\endfoot"),
            *(*body, r"\end{longtable}}"),
        ]
    else:
        lines = [
            r"% needs \usepackage{booktabs,graphicx}; a table wider than the text is made as wide as the text",
            *(r"\begin{table}", r"\centering", r"\small", title, r"\par\vspace{4pt}"),
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            *(r"\toprule", *first, r"\midrule", *body, r"\bottomrule"),
            *(r"\end{tabular}}", r"\end{table}"),
        ]
    return "\n".join(lines) + "\n"


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
