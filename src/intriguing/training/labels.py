"""Name networks and runs by their facts. Nothing reads a fact back from a label or a name."""

from __future__ import annotations

from collections.abc import Sequence

from intriguing.runs.names import short_number, slug

_PENALTY_WORDS = {"log_product": "penalty", "margin": "margin"}  # before the strength


def network_label(architecture: str, lambdas: Sequence[float], penalty: tuple[str, float] | None, split: str) -> str:
    """Label a network: ``FC10(1e-4)``, ``FC100-100-10 margin 0.15``, ``FC100-100-10'``.

    Args:
        architecture: its label.
        lambdas: the weight decays to spell out; empty where the architecture's label implies them.
        penalty: kind and strength of the spectral penalty; None without one.
        split: the images it trains on; ``p2`` is a prime.
    """
    decay = f"({','.join(map(short_number, lambdas))})" if lambdas else ""
    strength = f" {_PENALTY_WORDS[penalty[0]]} {short_number(penalty[1])}" if penalty else ""
    return architecture + decay + strength + ("'" if split == "p2" else "")


def run_name(
    images: str,
    architecture: str,
    lambdas: Sequence[float],
    penalty: tuple[str, float] | None,
    *,
    split: str,
    seed: int,
    debug: str | None,
    extras: Sequence[str] = (),
) -> str:
    """Name a training run: ``digits_fc10_wd1e-2_full_seed0``.

    Args:
        images: the data set, or the name of the folder of images; MNIST is not named.
        architecture: see ``network_label``.
        lambdas: see there.
        penalty: see there.
        split: the images it trains on.
        seed: of the run.
        debug: the kind of debugging run; None for none.
        extras: further parts.
    """
    parts = [f"debug-{debug}"] if debug else []
    parts += [] if images == "mnist" else [images]
    parts.append(architecture.lower().replace("-", "_"))
    parts += ["wd" + "-".join(map(short_number, lambdas))] if lambdas else []
    parts += [f"{_PENALTY_WORDS[penalty[0]]}{short_number(penalty[1])}"] if penalty else []
    return slug("_".join([*parts, split, f"seed{seed}", *extras]))
