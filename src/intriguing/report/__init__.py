"""What people see: console tables, CSV and PNG files, report.md, and one self-contained report.html.

It shows an `AnalysisResult` and measures nothing. The same result gives the same files, byte for byte.
"""

from intriguing.report.console import show
from intriguing.report.files import write

__all__ = ["show", "write"]
