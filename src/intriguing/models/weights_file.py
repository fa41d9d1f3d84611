"""Read the weights of a trained network from a file, without running anything in it, and fill a module with them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""Entries that training programs keep a state dict under, in the order in which they are looked for."""
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
"""Entries of an average of the weights, which is taken before the weights themselves where a file has both."""
_PREFIXES = ("module.", "model.", "network.", "net.", "_orig_mod.", "ema_model.", "ema.")
"""What wrappers (DataParallel, a LightningModule, torch.compile, an average) put before every name."""
_NAMED = 3  # keys that a message names


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a file of ``torch.save`` or of safetensors.

    A training program may have wrapped it: ``{"state_dict": ...}`` and the like are looked into, and of a file that
    holds averaged weights (EMA) beside the last ones the averaged are taken.

    Args:
        path: ``.safetensors``, or any other name of a file that ``torch.load(weights_only=True)`` reads.

    Raises:
        ValueError: no file, another kind of file, or one that holds no tensors by name; the message says what to save.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"there is no file {path}; expected one of a state dict (.pt, .pth, .safetensors)")
    content = _safetensors(file) if file.suffix == ".safetensors" else _torch_file(file)
    for key in (*_AVERAGED, *_WRAPPERS):
        inner = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(inner, Mapping) and (key not in _AVERAGED or _is_state_dict(inner)):
            content = inner
            break
    if not _is_state_dict(content):
        raise ValueError(f"{path} is not a state dict: expected tensors by name, as torch.save(net.state_dict(), file)")
    return dict(content)


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(one, Tensor) for one in content.values())


def _safetensors(file: Path) -> Any:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file} is no file of safetensors, or damaged: {error}") from error


def _torch_file(file: Path) -> Any:
    if _is_program(file):
        raise ValueError(f"{file} is a program, not a state dict: it is opened by model=file model.path={file}")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} is not a state dict that loads safely (weights_only=True): a pickled module, or other objects, "
            "run code when they are read, so they are not read here; where the network is, save "
            "torch.save(net.state_dict(), file), or torch.export.save(torch.export.export(net, (images,)), 'net.pt2') "
            "for model=file"
        ) from error
    except (OSError, EOFError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{file} is not a state dict that loads safely (weights_only=True), or damaged") from error


def _is_program(file: Path) -> bool:
    """Return whether a file is one of torch.export or TorchScript."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith(("/archive_format", "constants.pkl")) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def fill(module: nn.Module, found: Mapping[str, Tensor], path: str | Path) -> None:
    """Load weights into a module, with the names that wrappers have lengthened.

    Args:
        module: the module.
        found: tensors by name.
        path: where they come from, for messages.

    Raises:
        ValueError: names that are missing, that are not the module's, or tensors of another shape.
    """
    own = module.state_dict()
    named = _unwrapped(found, set(own))
    missing, unknown = sorted(own.keys() - named.keys()), sorted(named.keys() - own.keys())
    if missing or unknown:
        parts = [
            f"{len(keys)} {word} ({_listed(keys)})"
            for keys, word in ((missing, "missing"), (unknown, "unexpected"))
            if keys
        ]
        raise ValueError(f"the weights {path} do not fit the network: {' and '.join(parts)}")
    for name, value in named.items():
        if value.shape != own[name].shape:
            raise ValueError(
                f"the weights {path} do not fit the network: {name} has shape {tuple(value.shape)} there and "
                f"{tuple(own[name].shape)} here"
            )
    module.load_state_dict(named)


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + ", ..." * (len(keys) > _NAMED)


def _unwrapped(found: Mapping[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """Cut from names what wrappers have put before them, if more of them are the module's without it.

    What lies beside the wrapped module (the count of an average) is left out; a wrapper may hold another.
    """
    best = dict(found)
    current = dict(found)
    for _ in range(3):
        candidates = [
            {name.removeprefix(prefix): value for name, value in current.items() if name.startswith(prefix)}
            for prefix in _PREFIXES
        ]
        current = max(candidates, key=lambda one: (len(own & one.keys()), len(one)))
        if len(own & current.keys()) > len(own & best.keys()):
            best = current
    return best


def fill_but_last(module: nn.Module, found: Mapping[str, Tensor], path: str | Path) -> tuple[str, ...]:
    """Load weights of a whole network; those of the last layer may be for another number of classes.

    Args:
        module: the network.
        found: tensors by name.
        path: where they come from, for messages.

    Returns:
        The layers that stay random: none, or the last one.

    Raises:
        ValueError: names that are missing, or tensors of another shape.
    """
    own = module.state_dict()
    named = _unwrapped(found, set(own))
    last = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    kept = {name: named[name] for name in own if name in named and named[name].shape == own[name].shape}
    if wrong := [name for name in own if name not in kept and name not in (f"{last}.weight", f"{last}.bias")]:
        raise ValueError(f"the weights {path} do not fit: {wrong[0]} is missing or of another shape")
    module.load_state_dict(own | kept)
    return () if kept.keys() >= {f"{last}.weight"} else (last,)


def fill_part(module: nn.Module, found: Mapping[str, Tensor], path: str | Path) -> tuple[str, ...]:
    """Load the weights of some layers of a network, such as its convolutions; the others stay as they are.

    Args:
        module: the network.
        found: tensors by name.
        path: where they come from, for messages.

    Returns:
        The layers with weights that stay as they are.

    Raises:
        ValueError: names that are not the module's, or tensors of another shape.
    """
    own = module.state_dict()
    named = _unwrapped(found, set(own))
    for name, value in named.items():
        if name not in own:
            raise ValueError(f"the weights {path} do not fit: the network has no {name}")
        if value.shape != own[name].shape:
            raise ValueError(
                f"the weights {path} do not fit: {name} has shape {tuple(value.shape)} there and "
                f"{tuple(own[name].shape)} here"
            )
    module.load_state_dict(own | named)
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in own if name not in named))
