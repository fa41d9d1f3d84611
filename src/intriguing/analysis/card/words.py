"""Write the numbers of a card, and one plain sentence for each part."""

from __future__ import annotations

import math

from intriguing.analysis.card.numbers import Number
from intriguing.analysis.card.values import CardValues

NOISE = 0.1  # standard deviation of the third main number


def percent(number: Number, *, interval: bool = True) -> str:
    """Write a share in percent: ``96.9 % (92.2 to 98.8)``."""
    text = f"{_short(100 * number.value)} %"
    return f"{text} ({_short(100 * number.low)} to {_short(100 * number.high)})" if interval else text


def length(number: Number, *, interval: bool = True) -> str:
    """Write a distance to three digits: ``1.49 (1.37 to 1.63)``; one without a bound as ``none found``."""
    value = "none found" if math.isinf(number.value) else f"{number.value:.3g}"
    if not interval:
        return value
    high = "no bound" if math.isinf(number.high) else f"{number.high:.3g}"
    return f"{value} ({number.low:.3g} to {high})"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 99.95 or value == 100 else f"{value:.2f}"


def class_name(card: CardValues, label: int) -> str:
    """Return the name of a class, or else its number."""
    return card.classes[label] if label < len(card.classes) else str(label)


def main_numbers(card: CardValues) -> list[tuple[str, str, str, str]]:
    """List the three main numbers: what, value with unit, interval, how to read it."""
    at = next((point for point in card.noise_curve if point.at == NOISE), None)
    found = [
        ("Accuracy", percent(card.accuracy, interval=False), _interval(card.accuracy, 100, " %"),
         f"of {card.images} images are right"),
    ]  # fmt: skip
    if card.l2 is None:
        found.append(("Typical L2 distance", "–", "", "could not be measured, see below"))
    else:
        gray = 255 * card.l2.rms.value
        levels = "" if math.isinf(gray) else f": {gray:.2g} of 255 grey levels a pixel"
        found.append(("Typical L2 distance", length(card.l2.median, interval=False), _interval(card.l2.median, 1, ""),
                      f"to the nearest adversarial image (median){levels}"))  # fmt: skip
    if at is None:
        found.append(("Accuracy in noise", "–", "", "could not be measured, see below"))
    else:
        found.append(("Accuracy in noise", percent(at.accuracy, interval=False), _interval(at.accuracy, 100, " %"),
                      f"Gaussian noise of standard deviation {NOISE:g}"))  # fmt: skip
    return found


def _interval(number: Number, factor: float, unit: str) -> str:
    def write(value: float) -> str:
        if math.isinf(value):
            return "no bound"
        return _short(value * factor) if unit else f"{value:.3g}"

    return f"95 % interval {write(number.low)} to {write(number.high)}{unit}"


def accuracy(card: CardValues) -> str:
    """Say how often the network is right, and how far its confidence is off."""
    text = f"The network is right on {percent(card.accuracy)} of {card.accuracy.n} unperturbed images."
    if card.calibration is None:
        return text
    over = card.calibration.overconfidence
    side = "above" if over.value > 0 else "below"
    points = f"{_short(100 * abs(over.value))} points {side}"
    sure = f"{points} its accuracy" if not over.low <= 0 <= over.high else "about its accuracy"
    return f"{text} Its confidence is on average {sure}; the calibration error is {percent(card.calibration.error)}."


def distances(card: CardValues) -> str:
    """Say how far adversarial images are."""
    found = card.l2
    assert found is not None
    failed = f" For {found.failed} images no adversarial image was found." if found.failed else ""
    return (
        f"Half of the {found.median.n} images that are right have an adversarial image within an L2 distance of "
        f"{length(found.median)}, and one in twenty within {length(found.p5)}; 95 % within {length(found.p95)}. The "
        f"median is {length(found.rms)} per pixel (RMS).{failed}"
    )


def security(card: CardValues) -> str:
    """Say at which norm accuracy has halved, and what is certified there."""
    half = next((p for p in card.security_curve if p.accuracy.value <= card.accuracy.value / 2), None)
    text = (
        f"Perturbations of L2 norm {half.at:g} bring the accuracy down to {percent(half.accuracy)}."
        if half
        else "No perturbation that was found halves the accuracy."
    )
    if card.certified_curve is None or card.certificate is None:
        return text + " No certificate is known for these layers, so true robustness may lie anywhere below the curve."
    at = next((p for p in card.certified_curve if p.at > 0), None)
    sure = f"A certificate proves {percent(at.accuracy)} at L2 {at.at:g}. " if at else ""
    how = {"product": "the product of the layers' norms", "LipSDP": "a semidefinite program (LipSDP)"}
    way = how.get(card.certificate.method, "the norms of the first layers and a semidefinite program for the rest")
    pairs = "" if card.certificate.pairs else "; constants for each pair of classes would be sharper and take longer"
    return f"{text} {sure}What lies between the two curves nobody knows. Certificate: {way}{pairs}."


