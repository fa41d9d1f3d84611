"""The networks that benchmarks/attacks.py attacks, each with its images."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import MNIST

from intriguing.checkpoints import load_model
from intriguing.models import ProgramClassifier

Images = tuple[Tensor, Tensor]  # (N, ...) in [0, 1], and labels (N,)
TRAINED_HERE = ("FC10(1e-4)", "FC10(1e-2)", "FC10(1)", "FC100-100-10", "conv")


@dataclass(frozen=True)
class Case:
    """A network and the images on which it is attacked."""

    name: str
    model: nn.Module
    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Case:
        return Case(self.name, self.model.to(device).eval(), self.inputs.to(device), self.labels.to(device))


def mnist(root: str, train: bool) -> Images:
    try:
        dataset = MNIST(root, train=train, download=False)
    except RuntimeError as error:
        raise SystemExit(f"error: {root} has no MNIST/raw; give its folder by --data or INTRIGUING_DATA") from error
    return dataset.data[:, None].float() / 255, dataset.targets


def read_images(path: Path) -> Images:
    """Read `images` (N, ...), bytes or numbers in [0, 1], and `labels` (N,) of an .npz file."""
    with np.load(path, allow_pickle=False) as file:
        missing = {"images", "labels"} - set(file.files)
        if missing:
            raise SystemExit(
                f"error: {path} lacks {' and '.join(sorted(missing))}; an .npz of images and labels is read"
            )
        images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"]).long()
    return (images.float() / 255 if images.dtype == torch.uint8 else images.float()), labels


def take_correct(name: str, model: nn.Module, images: Images, num: int) -> Case:
    """Choose the first images that a network classifies correctly, from the first ones of the set."""
    inputs, labels = images
    model, rows = model.eval(), []
    for start in range(0, len(inputs), 500):
        with torch.no_grad():
            answers = model(inputs[start : start + 500]).argmax(dim=1)
        rows += ((answers == labels[start : start + 500]).nonzero()[:, 0] + start).tolist()
        if len(rows) >= num:
            break
    if not rows:
        raise SystemExit(f"error: {name} classifies none of its {len(inputs)} images correctly")
    return Case(name, model, inputs[rows[:num]], labels[rows[:num]])


def published(path: Path, names: Sequence[str], root: str, images: Path | None, num: int) -> Iterator[Case]:
    """Load networks from a Python file that has NETWORKS, name -> data set, and load(name) -> module.

    The data set "mnist" is read from the data folder. For another one, say "cifar10", the file has a function
    exact_cifar10() that returns images in [0, 1] and labels, or --images-file gives them.
    """
    file = import_file(path)
    known: dict[str, str] = dict(file.NETWORKS)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"error: {path} has no network {unknown[0]!r}; it has {', '.join(known)}")
    sets: dict[str, Images] = {}
    for name in names or known:
        data = known[name]
        if data not in sets:
            sets[data] = images_of(data, file, root, images)
        yield take_correct(name, file.load(name), sets[data], num)


def images_of(data: str, file: ModuleType, root: str, images: Path | None) -> Images:
    if images is not None:
        return read_images(images)
    if hasattr(file, f"exact_{data}"):
        return getattr(file, f"exact_{data}")()
    if data == "mnist":
        return mnist(root, train=False)
    raise SystemExit(f"error: no images of {data!r}: give {file.__file__} a function exact_{data}(), or --images-file")


def import_file(path: Path) -> ModuleType:
    """Run a Python file that the caller names, and check that it has networks."""
    spec = importlib.util.spec_from_file_location(f"networks_of_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"error: {path} is no Python file; give one with NETWORKS and load(name)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    for name in ("NETWORKS", "load"):
        if not hasattr(module, name):
            raise SystemExit(
                f"error: {path} has no {name}; it needs NETWORKS, name -> data set, and load(name) -> module"
            )
    return module


def opened(checkpoints: Sequence[Path], programs: Sequence[Path], images: Images, num: int) -> Iterator[Case]:
    """Open checkpoints of train.py, and programs of torch.export or TorchScript."""
    for path in checkpoints:
        model = load_model(path)
        yield Case(str(model.label), model, images[0][:num], images[1][:num])
    for path in programs:
        shape, classes = images[0].shape[1:], int(images[1].max()) + 1
        program = ProgramClassifier(path=str(path), input_shape=tuple(shape), num_classes=classes)
        yield take_correct(path.stem, program, images, num)


def trained_here(names: Sequence[str], folder: Path, root: str, num: int) -> Iterator[Case]:
    train, test = (mnist(root, part) for part in (True, False))
    for name in names:
        yield Case(name, trained(name, folder, train), test[0][:num], test[1][:num])


def trained(name: str, folder: Path, train: Images) -> nn.Module:
    """A network by its name: built, trained with Adam, and kept in the folder for the next run."""
    known: dict[str, tuple[Callable[[], nn.Module], float, int]] = {
        "FC10(1e-4)": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 1e-5, 5),
        "FC10(1e-2)": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 5.5e-3, 5),
        "FC10(1)": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 0.37, 5),
        "FC100-100-10": (lambda: multilayer(100, 100), 5e-6, 20),
        "conv": (convolutional, 5e-6, 4),
    }
    if name not in known:
        raise SystemExit(f"error: no network {name!r} is trained here: {', '.join(known)}")
    build, decay, epochs = known[name]
    torch.manual_seed(0)
    model, path = build(), folder / f"{name}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    adam = torch.optim.Adam(model.parameters())
    for _ in range(epochs):
        for rows in torch.randperm(len(train[0])).split(100):
            loss = F.cross_entropy(model(train[0][rows]), train[1][rows])
            adam.zero_grad()
            (loss + decay * torch.stack([weight.square().sum() for weight in weights]).sum()).backward()
            adam.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model


def multilayer(*widths: int, pixels: int = 784, classes: int = 10) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths:
        layers += [nn.Linear(pixels, width), nn.Sigmoid()]
        pixels = width
    return nn.Sequential(*layers, nn.Linear(pixels, classes))


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(784, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
