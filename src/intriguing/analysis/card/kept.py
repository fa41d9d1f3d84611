"""Keep the finished cards of a page of several until the page is written, so that a run that stops loses none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from intriguing.analysis.card.card import RobustnessCard
from intriguing.errors import UserError
from intriguing.storage import safetensors_file

_KEY = "intriguing.card"
_PICTURES = ("image", "adversarial")


def keep(card: RobustnessCard, path: Path) -> None:
    """Write a card with the pictures of its examples, which its JSON leaves out.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {"json": torch.frombuffer(bytearray(card.json().encode()), dtype=torch.uint8)}
    for number, example in enumerate(card.examples):
        tensors |= {
            f"{number}.{name}": getattr(example, name).contiguous()
            for name in _PICTURES
            if getattr(example, name) is not None
        }
    safetensors_file.save(tensors, path, _KEY, {})


def kept(path: Path) -> RobustnessCard | None:
    """Read a card that `keep` wrote; None where it is missing, damaged, or of another version."""
    try:
        _, tensors = safetensors_file.load(path, _KEY, _any_entry, what="a card")
        card = RobustnessCard.parse(bytes(tensors["json"].tolist()))
    except (UserError, KeyError):
        return None
    examples = [
        replace(example, **{name: tensors.get(f"{number}.{name}") for name in _PICTURES})
        for number, example in enumerate(card.examples)
    ]
    return replace(card, examples=tuple(examples))


def _any_entry(entry: dict[str, Any], path: Path) -> None:
    """Accept the entry, which says nothing."""
