"""The paper's numbers: "Intriguing properties of neural networks", arXiv 1312.6199, Tables 1 to 5, as printed.

An int means the paper prints no decimals, so ``repr`` gives back the printed digits. Rows of a transfer table are the
networks that the examples were made for, columns the networks they were shown to.

Known errata and gaps, and how this project treats them:
- Table 1 prints .065 for the distortion of FC200-200-10, Figure 7 prints .063. The table's number is kept.
- The number of attacked images is not stated. 28 of the 30 transfer entries of Table 2 (all but 48.1 and 24.8), all its
  Gaussian entries and all adversarial entries of Table 4 are k/256, rounded or cut off at the printed digits, so
  N = 256. The Gaussian entries of Table 4 are not (2.2 lies between 5/256 and 6/256), so these are taken to be the
  whole test set of 10,000.
- Gaussian noise was evidently not clipped to [0, 1].
- Table 4's amplification, x + 0.1 (x' - x) / ||x' - x||_2, is meant per pixel, and evidently multiplied a whole set by
  one factor that brings its mean distortion to 0.1: there a network is fooled by all of its own amplified examples,
  but not if an example that needed more than 0.1 is shrunk to it.
- Numbers are printed with few digits: "0" of 60,000 may be up to 300 errors. An interval takes in every count that is
  printed as the number (`ROUNDING`).
- Transfer percentages contain the victim's clean error.
- Distortions are printed without any spread, so the spread measured here is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import Any, Final

SOURCE: Final = "arXiv 1312.6199"
DATA: Final = "mnist"
NUM_ADVERSARIAL: Final = 256
"""Images behind each transfer entry and each distortion (inferred, see above)."""
ROUNDING: Final = 0.5
"""Largest rounding error of a printed number, in units of its last printed digit."""
NUM_TRAIN: Final = 60_000
NUM_HALF: Final = 30_000
NUM_TEST: Final = 10_000

TRAIN_ERROR: Final = "train error"
TEST_ERROR: Final = "test error"
P1_ERROR: Final = "error on P1"
P2_ERROR: Final = "error on P2"
DISTORTION: Final = "av. distortion"

Entries = Mapping[str, Mapping[str, float]]


def _rows(columns: tuple[str, ...], entries: Mapping[str, tuple[float, ...]]) -> Entries:
    return {row: dict(zip(columns, values, strict=True)) for row, values in entries.items()}


_FULL = ("FC10(1e-4)", "FC10(1e-2)", "FC10(1)", "FC100-100-10", "FC200-200-10", "AE400-10")
_HALVES = ("FC100-100-10", "FC123-456-10", "FC100-100-10'")

TABLE_1: Final = _rows(
    (TRAIN_ERROR, TEST_ERROR, DISTORTION),
    {
        "FC10(1e-4)": (6.7, 7.4, 0.062),
        "FC10(1e-2)": (10, 9.4, 0.1),
        "FC10(1)": (21.2, 20, 0.14),
        "FC100-100-10": (0, 1.64, 0.058),
        "FC200-200-10": (0, 1.54, 0.065),
        "AE400-10": (0.57, 1.9, 0.086),
    },
)

TABLE_5: Final[Mapping[str, float]] = {
    "conv1 3x11x11x96, stride 4": 2.75,
    "conv2 96x5x5x256": 10,
    "conv3 256x3x3x384": 7,
    "conv4 384x3x3x384": 7.5,
    "conv5 384x3x3x256": 11,
    "fc6 9216x4096": 3.12,
    "fc7 4096x4096": 4,
    "fc8 4096x1000": 4,
}
"""Upper bounds of AlexNet's layers; the sizes ignore its two groups."""

TABLE_2: Final = _rows(
    (*_FULL, DISTORTION),
    {
        "FC10(1e-4)": (100, 11.7, 22.7, 2, 3.9, 2.7, 0.062),
        "FC10(1e-2)": (87.1, 100, 35.2, 35.9, 27.3, 9.8, 0.1),
        "FC10(1)": (71.9, 76.2, 100, 48.1, 47, 34.4, 0.14),
        "FC100-100-10": (28.9, 13.7, 21.1, 100, 6.6, 2, 0.058),
        "FC200-200-10": (38.2, 14, 23.8, 20.3, 100, 2.7, 0.065),
        "AE400-10": (23.4, 16, 24.8, 9.4, 6.6, 100, 0.086),
        "Gaussian .1": (5.0, 10.1, 18.3, 0, 0, 0.8, 0.1),
        "Gaussian .3": (15.6, 11.3, 22.7, 5, 4.3, 3.1, 0.3),
    },
)

TABLE_3: Final = _rows(
    (P1_ERROR, P2_ERROR, TEST_ERROR, DISTORTION),
    {
        "FC100-100-10": (0, 2.4, 2, 0.062),
        "FC123-456-10": (0, 2.5, 2.1, 0.059),
        "FC100-100-10'": (2.3, 0, 2.1, 0.058),
    },
)

