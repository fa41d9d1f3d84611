"""Find the process of a distributed run that writes files."""

from __future__ import annotations


def is_first_process() -> bool:
    """Return whether this process writes and prints: the first of a distributed run, or the only one."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only  # takes seconds, and few callers need it early

    return getattr(rank_zero_only, "rank", 0) == 0
