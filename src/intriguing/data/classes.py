"""Number and name the classes of images whose folders are called by identifiers, as ImageNet's by WordNet's synsets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from intriguing.data.scanning import named
from intriguing.errors import UserError, did_you_mean

_SYNSETS = Path(__file__).with_name("imagenet_synsets.txt")
_FORMS = (
    'expected a line "n01440764 tench, Tinca tinca" for each class, in the order of the network\'s outputs (as in '
    'LOC_synset_mapping.txt), or JSON {"0": ["n01440764", "tench"], ...}'
)


@dataclass(frozen=True)
class Classes:
    """Hold the classes among which a network decides; a folder of images may hold a part of them.

    Attributes:
        folders: Names of the class folders; a label is an index into them.
        names: The classes in words, in the same order; empty where the folders' names say all.
    """

    folders: tuple[str, ...]
    names: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def imagenet_classes() -> Classes:
    """Return the 1,000 classes of ILSVRC 2012 in the order of their synsets, with torchvision's names."""
    from torchvision.models import AlexNet_Weights

    names = AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    return Classes(tuple(_SYNSETS.read_text(encoding="utf-8").split()), tuple(names))


def read_classes(file: str | Path) -> Classes:
    """Read the classes of a network, in the order of its outputs, from a text or a JSON file.

    Args:
        file: Lines of a folder's name and, if wanted, the class in words; or JSON, a mapping of each number to a pair
            of the two, or a list of folders' names.

    Raises:
        UserError: No such file, or one of another form.
    """
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.classes_file={file} cannot be read: {error}") from error
    try:
        pairs = _of_json(json.loads(text)) if text.lstrip()[:1] in ("{", "[") else _of_lines(text)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"data.classes_file={file} does not list classes: {_FORMS}") from error
    folders = tuple(folder for folder, _ in pairs)
    if twice := sorted({one for one in folders if folders.count(one) > 1}):
        raise UserError(f"data.classes_file={file} lists {named(twice)} more than once")
    if len(folders) < 2:
        raise UserError(f"data.classes_file={file} does not list classes: {_FORMS}")
    names = tuple(name for _, name in pairs)
    return Classes(folders, tuple(name or folder for folder, name in pairs) if any(names) else ())


def _of_lines(text: str) -> list[tuple[str, str]]:
    parts = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(part[0], part[1].strip() if len(part) > 1 else "") for part in parts]


def _of_json(content: Any) -> list[tuple[str, str]]:
    entries = [content[str(i)] for i in range(len(content))] if isinstance(content, dict) else content
    pairs = [(one, "") if isinstance(one, str) else tuple(one) for one in entries]
    if not all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs):
        raise ValueError
    return pairs


def class_number(wanted: str | int, folders: Sequence[str], names: Sequence[str]) -> int:
    """Find a class by its number, the name of its folder or its name in words.

    Args:
        wanted: Such as 9, "n01518878" or "ostrich"; upper and lower case count as one.
        folders: Names of the folders, in the order of the classes.
        names: The classes in words, in the same order.

    Raises:
        UserError: No class is called so, or more than one is.

    Example:
        >>> class_number("Ostrich", ["n01518878", "n01530575"], ["ostrich", "brambling"])
        0
    """
    text = str(wanted).strip().casefold()
    for known in (folders, names):
        found = [i for i, name in enumerate(known) if name.casefold() == text]
        if len(found) > 1:
            both = " and ".join(f"{folders[i]} ({i})" for i in found)
            raise UserError(f"{wanted} is the name of {both}: give one of these")
        if found:
            return found[0]
    if text.isdecimal() and int(text) < len(folders):
        return int(text)
    near = [name for name in dict.fromkeys(names) if text in name.casefold()]
    hint = f"; did you mean {named(near)}?" if near else did_you_mean(text, names)
    raise UserError(f"no class is called {wanted}{hint or f'; they are called {named(names)}'}")
