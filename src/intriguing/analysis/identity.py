"""Identity of a trained network: every setting of its run but the seed. Only runs of equal identity are pooled."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from intriguing.runs.identity import canonical

MOST_SHOWN = 4
"""Settings that are all shown where they differ; of more, only as many as it takes to distinguish the networks."""
_DATA = ("data.name", "data.folder", "data.classes")
_FIRST = (*_DATA, "split.name")
"""Settings that are shown alone where they suffice: other data and splits bring other rates and sizes with them."""
_CONTINUED = "ckpt_epochs"
"""Key of the epochs that a network was trained for before its run, in a run that goes on from a checkpoint."""
_START = ("ckpt_path", _CONTINUED)
_PROVIDED = re.compile(r"^(?:torch\.optim\.(?:lr_scheduler\.)?|intriguing\.models\.optimization\.)(?=\w+$)")
"""Modules whose classes are shown by their names alone, which are different in all of them."""
_PREFIXES = ("model.settings.", "model.", "trainer.", "callbacks.", "data.")
_WORD = re.compile(r'"(?!(?:true|false|null)")([A-Za-z$][^"]*)"')
"""A text as JSON that is no less clear without its quotes."""
_DIGEST = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
"""A sha256, of which the first eight digits are shown."""


@dataclass(frozen=True)
class Penalty:
    """Describe the spectral penalty of a training: its kind ("log_product", "margin") and strength."""

    kind: str
    strength: float

    @property
    def name(self) -> str:
        """The word for it in labels."""
        return "margin" if self.kind == "margin" else "penalty"


@dataclass(frozen=True, kw_only=True)
class NetworkId:
    """Identify a trained network by every setting of its run that changes the result.

    Two identities are equal if and only if their runs differ in nothing but the seed.

    Attributes:
        label: the network's name in tables.
        settings: the run's config as sorted pairs of a key ("trainer.max_epochs") and a value as JSON, without the
            seed and without keys of value None; and the network's input_shape and num_classes, where it has them.
        seed: the run's seed, which is not compared.
    """

    label: str
    settings: tuple[tuple[str, str], ...]
    seed: int = field(compare=False)

    @classmethod
    def of(
        cls, label: str, config: Mapping[str, Any], module: object = None, *, epochs_before: int | None = None
    ) -> NetworkId:
        """Read the identity from a run's resolved config and its network.

        Args:
            label: the network's name in tables.
            config: nested settings of the run; any keys.
            module: the network.
            epochs_before: epochs of the checkpoint that the run went on from; None without one.
        """
        seed = int(config.get("seed", 0))
        found = _flat({key: value for key, value in config.items() if key != "seed"})
        if not float(found.get("spectral_penalty.value", 0)):
            found = {key: value for key, value in found.items() if not key.startswith("spectral_penalty.")}
        for key in found:
            # A part that is seeded with the run's seed (${seed}) is equal in all seeds of the run.
            if key.endswith(".seed") and key != "split.seed" and found[key] == str(seed):
                found[key] = '"${seed}"'
        if epochs_before is not None:
            found[_CONTINUED] = canonical(epochs_before)
        for key in ("input_shape", "num_classes"):
            if (value := getattr(module, key, None)) is not None:
                found[key] = canonical(value)
        return cls(label=label, settings=tuple(sorted(found.items())), seed=seed)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a setting by its key, or the default where it is missing or None."""
        text = dict(self.settings).get(key)
        return default if text is None else json.loads(text)

    def without(self, *prefixes: str) -> tuple[tuple[str, str], ...]:
        """List the settings whose keys do not begin with any of these: those that a family of networks shares."""
        return tuple(pair for pair in self.settings if not pair[0].startswith(prefixes))

    @property
    def name(self) -> str:
        """The architecture's name: the label without weight decay, penalty and split."""
        return str(self.get("model.label", self.label))

    @property
    def architecture(self) -> tuple[tuple[str, str], ...]:
        """Settings of the network itself, with the shape of its inputs and the number of its classes."""
        return tuple(pair for pair in self.settings if pair[0].startswith(("model.", "input_shape", "num_classes")))

    @property
    def weight_decay(self) -> tuple[float, ...]:
        """Lambda, one per layer; empty if the config has none."""
        value = self.get("weight_decay.value", ())
        return tuple(float(v) for v in value) if isinstance(value, Sequence) else (float(value),)

    @property
    def penalty(self) -> Penalty | None:
        """Spectral penalty of the training; None without one."""
        strength = float(self.get("spectral_penalty.value", 0))
        return Penalty(str(self.get("spectral_penalty.kind", "")), strength) if strength else None

    @property
    def split(self) -> str:
        """Part of the training images that the network saw: full, p1 or p2."""
        return str(self.get("split.name", "full"))


