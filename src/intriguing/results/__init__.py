"""What an analysis returns to a report: tables of cells, figures, and a summary of each run behind them.

These are plain frozen values: the analysis does not know the layout of a page, and the report does not know how a
number was measured. Percentages are in percent, distortions in the unit of a pixel.
"""

from intriguing.results.analysis import AnalysisResult, RunSummary, fact_text
from intriguing.results.cells import THE_PAPER, Cell, CellText, short_name
from intriguing.results.figures import Figure
from intriguing.results.quantities import DISTORTION, ERROR, EXCESS, MANY, Quantity
from intriguing.results.tables import TIDY_COLUMNS, Table

__all__ = [
    "DISTORTION",
    "ERROR",
    "EXCESS",
    "MANY",
    "THE_PAPER",
    "TIDY_COLUMNS",
    "AnalysisResult",
    "Cell",
    "CellText",
    "Figure",
    "Quantity",
    "RunSummary",
    "Table",
    "fact_text",
    "short_name",
]
