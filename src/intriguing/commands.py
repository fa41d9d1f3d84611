"""Find the project's configs, and name its three commands as the user has them: in a checkout, or installed."""

from __future__ import annotations

import sys
from pathlib import Path

_IN_WHEEL = Path(__file__).parent / "conf"
_PREFIX = "intriguing-"

CONF = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).parents[2] / "conf"
"""The folder of the project's configs: inside an installed package, or at the top of a checkout."""


def command_name(stage: str) -> str:
    """Name the command of a stage, for a message or a record.

    Args:
        stage: ``train``, ``attack`` or ``analyze``.

    Returns:
        ``intriguing-train`` and the like where the package is installed from a wheel, or where such a command is
        running; ``python train.py`` in a checkout.
    """
    running = Path(sys.argv[0]).name if sys.argv else ""
    installed = CONF == _IN_WHEEL or running.startswith(_PREFIX)
    return f"{_PREFIX}{stage}" if installed else f"python {stage}.py"