def labels_apart(networks: Mapping[str, NetworkId]) -> dict[str, str]:
    """Label networks so that only seeds of one network share a label.

    Args:
        networks: identity by the name of the run. Identities, not labels, decide which belong together.

    Returns:
        Label by name of the run. Networks of different settings with equal labels get the settings that differ after
        the label, several runs of one identity and seed the run's name.
    """
    ids = list(networks.values())
    labels = distinct_labels([one.label for one in ids], [dict(one.settings) for one in ids])
    seeds = Counter((label, one.seed) for label, one in zip(labels, ids, strict=True))
    repeated = {label for (label, _), count in seeds.items() if count > 1}
    return {
        name: f"{label} [{name}]" if label in repeated else label for name, label in zip(networks, labels, strict=True)
    }


def distinct_labels(labels: Sequence[str], settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Append to equal labels the settings that differ among them, so that equal labels mean equal settings.

    Args:
        labels: one per network.
        settings: keys and values as JSON, one mapping per network.
    """
    found = list(labels)
    for label in {label for label, count in Counter(labels).items() if count > 1}:
        rows = [i for i, one in enumerate(labels) if one == label]
        keys = _distinguishing([settings[i] for i in rows])
        for i in rows:
            found[i] = label + "".join(_words(key, settings[i]) for key in keys)
    return found


def differences(first: NetworkId, second: NetworkId, *besides: str) -> str:
    """Name the settings in which two networks differ, with the first's values: "1 epoch, learning rate 0.1".

    Args:
        first: the network whose values are named.
        second: the network it is compared with.
        besides: beginnings of keys that are left out.
    """
    one, two = dict(first.without(*besides)), dict(second.without(*besides))
    words = (_words(key, one).strip(" ,") or _USUAL[key] for key in _needed([one, two], _differing([one, two])))
    return ", ".join(dict.fromkeys(words))


_NAMED = 100  # classes that the name of a data set lists


def data_set(data: Mapping[str, Any]) -> str:
    """Name the data set that a config's ``data`` describes.

    Images in folders are named by their classes, a user's own by the class or function that gives them.
    """
    name = str(data.get("name", "unknown"))
    if name == "module":
        return str(data.get("target", name))
    if not (classes := data.get("classes")):
        return str(data.get("folder") or name)
    if len(classes) > _NAMED:
        return f"{name} ({len(classes):,} classes, {classes[0]} to {classes[-1]})"
    return f"{name} ({', '.join(classes)})"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Join nested keys by dots and write the values as JSON; None is left out."""
    found: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            found |= _flat(item, f"{prefix}{key}.")
        elif item is not None:
            found[f"{prefix}{key}"] = canonical(item)
    return found


def _differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """List the keys whose values are not all equal; a callback that some lack counts as one key."""
    found: dict[str, None] = {}
    for key in sorted({key for one in settings for key in one}):
        if len({one.get(key) for one in settings}) == 1:
            continue
        callback = ".".join(key.split(".")[:2]) if key.startswith("callbacks.") else ""
        having = [one for one in settings if _has(one, callback)]
        if callback and len(having) < len(settings):
            found[callback] = None
            if len({one.get(key) for one in having}) == 1:
                continue
        found[key] = None
    return sorted(found, key=lambda key: key in _START)


def _distinguishing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Choose the keys to show so that no two different settings look alike."""
    keys = _needed(settings, _differing(settings))
    chosen = _splitting(settings, [key for key in _FIRST if key in keys], [])
    if _kinds(settings, chosen) == _kinds(settings, keys):
        return chosen
    others = [key for key in keys if key not in chosen]
    return [*chosen, *others] if len(others) <= MOST_SHOWN else _splitting(settings, others, chosen)


def _needed(settings: Sequence[Mapping[str, str]], keys: Sequence[str]) -> list[str]:
    """Leave out keys that only follow from others: where a class differs, its own arguments; how Hydra builds it."""

    def follows(key: str) -> bool:
        part = key.rpartition(".")[0]
        of_class = f"{part}._target_" in keys and not key.endswith("_target_") and any(key not in s for s in settings)
        return key in ("ckpt_path", "model._target_") or key.endswith("._partial_") or of_class

    kept = list(keys)
    for key in filter(follows, keys):
        rest = [one for one in kept if one != key]
        kept = rest if _kinds(settings, rest) == _kinds(settings, kept) else kept
    return kept


def _splitting(settings: Sequence[Mapping[str, str]], keys: Iterable[str], chosen: list[str]) -> list[str]:
    """Add to ``chosen`` each key that distinguishes more of the settings than the keys before it."""
    for key in keys:
        if _kinds(settings, [*chosen, key]) > _kinds(settings, chosen):
            chosen = [*chosen, key]
    return chosen


def _kinds(settings: Sequence[Mapping[str, str]], keys: Sequence[str]) -> int:
    return len({tuple(_words(key, one) for key in keys) for one in settings})


def _has(settings: Mapping[str, str], callback: str) -> bool:
    return any(key.startswith(f"{callback}.") for key in settings)


def _words(key: str, settings: Mapping[str, str]) -> str:
    """Write a setting as it follows a label: ", 10 epochs", ", AdamW", " on P1", ", without back_feeding".

    Common settings are said in words, all others as key=value. What is usual is not said: "".
    """
    text = settings.get(key, "null")
    value = _DIGEST.sub(r"\1", _WORD.sub(r"\1", text))
    if key == "data.classes":
        value = ", ".join(json.loads(settings.get(key, '["images without classes"]')))
    if key in _DATA:
        return f" on {value}"
    if key == "split.name":
        return "" if value == "full" else f" on {value.upper()}"
    if key in _START:
        words = "continued from epoch" if key == _CONTINUED else "from checkpoint"
        return f", {words} {value}" if key in settings else ""
    if key.startswith("callbacks.") and key.count(".") == 1 and key not in settings:
        return f", {'with' if _has(settings, key) else 'without'} {key.removeprefix('callbacks.')}"
    if key in settings and key in _IN_WORDS:
        return ", " + _IN_WORDS[key](_PROVIDED.sub("", value))
    if key == "scheduler._target_":
        return ", constant learning rate"
    short = key.removesuffix(".value").removesuffix("._target_")
    for prefix in _PREFIXES:
        short = short.removeprefix(prefix)
    return f", {short}={value}"


_IN_WORDS: Mapping[str, Callable[[str], str]] = {
    "trainer.max_epochs": lambda value: f"{value} epoch{'s' * (value != '1')}",
    "optimizer.lr": "learning rate {}".format,
    "optimizer._target_": "{}".format,
    "scheduler._target_": "{} schedule".format,
}
_USUAL = {"split.name": "on the full training set"} | dict.fromkeys(_START, "trained from the start")
"""What is said of settings without words where the others' are told apart from them."""
