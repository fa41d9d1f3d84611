"""Fit a network in memory: any module, any images, without a config."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import Dataset

from intriguing.callbacks import BackFeeding
from intriguing.callbacks.progress import Progress, ProgressCallback
from intriguing.checkpoints import AtomicCheckpointIO
from intriguing.data import DataSet, ImageData, from_datasets, from_given, from_tensors
from intriguing.errors import UserError
from intriguing.interface.global_state import restored
from intriguing.models import Classifier, ModuleClassifier, Scheduler
from intriguing.training.options import refuse_unknown_options
from intriguing.training.setup import quiet
from intriguing.validation import choice, whole

Data = lightning.LightningDataModule | Dataset[Any] | DataSet | Sequence[Any]
"""An ``ImageData`` or another LightningDataModule, a Dataset, or a pair: see `fit`."""

_OF_OPTIMIZERS = {
    "lr": "torch.optim.Adam, lr=1e-3",
    "learning_rate": "torch.optim.Adam, lr=1e-3",
    "momentum": "torch.optim.SGD, lr=0.1, momentum=0.9",
}


def fit(
    model: nn.Module,
    data: Data,
    *,
    weight_decay: float | Sequence[float] | None = None,
    epochs: int = 10,
    batch_size: int | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    scheduler: Scheduler | Callable[..., Any] | None = None,
    spectral_penalty: float | None = None,
    back_feeding: BackFeeding | None = None,
    split: str | None = None,
    validation: int | None = None,
    seed: int = 0,
    threads: int | None = 1,
    label: str | None = None,
    folder: str | Path | None = None,
    progress: bool | Progress = False,
    callbacks: Sequence[Callback] = (),
    **trainer: Any,
) -> Classifier:
    """Fit a network to images with Lightning, by the paper's objective (section 4).

    The objective is cross-entropy plus weight decay, ``sum over layers of lambda * sum(w^2) / k``. With one seed the
    fit repeats on the CPU, bit for bit, and is that of ``train.py`` with one configuration. What it changes in the
    process (random state, threads, switches, loggers) is restored.

    Args:
        model: a network of ``intriguing.models``, which is built here if it does not know its images yet, or any torch
            module from images in [0, 1] to logits (N, K). It is trained itself, no copy.
        data: what ``intriguing.data`` opens (``digits()``, ``mnist()``, ``image_folder(...)``); or a
            LightningDataModule; a Dataset of pairs (image, label); or a pair: the training and the test Dataset, the
            training and the test tensors ((images, labels), (images, labels)), or images and labels to train on.
            Images lie in [0, 1], or are uint8.
        weight_decay: lambda of every layer with weights, or of each in order; None: what the model was made with, 0
            unless it was given.
        epochs: passes over the training images.
        batch_size: images of a step; None: what the data have.
        optimizer: takes parameters or parameter groups: ``partial(torch.optim.SGD, lr=0.1, momentum=0.9)``; None: the
            model's, which is Adam with a learning rate of 1e-3 unless it was given another one.
        scheduler: takes the optimiser: ``partial(torch.optim.lr_scheduler.StepLR, step_size=10)``, stepped after every
            epoch. A setting of ``"planned_steps"`` becomes the number of steps of the whole fit, and the scheduler is
            stepped after every one; ``intriguing.models.Scheduler`` says otherwise when it is stepped.
        spectral_penalty: strength of the penalty on the operator norms of the layers (section 4.3); its kind is an
            argument of the model.
        back_feeding: adversarial training: keeps pools of adversarial examples of each layer and mixes them in.
        split: ``full``, or one of the disjoint halves of the training images, ``p1`` or ``p2``; None: the data's.
        validation: number of training images to set apart for ``val/loss`` and ``val/acc``; None: the data's.
        seed: of the weights, the order of the images and all else that is random.
        threads: of the CPU; one is fastest for small networks. None: as many as torch is set to.
        label: name in tables; None: the model's, for example ``FC100-100-10``.
        folder: where ``model.ckpt`` is written, which ``intriguing.load_model`` and ``attack.py`` read; None: nothing
            is written.
        progress: True for a progress bar, or a function of (epochs done, number of epochs, loss as text).
        callbacks: further ones of Lightning.
        **trainer: further options of ``lightning.Trainer``, for example ``accelerator``, ``precision``, ``logger``.

    Returns:
        The network as a LightningModule in evaluation mode, on the CPU.

    Raises:
        UserError: data or options that cannot be used.
        ValueError: a setting of the network that is out of range, or a module that gives no logits for the images.

    Example:
        >>> import intriguing as ig
        >>> model = ig.fit(ig.models.FullyConnected(widths=[20]), ig.data.digits(), weight_decay=1e-5, epochs=1)
        >>> model.label, model(ig.data.digits().test.images).shape
        ('FC20-10', torch.Size([360, 10]))
    """
    epochs = whole("epochs", epochs, 1)
    file = None if folder is None else Path(folder).expanduser() / "model.ckpt"
    if file is not None and file.exists():
        raise UserError(f"{file} is there already: give another folder")
    if back_feeding is not None and not isinstance(back_feeding, BackFeeding):
        got = type(back_feeding).__name__
        raise UserError(f"back_feeding must be intriguing.BackFeeding(distortion=...) or None, got a {got}")
    images = _opened(data, split=split, validation=validation, batch_size=batch_size, seed=seed)
    changes = {
        "weight_decay": weight_decay,
        "spectral_penalty": spectral_penalty,
        "optimizer": _factory(optimizer),
        "scheduler": _scheduler(scheduler),
        "label": label,
    }
    own = [*callbacks] if back_feeding is None else [*callbacks, back_feeding]
    own += [ProgressCallback(progress)] if callable(progress) else []
    with restored(), quiet():
        if threads is not None:
            torch.set_num_threads(whole("threads", threads, 1))
        lightning.seed_everything(whole("seed", seed, 0), workers=True, verbose=False)
        classifier = model if isinstance(model, Classifier) else ModuleClassifier(model)
        if not model.training:  # as `fit` and `load_model` return networks
            model.train()
        given = {key: value for key, value in changes.items() if value is not None}
        classifier.build(images.input_shape, images.num_classes, **given)
        if back_feeding is not None:
            back_feeding.check(classifier)
        runner = _trainer(trainer, own, epochs=epochs, file=file, bar=progress is True, validates=images.validation > 0)
        runner.fit(classifier, datamodule=images)
        if file is not None:
            runner.save_checkpoint(file, weights_only=True)
        classifier.trained_on = images.description
        classifier._trainer = None  # which would keep the images, and could not be copied with the network
    return classifier.eval()


def _opened(data: Data, *, split: str | None, validation: int | None, batch_size: int | None, seed: int) -> ImageData:
    """Return the images with the options of a fit.

    Raises:
        UserError: see `fit`.
    """
    found = _images(data)
    chosen = ImageData(
        found.images,
        split=found.split if split is None else choice("split", split, ("full", "p1", "p2")),
        split_seed=found.split_seed,
        validation=found.validation if validation is None else whole("validation", validation, 0),
        only=found.only,
        batch_size=found.batch_size if batch_size is None else whole("batch_size", batch_size, 1),
        seed=seed,
    )
    chosen.prepare_data()
    chosen.setup()
    chosen.require("train")
    return chosen


def _images(data: Data) -> ImageData:
    if isinstance(data, ImageData):
        return data
    if isinstance(data, lightning.LightningDataModule):
        return ImageData(from_given(data, type(data).__name__))
    if isinstance(data, tuple | list) and len(data) == 2:
        first, second = data
        if isinstance(first, Tensor | np.ndarray):
            return from_tensors((first, second))
        if isinstance(first, tuple | list) and len(first) == 2 and isinstance(first[0], Tensor | np.ndarray):
            return from_tensors((first[0], first[1]), second)
        return ImageData(from_datasets(first, second))
    if hasattr(data, "input_shape") and hasattr(data, "select"):  # a DataSet of the project
        return ImageData(cast(DataSet, data))
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return ImageData(from_datasets(data, None))
    raise UserError(
        f"data must be what ig.data opens, a LightningDataModule, a Dataset or a pair, got a {type(data).__name__}"
    )


def _factory(optimizer: Callable[..., Any] | None) -> partial[Any] | None:
    if optimizer is None or isinstance(optimizer, partial):
        return optimizer
    if not callable(optimizer):
        raise UserError(
            "optimizer must take the parameters, such as partial(torch.optim.SGD, lr=0.1), got a "
            f"{type(optimizer).__name__}"
        )
    return partial(optimizer)


def _scheduler(scheduler: Scheduler | Callable[..., Any] | None) -> Scheduler | None:
    if scheduler is None or isinstance(scheduler, Scheduler):
        return scheduler
    if not callable(scheduler):
        raise UserError(
            "scheduler must take the optimiser, such as partial(torch.optim.lr_scheduler.StepLR, step_size=10), got a "
            f"{type(scheduler).__name__}"
        )
    factory = scheduler if isinstance(scheduler, partial) else partial(scheduler)
    by_step = "planned_steps" in factory.keywords.values()
    when = {"interval": "step" if by_step else "epoch"}
    if inspect.isclass(factory.func) and issubclass(factory.func, ReduceLROnPlateau):
        when["monitor"] = "train/loss"
    return Scheduler(factory, when)


def _trainer(
    given: dict[str, Any], callbacks: list[Callback], *, epochs: int, file: Path | None, bar: bool, validates: bool
) -> lightning.Trainer:
    """Build the Trainer: on one device, silent, writing nothing unless that is asked for."""
    for key, instead in (("max_epochs", "epochs"), ("callbacks", "callbacks")):
        if key in given:
            raise UserError(f"{key} is set by {instead}=...")
    for key in given.keys() & _OF_OPTIMIZERS.keys():
        raise UserError(f"{key} is a setting of the optimiser: give optimizer=partial({_OF_OPTIMIZERS[key]})")
    refuse_unknown_options(given)
    on_cpu = given.get("accelerator") == "cpu" or not torch.accelerator.is_available()
    settings: dict[str, Any] = {
        "devices": 1,
        "deterministic": on_cpu,  # of other devices, some operations have no deterministic version
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        **({} if validates else {"limit_val_batches": 0}),
        **given,
        "max_epochs": epochs,
        "callbacks": callbacks,
        "enable_progress_bar": bar or any(isinstance(one, ProgressBar) for one in callbacks),
        "use_distributed_sampler": False,  # the batches are shared out already
    }
    if file is not None:
        settings["plugins"] = [AtomicCheckpointIO(file.parent), *(given.get("plugins") or [])]
    try:
        return lightning.Trainer(**settings)
    except Exception as error:
        said = " ".join(str(error).split("__init__() ")[-1].split())
        raise UserError(f"trainer: {said}") from error
