"""Measure a robustness card from Python, of any network and images at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from intriguing.analysis.card.card import RobustnessCard
from intriguing.analysis.card.measure import measure_card
from intriguing.analysis.card.sample import stratified_order
from intriguing.analysis.card.subject import Passes, Subject
from intriguing.attacks.effort import EFFORTS
from intriguing.attacks.network import Model
from intriguing.errors import UserError
from intriguing.interface.craft import checked_images
from intriguing.interface.network import as_module, device_of, name_of, taking_float32
from intriguing.validation import choice, number, whole


def robustness_card(
    model: Model,
    images: Any,
    labels: Any,
    *,
    name: str | None = None,
    minutes: float = 5.0,
    max_images: int | None = 1000,
    effort: str = "fast",
    reference: Model | None = None,
    seed: int = 0,
    classes: Sequence[str] = (),
    progress: bool | Callable[[str, float], None] = False,
) -> RobustnessCard:
    """Measure how stable a network is: one page of numbers with intervals, within a budget of time.

    Measured are accuracy and calibration, minimal L2 distances by `nearest` and the security curve, the strength of the
    attack and signs of masked gradients, accuracy in noise and under corruptions, certified radii, norms and
    amplification of the layers, and transfer. Every part gets a first slice of images; then the part whose interval is
    widest gets the next one, until the time is spent. Which images a slice holds does not depend on the speed of the
    machine, so results differ by N alone.

    Args:
        model: a torch module, or a function of modules, from images in [0, 1] to logits (N, K). It is evaluated as in
            ``eval()``, and afterwards is as it was.
        images: (N, C, H, W) in [0, 1]: a tensor or an array. Images that the network was not trained on.
        labels: (N,) classes 0..K-1.
        name: of the network; None: its label or class.
        minutes: the budget, above 0.
        max_images: largest number of images, drawn by the seed and stratified by label; None: all.
        effort: of the attack, "fast", "default" or "thorough", see `nearest`; the next greater one is compared with it
            on some images.
        reference: another network for the same images, to and from which examples are transferred.
        seed: of the sample and of all noise.
        classes: names of the classes, for the page.
        progress: True for a progress bar, or a function of what is measured and of the share of the budget that is
            spent.

    Returns:
        The card. It shows itself in a notebook; ``to_dict()`` returns plain values, ``save("card.html")`` writes the
        page, ``save("card.json")`` the values, ``compare(old)`` compares it with an earlier card.

    Raises:
        UserError: the network and the images do not fit each other; the line has the remedy.
        TypeError: the images are no floating-point numbers, or the labels no whole ones.
        ValueError: a shape is wrong.

    Example:
        >>> import intriguing as ig, torch
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> images = torch.rand(24, 1, 4, 4)
        >>> card = ig.robustness_card(net, images, net(images).argmax(1), name="linear", minutes=0.05)
        >>> card.accuracy.value, card.l2.failed, card.certificate.contradictions
        (1.0, 0, 0)
    """
    choice("effort", effort, EFFORTS)
    minutes = number("minutes", minutes, 0, above=True)
    most = None if max_images is None else whole("max_images", max_images, 1)
    images, labels = checked_images(images, labels)
    order = stratified_order(labels, whole("seed", seed, 0))[:most]
    if classes and len(labels) and int(labels.max()) >= len(classes):
        raise UserError(f"classes has {len(classes)} names, and the labels reach {int(labels.max())}; name all classes")
    passes = Passes()

    def subject(net: Model, called: str | None) -> Subject:
        some = images[order[:1]].to(device_of(net)) if len(order) else images[:1]
        return Subject(
            name=called or name_of(net),
            model=as_module(taking_float32(net, some)),
            images=images[order],
            labels=labels[order],
            indices=order,
            device=device_of(net),
            seed=seed,
            classes=tuple(map(str, classes)),
            passes=passes,
        )

    measured = subject(model, name)
    other = None if reference is None else subject(reference, None)
    settings: dict[str, Any] = {"minutes": minutes, "effort": effort, "reference": other}
    if not progress:
        return measure_card(measured, **settings)
    if callable(progress):
        return measure_card(measured, report=progress, **settings)
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task("card", total=1.0)

        def report(what: str, spent: float) -> None:
            bar.update(task, completed=spent, description=what)

        return measure_card(measured, report=report, **settings)