TABLE_4: Final = _rows(
    _HALVES,
    {
        "FC100-100-10": (100, 26.2, 5.9),
        "FC123-456-10": (6.25, 100, 5.1),
        "FC100-100-10'": (8.2, 8.2, 100),
        "Gaussian .06": (2.2, 2.6, 2.4),
        "FC100-100-10, amplified to .1": (100, 98, 43),
        "FC123-456-10, amplified to .1": (96, 100, 22),
        "FC100-100-10', amplified to .1": (27, 50, 100),
        "Gaussian .1": (2.6, 2.8, 2.7),
    },
)

TABLES: Final[Mapping[str, Entries]] = {"table1": TABLE_1, "table2": TABLE_2, "table3": TABLE_3, "table4": TABLE_4}

NETWORKS: Final[Mapping[str, tuple[str, str, Any, tuple[float, ...]]]] = {
    "FC10(1e-4)": ("fully_connected", "widths", [], (1e-4,)),
    "FC10(1e-2)": ("fully_connected", "widths", [], (1e-2,)),
    "FC10(1)": ("fully_connected", "widths", [], (1.0,)),
    "FC100-100-10": ("fully_connected", "widths", [100, 100], (1e-5, 1e-5, 1e-6)),
    "FC200-200-10": ("fully_connected", "widths", [200, 200], (1e-5, 1e-5, 1e-6)),
    "FC123-456-10": ("fully_connected", "widths", [123, 456], (1e-5, 1e-5, 1e-6)),
    "AE400-10": ("sparse_autoencoder", "units", 400, (1e-6,)),
}
"""The paper's networks by name: model, name and value of the setting of its shape, and lambda by layer."""

OSTRICH_DISTORTION: Final = 0.0065
"""Figure 5: mean distortion of AlexNet's adversarial examples, all towards the ostrich."""
OSTRICH_IMAGES: Final = 64
NOISE_ACCURACY: Final = 51
"""Figure 7: accuracy in percent under Gaussian noise of stddev 1; the paper does not name the network."""


_left_out: ContextVar[bool] = ContextVar("left_out", default=False)


@contextmanager
def left_out() -> Iterator[None]:
    """Leave the paper's numbers out of all that is made within, where others are compared with."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


def value(table: str, row: str, column: str) -> float | None:
    """Return the printed number, or None where the paper has none or is left out."""
    if _left_out.get():
        return None
    if table == "table4" and column == DISTORTION:
        table = "table3"  # Table 4 names the distortions of Table 3 in its row headers
    return TABLES.get(table, {}).get(row, {}).get(column)


def network_name(config: Mapping[str, Any]) -> str:
    """Name the paper's network that a training config describes, on any data.

    Args:
        config: a training run's resolved config.

    Returns:
        The name in Tables 1 to 4, with a prime where P2 was trained on; empty where shape, nonlinearity, weight decay
        or way of training are not those of a network of the paper.
    """
    model, decay = config.get("model", {}), config.get("weight_decay", {}).get("value")
    settings = model.get("settings", {})
    other = (
        any(settings.get("dropout") or ())
        or (settings.get("widths") and settings.get("activation") != "sigmoid")
        or (config.get("callbacks") or {}).get("back_feeding")
        or config.get("spectral_penalty", {}).get("value")
    )
    for name, (kind, key, shape, lambdas) in NETWORKS.items():
        if not other and (model.get("name"), settings.get(key), decay) == (kind, shape, list(lambdas)):
            return f"{name}'" if config.get("split", {}).get("name") == "p2" else name
    return ""


def is_paper_data(config: Mapping[str, Any]) -> bool:
    """Check whether a training config names the paper's images: MNIST, with no image left out."""
    data = config.get("data", {})
    return data.get("name") == DATA and not data.get("validation") and data.get("only") is None


def sample_size(table: str, row: str, column: str) -> int:
    """Return the number of images behind a printed error.

    Raises:
        ValueError: the paper has no such entry.
    """
    if value(table, row, column) is None:
        raise ValueError(f"expected an entry of Tables 1 to 4, got {table}, {row!r}, {column!r}")
    sizes = {TRAIN_ERROR: NUM_TRAIN, P1_ERROR: NUM_HALF, P2_ERROR: NUM_HALF, TEST_ERROR: NUM_TEST}
    if table == "table4" and row.startswith("Gaussian"):
        return NUM_TEST
    return sizes.get(column, NUM_ADVERSARIAL)


def rounding(printed: float) -> float:
    """Compute the largest rounding error of a printed number, in its unit."""
    exponent = Decimal(repr(printed)).as_tuple().exponent
    return ROUNDING * 10.0 ** int(exponent)


def printed_counts(printed: float, n: int) -> tuple[int, int]:
    """Find the least and the largest k for which k of n is printed as this percentage.

    Where no count is (of 256 images some printed digits are cut off rather than rounded), both are the nearest count.
    """
    half, crumb = rounding(printed), 1e-9
    least = max(0, math.ceil((printed - half) * n / 100 - crumb))
    most = min(n, math.floor((printed + half) * n / 100 + crumb))
    nearest = round(printed * n / 100)
    return (least, most) if least <= most else (nearest, nearest)


def order(table: str, *, columns: bool = False) -> tuple[str, ...]:
    """Return the labels of a table of the paper, in its order; none where the paper has no such table."""
    entries = TABLES.get(table, {})
    return tuple(next(iter(entries.values()), {})) if columns else tuple(entries)
