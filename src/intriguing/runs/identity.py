"""Identify a run by its resolved config without what cannot change its result, as config.yaml and as a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from intriguing.errors import UserError

MAX_BYTES = 1 << 20  # a resolved config is a few kB; more is no config
MAX_NAMED = 6  # keys named in a refusal
MAX_DEPTH = 50  # far above any config, far below Python's own limit

# What cannot change a result, by stage: keys of the composed config, each with all that lies below it. Every other key
# counts, also one that is added tomorrow.
_ANYWHERE = (
    *("runs", "name", "study", "tags", "logger", "threads", "hydra"),
    *(
        "data.root",
        "data.folder",
        "data.download",
        "data.workers",
        "data.classes_file",
    ),  # where the images lie; their content counts
)
NOT_IDENTITY: dict[str, tuple[str, ...]] = {
    "train": (
        *_ANYWHERE,
        *("resume", "test_curve"),
        # where and how it runs; the numbers are those of one process on one kind of device
        *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "deterministic")),
        *(f"trainer.{key}" for key in ("enable_progress_bar", "enable_model_summary", "log_every_n_steps")),
        *(f"trainer.{key}" for key in ("profiler", "num_sanity_val_steps")),
        # counts where it is used: as optimizer.lr, trainer.max_epochs, data.batch_size and weight_decay
        *("model.recipe", "model.spell_lambda"),
    ),
    # of a checkpoint, its sha256 counts, with the class that it names
    "attack": (*_ANYWHERE, "checkpoints", "model", "shard", "trainer"),
    "analyze": (
        *_ANYWHERE,
        "networks",
        "sets",
        "processes",
        "launcher",
        "model",
        "batch_size",
        "trainer",
    ),  # of runs, their content counts
}


def identity_of(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Return the part of a config that decides the result of its run: all of it but ``NOT_IDENTITY[stage]``.

    Args:
        config: the whole composed config, resolved to plain values.
        stage: ``train``, ``attack`` or ``analyze``.

    Returns:
        A copy with text keys, to which a stage adds what no config says: the content of a folder of images, the
        sha256 of a checkpoint.
    """
    return _without(config, NOT_IDENTITY[stage])


def _without(value: Any, left_out: tuple[str, ...], prefix: str = "") -> Any:
    """Copy a value without the keys that are left out, nor the mappings that are empty without them."""
    if isinstance(value, list | tuple):
        return [_without(item, left_out, f"{prefix}#.") for item in value]
    if not isinstance(value, Mapping):
        return value
    kept = {}
    for key, item in value.items():
        if (name := f"{prefix}{key}") not in left_out:
            copied = _without(item, left_out, f"{name}.")
            if copied != {} or item == {}:
                kept[str(key)] = copied  # a callback may have numbers as keys: {4: 2}
    return kept


class _Loader(yaml.SafeLoader):
    """Load plain YAML only: an alias can blow a small file up to any size, and no config of a run has one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


def plain(value: Any, where: str = "identity", depth: int = 0) -> Any:
    """Copy a value as dict (text keys), list, str, int, float, bool and None only.

    Raises:
        TypeError: another type is inside; the message says where.
        ValueError: nested deeper than any config.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"expected a value nested at most {MAX_DEPTH} deep, got a deeper one")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: expected text keys, got {key!r}")
        return {key: plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{position}]", depth + 1) for position, item in enumerate(value)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{where}: expected a plain value (text, number, bool, None, list, dict), got {type(value).__name__}"
    )


def canonical(value: Any) -> str:
    """Write JSON with sorted keys in which equal numbers are equal texts (1 and 1.0, 1e-4 and 0.0001)."""
    return json.dumps(_equal_numbers(plain(value)), sort_keys=True, separators=(",", ":"))


def _equal_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _equal_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_equal_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def identity_sha256(identity: dict[str, Any]) -> str:
    """Return the sha256 of an identity; equal identities have equal ones, whatever the order of their keys."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """List the keys in which identities differ: ``seed is 0 there and 1 here``. Empty when they are equal."""
    old, new = _flat(there), _flat(here)
    keys = [*new, *(key for key in old if key not in new)]
    found = []
    for key in keys:
        was = canonical(old[key]) if key in old else "absent"
        now = canonical(new[key]) if key in new else "absent"
        if was != now:
            found.append(f"{key} is {_short(was)} there and {_short(now)} here")
    return [*found[:MAX_NAMED], f"and {len(found) - MAX_NAMED} more"] if len(found) > MAX_NAMED else found


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def dump_config(identity: dict[str, Any]) -> str:
    """Write an identity as YAML."""
    # escaped rather than as it is: PyYAML writes some line separators unescaped and reads them back as spaces
    return yaml.safe_dump(plain(identity), sort_keys=False, width=120)


def load_config(path: Path) -> dict[str, Any]:
    """Read the identity in a ``config.yaml``.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read, or is no plain config.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES} bytes: no config of a run")
        loaded = yaml.load(content.decode(), Loader=_Loader)
        config = plain(loaded)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as a run's config ({type(error).__name__}); it is damaged") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no config: expected a mapping, got {type(config).__name__}")
    return config
