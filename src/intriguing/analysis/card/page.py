"""The page of one card, or of several side by side: one HTML file that makes no network requests."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from intriguing.analysis.card import figures, words
from intriguing.analysis.card.numbers import Number
from intriguing.analysis.card.values import CardValues, Sign
from intriguing.analysis.drawing import BLUE, GREY, ORANGE, PURPLE
from intriguing.report.html import embedded

_LARGEST, _EXACT = 192, 64  # pixels of the longer side of a picture; up to the second it is a PNG, else a JPEG
_COLOURS = "Purple: unperturbed. Orange: nearest adversarial image."
_NAMES = {
    "zero_gradient": "zero gradient",
    "no_descent": "gradient misleads",
    "unbounded": "never fooled",
    "one_step": "fooled by one step",
    "noise": "fooled by noise",
    "larger": "fooled at 4 x the norm",
    "nearer": "nearer one found",
}


@dataclass(frozen=True)
class Section:
    """Hold one part for the page: heading, sentence, picture."""

    key: str
    title: str
    text: str
    picture: Markup
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thumbnail:
    """Hold the pictures of one example as data addresses."""

    group: str
    image: str
    adversarial: str
    difference: str
    caption: str


def page(cards: Sequence[CardValues], *, command: str = "") -> str:
    """Render the page.

    Args:
        cards: one or more; several are compared in a table at the top.
        command: that made them; empty: unknown.

    Returns:
        The page's HTML.
    """
    text = (
        _environment()
        .get_template("card.html.j2")
        .render(
            cards=[
                {
                    "card": card,
                    "id": f"card{number}",
                    "numbers": words.main_numbers(card),
                    "sections": _sections(card, f"card{number}"),
                    "examples": _thumbnails(card),
                }
                for number, card in enumerate(cards, 1)
            ],
            several=_several(cards) if len(cards) > 1 else None,
            title=cards[0].name if len(cards) == 1 else f"{len(cards)} networks side by side",
            command=command,
            length=words.length,
            percent=words.percent,
            value=_value,
        )
    )
    return text.replace(" %", "\u00a0%")  # a number and its per cent sign stay on one line


def _value(number: Number, name: str) -> str:
    return words.length(number) if "distance" in name else words.percent(number)


def _sections(card: CardValues, prefix: str) -> list[Section]:
    found: list[Section] = []

    def add(key: str, title: str, text: str, svg: str, *details: str) -> None:
        picture = Markup(embedded(svg, f"{prefix}-{key}", str(Markup.escape(text))))
        found.append(Section(f"{prefix}-{key}", title, text, picture, tuple(one for one in details if one)))

    if card.l2 is not None:
        add("distances", "Distance to the nearest adversarial image", words.distances(card), figures.distances(card))
    if card.security_curve:
        add("security", "Accuracy under attack", words.security(card), figures.security([card]))
    if card.calibration is not None:
        add("accuracy", "Accuracy and calibration", words.accuracy(card), figures.calibration(card))
    if card.noise_curve:
        add("noise", "Gaussian noise", words.noise(card), figures.noise(card))
    if card.corruptions:
        add("corruptions", "Common corruptions", words.corruptions(card), figures.corruptions(card))
    if card.signs:
        rows = [(_NAMES[one.name], one.value, ORANGE if one.suspicious else BLUE) for one in card.signs]
        add("strength", "Is the attack strong?", words.strength(card), figures.shares(rows, "images, %"),
            *map(_sign, card.signs))  # fmt: skip
    if card.noise_prediction is not None:
        add("prediction", "What noise would predict", words.prediction(card), figures.prediction(card))
    if (one := card.transfer) is not None:
        rows = [
            (f"own examples fool {one.reference}"[:34], one.to, ORANGE),
            ("its examples fool this network", one.from_, BLUE),
            (f"noise fools {one.reference}"[:34], one.noise_to, GREY),
            ("noise fools this network", one.noise_from, GREY),
        ]
        add("transfer", "Transfer", words.transfer(card), figures.shares(rows, "images, %"))
    if card.layers:
        add("layers", "Layer by layer", words.layers(card), figures.layers(card))
    if card.confused:
        rows = [
            (
                f"{words.class_name(card, one.label)} → {words.class_name(card, one.answer)}"[:30],
                one.share,
                ORANGE if one.adversarial else PURPLE,
            )
            for one in card.confused
        ]
        add("confused", "Confused classes", words.confused(card),
            figures.shares(rows, "images of the class, %"), _COLOURS)  # fmt: skip
    add("cost", "Cost", words.cost(card), figures.cost(card))
    return found


def _sign(one: Sign) -> str:
    return ("suspicious: " if one.suspicious else "") + one.text


def _several(cards: Sequence[CardValues]) -> dict[str, object]:
    """Make the table of several networks, and their curves in one picture."""
    rows: list[tuple[str, list[str]]] = [("Accuracy", [words.percent(card.accuracy) for card in cards])]
    for name, key in (("Median L2 distance", "median"), ("5 % L2 distance", "p5")):
        rows.append((name, ["–" if one.l2 is None else words.length(getattr(one.l2, key)) for one in cards]))
    noisy = [next((p.accuracy for p in one.noise_curve if p.at == words.NOISE), None) for one in cards]
    rows.append((f"Accuracy in noise of {words.NOISE:g}", ["–" if n is None else words.percent(n) for n in noisy]))
    certified = [_last_certified(card) for card in cards]
    rows.append(("Certified for half of the images", certified))
    rows.append(("Warnings", [str(len(card.warnings)) for card in cards]))
    text = "Accuracy against the L2 norm of the perturbation, for each network."
    return {"rows": rows, "picture": Markup(embedded(figures.security(cards), "several", text)), "text": text}


def _last_certified(card: CardValues) -> str:
    if card.certified_curve is None:
        return "–"
    inside = [point.at for point in card.certified_curve if point.accuracy.value >= 0.5]
    return f"up to L2 {inside[-1]:g}" if inside and inside[-1] > 0 else "no"


def _thumbnails(card: CardValues) -> list[Thumbnail]:
    found = []
    for one in card.examples:
        if one.image is None or one.adversarial is None:
            continue
        difference = one.adversarial - one.image
        scale = float(difference.abs().max())
        shown = 0.5 + difference / (2 * scale) if scale > 0 else torch.full_like(difference, 0.5)
        caption = f"{words.class_name(card, one.label)} → {words.class_name(card, one.answer)}, L2 {one.l2:.3g}"
        found.append(Thumbnail(one.group, _picture(one.image), _picture(one.adversarial), _picture(shown), caption))
    return found


def _picture(image: Tensor) -> str:
    """Encode an image (C, H, W) in [0, 1]; of other than one or three channels their mean."""
    image = image if image.shape[0] in (1, 3) else image.mean(dim=0, keepdim=True)
    values = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    array = values[0].numpy() if len(values) == 1 else values.permute(1, 2, 0).numpy()
    picture, side = Image.fromarray(array), max(image.shape[1:])
    stream = io.BytesIO()
    if side <= _EXACT:
        picture.save(stream, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    if side > _LARGEST:
        shape = [max(1, math.floor(length * _LARGEST / side)) for length in picture.size]
        picture = picture.resize((shape[0], shape[1]), Image.Resampling.LANCZOS)
    picture.save(stream, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
