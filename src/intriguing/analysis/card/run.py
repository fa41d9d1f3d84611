"""Make a card in its run folder: ``card.html``, and ``card.json`` or one file for each network."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from intriguing.analysis.card.card import RobustnessCard
from intriguing.analysis.card.compare import WORSE
from intriguing.analysis.card.job import CardJob
from intriguing.analysis.card.kept import keep, kept
from intriguing.analysis.card.measure import measure_card
from intriguing.analysis.card.page import page
from intriguing.analysis.card.words import length, main_numbers, percent
from intriguing.errors import UserError, plural
from intriguing.runs.folder import RunFolder, keep_others_out
from intriguing.runs.guard import run_folder
from intriguing.runs.jobs import finished_folder, run_of
from intriguing.runs.names import slug
from intriguing.storage.files import write_atomic
from intriguing.tracking.jobs import start_job

Progress = Callable[[str, int, int], None]
"""Takes what is measured, the steps that are done, and all steps."""
_STEPS = 100


def run_card(job: CardJob, *, measuring: Callable[[], AbstractContextManager[Progress | None]] = nullcontext) -> Path:
    """Measure every network of a job, write the page and the files; a finished card is skipped.

    Args:
        job: the card.
        measuring: context of the measurements; yields the callback for their progress, or None.

    Returns:
        The run folder.

    Raises:
        UserError: a network and its images do not fit each other, a folder that holds another run, or, with
            ``fail_if_worse``, a number that became worse.
    """
    torch.set_num_threads(job.threads)
    folder = finished_folder(job, "analyze")
    if folder is None:
        with keep_others_out(job.runs, "analyze", job.name), measuring() as progress:
            folder = _make(job, progress)
    print(f"the page: {folder / 'card.html'}", file=sys.stderr)
    if job.compare is not None:
        _judge(RobustnessCard.load(folder / "card.json"), job)
    return folder


def _make(job: CardJob, progress: Progress | None) -> Path:
    """Measure the networks that have no card yet, and write all.

    The folder is opened when the first card is there: a network that cannot be measured leaves no folder behind.
    """
    folder = run_folder(job.runs, "analyze", job.name) / "parts"
    found = [kept(folder / f"{place}.safetensors") for place in range(len(job.networks))]
    with ExitStack() as stack:
        run = None
        for place in range(len(job.networks)):
            card = found[place] or _measure(job, place, progress)
            run = run or stack.enter_context(run_of(job, "analyze"))
            if run.finished:
                return run.folder
            if found[place] is None and len(job.networks) > 1:
                keep(card, run.path(f"parts/{place}.safetensors"))
            found[place] = card
        assert run is not None
        _finish(job, run, [card for card in found if card is not None])
        shutil.rmtree(folder, ignore_errors=True)
        return run.folder


def _measure(job: CardJob, place: int, progress: Progress | None) -> RobustnessCard:
    """Measure one network, and compare it with the earlier card."""
    network = job.networks[place]
    subject = job.subject(network)
    reference = None
    if job.reference is not None:
        reference = job.subject(job.reference, passes=subject.passes, like=subject)

    def report(what: str, share: float) -> None:
        if progress is not None:
            done = round(_STEPS * (place + min(1.0, share)) / len(job.networks))
            progress(f"{network.name}: {what}", done, _STEPS)

    card = measure_card(subject, minutes=job.minutes, effort=job.effort, reference=reference, report=report)
    return card if job.compare is None else replace(card, comparison=card.compare(job.compare))


def _finish(job: CardJob, run: RunFolder, cards: list[RobustnessCard]) -> None:
    """Write the page and the files, and print the main numbers."""
    files = {"card.html": page(cards, command=job.command)}
    if len(cards) == 1:
        files["card.json"] = cards[0].json()
    else:
        names = [slug(one.stem) for one in job.networks]
        unique = names if len(set(names)) == len(names) else [f"{k}_{name}" for k, name in enumerate(names, 1)]
        files |= {f"cards/{name}.json": card.json() for name, card in zip(unique, cards, strict=True)}
    for name, content in files.items():
        write_atomic(run.path(name), content)
    _record(job, cards)
    result = {card.name: {"accuracy": card.accuracy.value, "seconds": card.seconds} for card in cards}
    run.finish(json.loads(json.dumps({"cards": result})), list(files))
    for card in cards:
        _show(card)


def _show(card: RobustnessCard) -> None:
    """Print the main numbers and the warnings."""
    print(card.name)
    for what, value, interval, reading in main_numbers(card):
        print(f"  {what}: {value}{f' ({interval})' if interval else ''} {reading}")
    for notice in card.warnings:
        print(f"  warning: {notice.text}; {notice.remedy}")
    for one in card.missing:
        print(f"  not measured: {one.part}: {one.reason}")


def _record(job: CardJob, cards: list[RobustnessCard]) -> None:
    """Log the main numbers to W&B."""
    with start_job(job, "analyze") as run:
        if run.active:
            rows = [
                [card.name, card.accuracy.value, None if card.l2 is None else card.l2.median.value] for card in cards
            ]
            run.log_table("analyze/card", ["network", "accuracy", "median L2 distance"], rows)


def _judge(card: RobustnessCard, job: CardJob) -> None:
    """Print what became worse, and raise where that is wanted."""
    worse = [one for one in card.comparison if one.verdict == WORSE]
    write = {True: length, False: percent}
    words = [
        f"{one.name} {write['distance' in one.name](one.old, interval=False)} -> "
        f"{write['distance' in one.name](one.new, interval=False)}"
        for one in worse
    ]
    against = f"{plural(len(worse), 'number')} of {len(card.comparison)} became worse than in {job.compared_with}"
    line = f"{against}: {', '.join(words)}" if worse else against
    if worse and job.fail_if_worse:
        raise UserError(line)
    print(line)
