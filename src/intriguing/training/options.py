"""Check the Trainer's options; an option that a run sets itself is refused, with the setting to use instead."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import lightning

from intriguing.errors import UserError, did_you_mean
from intriguing.validation import whole

# Options that the run sets itself: the values that change nothing, and what to do instead of another one.
_OWN: dict[str, tuple[tuple[Any, ...], str]] = {
    "logger": ((None, True), "metrics.csv is always written, and logger=default or logger=csv says whether W&B is"),
    "callbacks": ((None, []), "callbacks are given as +callbacks.<name>={_target_: ...}"),
    "plugins": ((None, []), "the run sets its own, which writes checkpoints that survive a kill"),
    "default_root_dir": ((None,), "runs=... and name=... say where a run's files lie"),
    "enable_checkpointing": ((None, True), "a run goes on from its checkpoints, and model.ckpt is made from them"),
    "barebones": ((None, False), "it leaves out the checkpoints and the metrics that a run is recorded by"),
    "use_distributed_sampler": ((None, False), "each process already takes its share of every batch"),
    "overfit_batches": ((None, 0), "data.only=100 trains on the same 100 images again and again"),
}


def trainer_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options for ``lightning.Trainer`` without those that the run sets itself.

    Raises:
        UserError: an option that a recorded run cannot have.
    """
    for key, (harmless, instead) in _OWN.items():
        if options.get(key) not in harmless:
            raise UserError(f"trainer.{key}={options[key]} cannot be set: {instead}")
    options = {key: value for key, value in options.items() if key not in _OWN}
    refuse_unknown_options(options, "trainer.")
    strategy = str(options.get("strategy", "auto"))
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UserError(
            f"trainer.strategy={strategy} trains in processes that cannot write this run's records; take ddp"
        )
    if options.get("max_steps") not in (None, -1):
        options["max_steps"] = whole("trainer.max_steps", options["max_steps"], 1)
        # Each epoch makes at least one step, so where the steps alone are given, the epochs are no limit.
        options["max_epochs"] = options["max_steps"] if options["max_epochs"] is None else options["max_epochs"]
    limit = options.get("limit_train_batches")
    if limit == 0 and limit is not False and options["max_epochs"] != 0:
        raise UserError(
            f"trainer.limit_train_batches={limit} leaves nothing to train on; give at least 1, or trainer.max_epochs=0 "
            "for a network as it comes"
        )
    return options


def refuse_unknown_options(given: Iterable[str], section: str = "") -> None:
    """Refuse an option that ``lightning.Trainer`` does not have.

    Args:
        given: names of options.
        section: what stands before the names in the message, with its point.

    Raises:
        UserError: there is one; the line names the nearest.
    """
    known = inspect.signature(lightning.Trainer).parameters
    if unread := [name for name in given if name not in known]:
        near = did_you_mean(unread[0], known, section)
        raise UserError(f"{section}{unread[0]} is read by nothing: lightning.Trainer has no such option{near}")
