"""The report of an analysis: console tables, CSV and PNG files, report.md, and a self-contained report.html.

It shows an `AnalysisResult` and measures nothing. Equal results give equal files, byte for byte.
"""

from intriguing.report.console import show
from intriguing.report.files import write

__all__ = ["show", "write"]