def strength(card: CardValues) -> str:
    """Say whether two efforts agree, and which signs of masked gradients there are."""
    seen = [one for one in card.signs if one.suspicious]
    text = ""
    if card.strength is not None:
        found = card.strength.shorter
        text = (
            f"The effort {card.strength.effort} shortens the distances by {percent(found)} on average ({found.n} "
            f"images, at most {100 * card.strength.most:.0f} %). "
        )
    if not card.signs:
        return text + "Signs of masked gradients were not looked for."
    signs = f"{len(seen)} of {len(card.signs)} signs of masked gradients" if seen else "No sign of masked gradients"
    return f"{text}{signs} {'were' if len(seen) > 1 else 'was'} found."


def noise(card: CardValues) -> str:
    """Say how much noise the network bears."""
    bears = [p for p in card.noise_curve if p.accuracy.value >= card.accuracy.value - 0.05]
    most = f"up to a standard deviation of {bears[-1].at:g}" if bears else "at none of the measured strengths"
    last = card.noise_curve[-1]
    return (
        f"In Gaussian noise accuracy stays within 5 points {most}; at {last.at:g} it is {percent(last.accuracy)} "
        f"(N = {last.accuracy.n})."
    )


def corruptions(card: CardValues) -> str:
    """Say which corruption hurts most, and which least."""
    middle = sorted((one for one in card.corruptions if one.strength == 2), key=lambda one: one.accuracy.value)
    worst, best = middle[0], middle[-1]
    return (
        f"Of the corruptions of middle strength {worst.name} ({worst.setting}) hurts most: {percent(worst.accuracy)} "
        f"stay right; {best.name} ({best.setting}) least: {percent(best.accuracy)} (N = {worst.accuracy.n})."
    )


def prediction(card: CardValues) -> str:
    """Compare the predicted with the measured distance."""
    found = card.noise_prediction
    assert found is not None
    text = (
        f"Noise of standard deviation {found.stddev:g} makes {percent(found.error)} of the right answers wrong. If the "
        f"boundary were flat, this would put it at an L2 distance of {length(found.predicted)}; the attack measured "
        f"{length(found.measured)}."
    )
    if not (math.isfinite(found.measured.value) and found.measured.value > 0 and math.isfinite(found.predicted.value)):
        return text
    return f"{text} The ratio is {found.predicted.value / found.measured.value:.2g}."


def transfer(card: CardValues) -> str:
    """Say how often examples carry over."""
    found = card.transfer
    assert found is not None
    return (
        f"At L2 {found.l2:g}, {percent(found.to)} of the network's adversarial images also fool {found.reference}, and "
        f"{percent(found.from_)} of those for {found.reference} fool the network; noise of this norm fools "
        f"{percent(found.noise_to)} and {percent(found.noise_from)}."
    )


def layers(card: CardValues) -> str:
    """Say how much adversarial perturbations grow."""
    found = card.layers
    assert found is not None
    product = math.prod(one.bound for one in found)
    widest = max(found, key=lambda one: one.bound)
    text = (
        f"No perturbation can grow by more than {product:.3g} through all {len(found)} layers; the layer with the "
        f"largest norm is {widest.name} ({widest.bound:.3g})."
    )
    last = found[-1]
    if not math.isfinite(last.adversarial):
        return text
    return (
        f"{text} Adversarial perturbations grow by {last.adversarial:.3g} on the way to the logits, random ones of "
        f"equal norm by {last.noise:.3g}."
    )


def confused(card: CardValues) -> str:
    """Name the most frequent confusions."""

    def named(adversarial: bool) -> str:
        some = [one for one in card.confused if one.adversarial == adversarial][:1]
        return ", ".join(f"{class_name(card, one.label)} for {class_name(card, one.answer)}" for one in some)

    clean, adversarial = named(False), named(True)
    first = f"Unperturbed, {clean} is the most frequent confusion" if clean else "Unperturbed, no pair stands out"
    return f"{first}; the nearest adversarial image most often takes {adversarial}." if adversarial else f"{first}."


def cost(card: CardValues) -> str:
    """Say what the card took."""
    return (
        f"{card.cost.forwards:,} forward and {card.cost.backwards:,} backward passes of single images, "
        f"{card.seconds:.0f} s of {60 * card.minutes:.0f} s, at most {card.cost.memory:,.0f} MB of memory."
    )
