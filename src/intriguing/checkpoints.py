"""The only place that opens checkpoints.

A checkpoint is data: every byte is checked before it is read (`intriguing.checkpoint_file`), the network is looked up
by name in the project's own registry, and built only once its sizes are known to be those of the stored weights.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from intriguing import __version__
from intriguing.commands import command_name
from intriguing.errors import UserError, shown
from intriguing.models import CHECKPOINT_FORMAT, REGISTRY, Classifier, ModuleClassifier, ProgramClassifier
from intriguing.models.module import name_of
from intriguing.runs.names import natural_key
from intriguing.storage import checkpoint_file
from intriguing.storage.files import file_sha256, replacing
from intriguing.tracking.artifact import PREFIX, fetch_checkpoint

HEADER = {"version", "model", "data", "seed"}  # what every checkpoint of the project says of itself
# what a checkpoint may say about its images (`data.ImageData.description`)
DATA = {
    "name": str,
    "split": str,
    "split_seed": int,
    "validation": int,
    "only": int | None,
    "folder": str,
    "size": int | list,
    "resize": int | None,
    "channels": int,
    "target": str,
    "classes": list,
    "names": list,
    "counts": dict,
    "files": dict,
    "shape": list,
    "num_classes": int,
    "one_against_rest": str,
}
CONTENT = ("classes", "counts", "files")  # of folders of images
MAX_SIDE = 1 << 12  # pixels of an image's side
MAX_SETTINGS = 10_000  # values among a network's settings, for example widths
MAX_PIXELS = 1 << 26


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network with what identifies it.

    Attributes:
        path: the checkpoint.
        sha256: digest of the file.
        seed: seed of its training.
        model: the network, on the CPU, in eval mode; see `load_model`.
    """

    path: Path
    sha256: str
    seed: int
    model: Classifier


Network = nn.Module | Callable[..., nn.Module] | str | Path
"""A class, or a function that builds modules, or a module; or the file of a program."""


def load_model(
    path: str | Path, *, network: Network | Sequence[Network] | None = None, sha256: str | None = None
) -> Classifier:
    """Load a trained network, on the CPU, in eval mode.

    Args:
        path: a checkpoint of train.py (``model.ckpt``, ``checkpoints/best.ckpt``, ``checkpoints/last.ckpt``).
        network: the class of a network that was trained with ``model=module`` or as a ``ModuleClassifier``, whose
            settings are in the checkpoint; or a module to fill with its weights; or a list of classes, of which the one
            that the checkpoint names is taken. Of a network of ``model=file`` the file of its program. Networks of the
            project need none.
        sha256: digest of the file that its run recorded; None if no run did.

    Returns:
        The LightningModule; ``.label`` names it, ``.hparams`` holds its settings, ``.trained_on`` says which images it
        was trained on (``data.ImageData.description``), with the names of its classes where they came from folders.

    Raises:
        UserError: no file, an empty, truncated, changed or foreign one, or one from another version of the project; or
            a network of a class that is not given. No class is ever imported because a file names it.
    """
    return load_network(path, network=network, sha256=sha256).model


def load_network(
    path: str | Path, *, network: Network | Sequence[Network] | None = None, sha256: str | None = None
) -> TrainedNetwork:
    """Load a trained network with what identifies it; the file is opened and hashed once. See `load_model`."""
    checkpoint, found = _read(Path(path), sha256)
    header, settings = checkpoint["intriguing"], dict(checkpoint["hyper_parameters"])
    architecture, weights = REGISTRY[header["model"]], checkpoint["state_dict"]
    if architecture is ModuleClassifier:
        settings["network"] = _class_of(path, settings.pop("target", None), _each(network))
    if architecture is ProgramClassifier:
        settings["path"] = _program_of(Path(path), settings.get("program"), _each(network))
    try:
        _check_shapes(architecture, settings, weights)
        model = architecture(**settings)
        model.load_state_dict(weights)
        model.trained_on = header["data"]
    except (TypeError, ValueError, RuntimeError, KeyError, OverflowError, AttributeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} does not fit {_called(settings, header)} of version {__version__} (it was written by version "
            f"{shown(header['version'])}): {shown(why, 200)}"
        ) from error
    return TrainedNetwork(Path(path), found, int(header["seed"] or 0), model.eval())


def refuse_unused(models: Iterable[nn.Module], given: Sequence[Network]) -> None:
    """Refuse classes and programs by which none of the networks was opened.

    Raises:
        UserError: no network is a user's.
    """
    if given and not any(isinstance(model, ModuleClassifier) for model in models):
        key = "model.path" if isinstance(given[0], str | Path) else "model._target_"
        raise UserError(f"{key} changes nothing here: the checkpoints hold networks of the project alone; leave it out")


