"""Which process of a distributed run writes files."""


def is_first_process() -> bool:
    """Whether this is the process of a distributed run that writes and speaks (the only one, of an ordinary run)."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only  # seconds, and not everyone who tracks needs it

    return getattr(rank_zero_only, "rank", 0) == 0
