"""Use a network that was saved as a program: a file of ``torch.export`` or of TorchScript."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from intriguing.errors import error_message, shown
from intriguing.models.classifier import Classifier
from intriguing.models.module import ModuleClassifier
from intriguing.storage.checkpoint_file import odd_names


class ProgramClassifier(ModuleClassifier):
    """Classify with a network that was saved as a program, as it is: it is attacked and analysed, and not trained.

    A checkpoint holds the weights, and the name and sha256 of the file, but not the program: which code runs is decided
    by who gives ``path``, as with the class of a ``ModuleClassifier``. The run folder keeps a copy of the file.

    Args:
        path: a file of ``torch.export.save`` (.pt2) or ``torch.jit.save``.
        program: ``name`` and ``sha256`` of the file that a checkpoint was made with; None: any file.
        input: keyword by which the program takes its images; None: by position.
        output: key, position or attribute of the logits in what it returns; None: see ``ModuleClassifier``.
        **arguments: of ``Classifier``.

    Raises:
        ValueError: no file, another kind of file, or a program that does not give logits for the images.
    """

    name: ClassVar[str] = "file"
    is_trainable: ClassVar[bool] = False

    def __init__(
        self,
        path: str | Path,
        *,
        program: Mapping[str, str] | None = None,
        input: str | None = None,
        output: str | int | None = None,
        **arguments: Any,
    ) -> None:
        own = {"path": str(path), "program": program, "input": input, "output": output}
        Classifier.__init__(self, **own, **arguments)

    @classmethod
    def architecture_label(cls, settings: Mapping[str, Any], num_classes: int | None) -> str:
        """Return the name of the file, without its ending."""
        return Path(settings["path"]).stem

    def another(self) -> Self | None:
        """Return None: a file says nothing of the weights that training started from."""
        return None

    def build_network(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, path: str, program: Mapping[str, str] | None, input: str | None, output: str | int | None
    ) -> nn.Module:
        """Open the program, and check that it gives logits for the images; see the class for the arguments."""
        loaded, sha256 = read_program(path)
        if program is not None and program.get("sha256") != sha256:
            raise ValueError(f"{path} is not the file {shown(program.get('name'))} that the checkpoint was made with")
        self.hparams.update(path=None, program={"name": Path(path).name, "sha256": sha256})
        failures: list[ValueError] = []
        for size in dict.fromkeys((None, batch_size_of(loaded), 1)):  # it may have been made for batches of one size
            try:
                return self._adapted(Program(loaded, size), path, input, output)
            except ValueError as error:
                failures.append(error)
        raise failures[0]


class Program(nn.Module):
    """Run a loaded program on batches of any size.

    Args:
        program: of ``torch.jit.load`` or ``torch.export.load(...).module()``.
        batch_size: images that the program takes; the last batch is filled up with its last image. None: any number.
    """

    def __init__(self, program: nn.Module, batch_size: int | None = None) -> None:
        super().__init__()
        self.program, self.batch_size = program, batch_size

    def forward(self, *given: Tensor, **keywords: Tensor) -> Any:
        """Return what the program returns for the images, given by position or by keyword."""
        if self.batch_size is None:
            return self.program(*given, **keywords)
        (images,) = (*given, *keywords.values())
        parts = images.split(self.batch_size)
        found = [self._whole(part, list(keywords)) for part in parts]
        return _joined(found, len(images))

    def _whole(self, images: Tensor, keyword: list[str]) -> Any:
        missing = (self.batch_size or 0) - len(images)
        if missing > 0:
            images = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])
        return self.program(**{keyword[0]: images}) if keyword else self.program(images)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of a program that has one."""
        self.training = mode
        with suppress(NotImplementedError):  # exported programs have none
            self.program.train(mode)
        return self


def _joined(parts: list[Any], count: int) -> Any:
    """Join what a program returned for several batches, and leave out the rows that filled up the last one."""
    leaves, structures = zip(*map(tree_flatten, parts), strict=True)
    columns = zip(*leaves, strict=True)
    joined = [torch.cat(column)[:count] if isinstance(column[0], Tensor) else column[0] for column in columns]
    return tree_unflatten(joined, structures[0])


def batch_size_of(program: nn.Module) -> int | None:
    """Return the number of images that an exported program was made for; None of one for any number."""
    graph: Any = getattr(program, "graph", None)
    nodes = getattr(graph, "nodes", ()) if not isinstance(program, torch.jit.ScriptModule) else ()
    for node in nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        if isinstance(value, Tensor) and value.dim() and isinstance(value.shape[0], int):
            return value.shape[0]
    return None


def read_program(path: str | Path) -> tuple[nn.Module, str]:
    """Load a program of ``torch.export`` or TorchScript on the CPU.

    Returns:
        The program, and the sha256 of the file.

    Raises:
        ValueError: no file, a pickled module, or another kind of file; the message says what to save.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"there is no file {path}; model.path is one of torch.export.save or torch.jit.save")
    content = file.read_bytes()
    kind = _kind(content, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that change
            if kind == "TorchScript":
                loaded = torch.jit.load(io.BytesIO(content), map_location="cpu")
            else:
                loaded = torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # of any kind, in files that are damaged
        said = error_message(error)
        raise ValueError(f"{path} is no program of {kind} that this version of torch reads: {said}") from error
    return loaded, hashlib.sha256(content).hexdigest()


def _kind(content: bytes, path: str | Path) -> str:
    """Tell the kind of a file, and refuse pickled objects, which run code when they are read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
            if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
                return "TorchScript"
            if "archive_format" not in names and "serialized_exported_program.json" not in names:
                raise zipfile.BadZipFile
            for name in archive.namelist():
                _check_part(name, archive.read(name), path)
            return "torch.export"
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(
            f"{path} is no program of torch.export or TorchScript; a state dict is read with model=module "
            f"model._target_=<class> model.weights={path}, and a pickled module is not read, because that runs code: "
            "where the network is, save torch.save(net.state_dict(), file) or "
            "torch.export.save(torch.export.export(net, (images,)), 'net.pt2')"
        ) from error


def _check_part(name: str, part: bytes, path: str | Path) -> None:
    """Refuse pickled objects in a file of torch.export: torch reads parts that torch.save wrote, and runs them."""
    odd: list[str] = []
    if name.endswith("_config.json"):
        pickled = (json.loads(part).get("config") or {}).values()
        odd = [str(one.get("path_name")) for one in pickled if one.get("use_pickle")]
    elif part.startswith(b"PK"):
        odd = odd_names(io.BytesIO(part))
    elif name.endswith((".pt", ".pkl")) and part:
        odd = [name]
    if odd:
        raise ValueError(
            f"{path} holds pickled objects ({shown(odd[0])}), which run code when they are read; export the network "
            "with tensors alone as its inputs and constants"
        )