def _called(settings: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    return name_of(settings["network"]) if "network" in settings else str(settings.get("path", header["model"]))


def _check_shapes(architecture: type[Classifier], settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Compare the shapes of the weights with those that the settings ask for, before there is memory for the latter.

    Raises:
        ValueError: they differ.
    """
    given = settings.get("network")
    if isinstance(given, nn.Module) or architecture is ProgramClassifier:
        return
    try:
        with torch.device("meta"):
            sizes = architecture(**{**settings, "spectral_penalty": 0.0}).state_dict()
    except Exception:  # code of the user's that computes with its weights
        if given is None:
            raise
        return
    for name, value in sizes.items():
        if name not in weights or weights[name].shape != value.shape:
            there = tuple(weights[name].shape) if name in weights else "nothing"
            raise ValueError(f"{name} should have shape {tuple(value.shape)}, the file has {there}")


def _each(given: Network | Sequence[Network] | None) -> list[Network]:
    return list(given) if isinstance(given, list | tuple) else [] if given is None else [given]  # pyright: ignore


def _program_of(path: Path, wanted: Any, given: Sequence[Network]) -> str:
    """Choose the file of the program that a checkpoint names among those that the caller gave.

    Raises:
        UserError: it is not among them.
    """
    wanted = wanted if isinstance(wanted, dict) else {}
    files = [Path(one).expanduser() for one in given if isinstance(one, str | Path)]
    for file in files:
        if file.is_file() and file_sha256(file) == wanted.get("sha256"):
            return str(file)
    has = f", and {', '.join(map(str, files))} {'is another' if len(files) == 1 else 'are others'}" if files else ""
    copies = [file for file in sorted(path.parent.glob("program.*")) if file.is_file()]
    give = copies[0] if copies else "<file>"
    raise UserError(
        f"{path} holds a network of the program {shown(wanted.get('name'))} (sha256 {shown(wanted.get('sha256'))[:8]})"
        f"{has}: no program is run because a file names it, so give model.path={give}, or in Python "
        f"load_model(path, network='{give}')"
    )


def _class_of(path: str | Path, wanted: Any, given: Sequence[Network]) -> Network:
    """Choose the class that a checkpoint names among those that the caller gave.

    A class that lies elsewhere now is found by the last part of its name.

    Raises:
        UserError: it is not among them.
    """
    wanted = shown(wanted) if isinstance(wanted, str) else "unknown"
    last = wanted.rpartition(".")[2]
    classes = [one for one in given if not isinstance(one, str | Path)]
    names = [name_of(one) for one in classes]
    for fits in (lambda name: name == wanted, lambda name: name.rpartition(".")[2] == last):
        if chosen := [one for one, name in zip(classes, names, strict=True) if fits(name)]:
            return chosen[0]
    has = f", and {', '.join(names)} {'was' if len(names) == 1 else 'were'} given" if names else ""
    raise UserError(
        f"{path} holds a network of the class {wanted}{has}: no class is imported because a file names it, so give "
        f"model._target_={wanted}, or in Python load_model(path, network={last})"
    )


def find_checkpoints(patterns: str | Sequence[str], *, runs: str = "runs", wandb_mode: str | None = None) -> list[Path]:
    """Find the checkpoints that patterns match, in natural order, each once.

    Args:
        patterns: a file, a run folder (its ``model.ckpt``), a glob of either, ``wandb:entity/project/artifact:alias``,
            or a list of them.
        runs: the folder of all runs, which keeps what is fetched from W&B.
        wandb_mode: ``offline`` or ``disabled``: nothing is fetched; None: as WANDB_MODE says.

    Raises:
        UserError: a pattern that matches nothing, or an artifact that cannot be had.
    """
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else list(patterns):
        if str(pattern).startswith(PREFIX):
            found[fetch_checkpoint(str(pattern), runs, mode=wandb_mode)] = None
            continue
        text = str(Path(str(pattern)).expanduser())
        matches = [text] if Path(text).exists() else glob.glob(text, recursive=True)
        files = [path / "model.ckpt" if path.is_dir() else path for path in map(Path, matches)]
        files = [path for path in files if path.is_file()]
        if not files:
            raise UserError(
                f"checkpoints={pattern} matches no checkpoint; expected a file, a run folder or a glob such as "
                "'runs/train/*/model.ckpt'"
            )
        found |= dict.fromkeys(sorted(files, key=lambda path: natural_key(str(path))))
    return list(found)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read and verify a checkpoint; nothing in it is executed.

    Raises:
        UserError: see ``load_model``.
    """
    return _read(Path(path))[0]


def _read(path: Path, recorded: str | None = None) -> tuple[dict[str, Any], str]:
    """Read and verify a checkpoint, and return it with the digest of its file."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}; {command_name('train')} writes runs/train/<name>/model.ckpt")
    checkpoint, sha256 = checkpoint_file.read_with_sha256(path, recorded)
    header = checkpoint.get("intriguing")
    if not isinstance(header, dict) or not header.keys() >= HEADER:
        raise UserError(f"{path} is a foreign checkpoint: {command_name('train')} did not write it")
    written = header.get("format")
    if written != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path} was written in format {shown(written)} (version {shown(header['version'])} of the project); "
            f"this version, {__version__}, reads format {CHECKPOINT_FORMAT}: train the network again, or read it with "
            "the version that wrote it"
        )
    if not isinstance(header["model"], str) or header["model"] not in REGISTRY:
        known = ", ".join(sorted(REGISTRY))
        raise UserError(f"{path} holds the unknown network {shown(repr(header['model']))}; known: {known}")
    for wrong in (_wrong_settings(checkpoint), _wrong_data(header, checkpoint), _wrong_weights(checkpoint)):
        if wrong:
            raise UserError(f"{path} is no checkpoint that {command_name('train')} wrote: {wrong}")
    return checkpoint, sha256


def _wrong_data(header: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> str | None:
    """What is wrong with what is said about the images, if anything."""
    data, seed = header["data"], header["seed"]
    if not isinstance(data, dict | None) or not isinstance(seed, int | None):
        return "its data and seed must be a mapping and a whole number"
    for key, value in (data or {}).items():
        if key not in DATA or not isinstance(value, DATA[key]):
            return f"its data has {shown(key)}={shown(value)}"
        sides = value if key == "size" and isinstance(value, list) else [value]
        if key in ("size", "resize") and not all(
            type(one or 1) is int and 1 <= (one or 1) <= MAX_SIDE for one in sides
        ):
            return f"its data has {key}={shown(value)}, more than {MAX_SIDE} pixels or fewer than 1"
    if data and not data.keys().isdisjoint(CONTENT):
        return _wrong_content(data, checkpoint["hyper_parameters"].get("num_classes"))
    return None


def _wrong_content(data: Mapping[str, Any], num_classes: Any) -> str | None:
    """What is wrong with the classes, counts and files of a folder of images (`image_folder.ImageFolders.content`)."""
    classes, counts, files = (data.get(key) for key in CONTENT)
    if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
        return "its data has no names of classes"
    if len(set(classes)) < len(classes) or (2 if "one_against_rest" in data else len(classes)) != num_classes:
        return f"its data names {len(set(classes))} classes, its network has {shown(num_classes)}"
    names = data.get("names", classes)
    if len(names) != len(classes) or not all(isinstance(one, str) for one in names):
        return "its data names its classes in words that are not texts, or not as many"
    if not isinstance(files, dict) or not all(isinstance(files.get(part), str) for part in ("train", "test")):
        return "its data has no digests of the lists of files"
    if not isinstance(counts, dict) or not all(_counts(counts.get(part), len(classes)) for part in ("train", "test")):
        return "its data has no counts of images of each class"
    return None


def _counts(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(type(one) is int and one >= 0 for one in value)


def _wrong_settings(checkpoint: Mapping[str, Any]) -> str | None:
    settings = checkpoint.get("hyper_parameters")
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        return "it has no settings of a network"
    left: list[Any] = [settings]
    count = 0
    while left:
        value = left.pop()
        if isinstance(value, dict | list | tuple):
            count += len(value)
            if count > MAX_SETTINGS:
                return f"its network has more than {MAX_SETTINGS} settings"
            left += value.values() if isinstance(value, dict) else value
        elif isinstance(value, Tensor) or (isinstance(value, float) and not math.isfinite(value)):
            return "a setting of its network is neither a finite number nor a text nor a list"
    for key in ("weights", "features"):
        if settings.get(key) is not None:
            return f"its settings ask for the {key} {shown(settings[key])}, where a checkpoint holds its own"
    shape = settings.get("input_shape", [1])
    sides = isinstance(shape, list | tuple) and all(isinstance(side, int) and side >= 1 for side in shape)
    if not sides or math.prod(shape) > MAX_PIXELS:
        return f"its images have the shape {shown(shape)}"
    return None if isinstance(settings.get("label"), str) else "its network has no label"


def _wrong_weights(checkpoint: Mapping[str, Any]) -> str | None:
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, dict):
        return "it has no weights"
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            return f"{shown(name)} among its weights is no tensor"
        if value.is_floating_point() and not bool(value.isfinite().all()):
            return f"its weights {shown(name)} are not all finite"
    return None


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place and move it there, so that a kill leaves the old file or the new one.

    Reads with every check of ``read_checkpoint``, and removes nothing but checkpoints in its folders.

    Args:
        folders: of the run, and where else its checkpoints are written.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = [folder.resolve() for folder in folders]

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint and its digest."""
        path = Path(path)
        with replacing(path) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w+b") as file:
                try:
                    checkpoint_file.write(checkpoint, file)
                except RuntimeError as error:  # torch's own words for what the file could not take
                    raise error.__context__ or error from None
                if odd := checkpoint_file.odd_names(file):
                    raise UserError(
                        f"the state of a callback or of the training holds a {odd[0]}, which no checkpoint may: the "
                        "state_dict of a callback must hold numbers, texts, lists, dicts and tensors alone"
                    )

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read and verify a checkpoint."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint that lies in one of the folders."""
        # Which file was the best one so far is read from a checkpoint, so it may be any path.
        path = Path(path)
        if path.suffix == ".ckpt" and any(map(path.resolve().is_relative_to, self.folders)):
            path.unlink(missing_ok=True)
