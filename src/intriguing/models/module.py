"""Train and test any torch module as a ``Classifier``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from intriguing.errors import UserError, error_message, shown
from intriguing.models.classifier import Classifier, floating_dtype
from intriguing.models.weights_file import fill, read_weights
from intriguing.nn import evaluating
from intriguing.nn.outputs import PickOutput, pick_output

_FROM_IMAGES = ("input_shape", "num_classes")  # arguments of a class that the images fill in


class ModuleClassifier(Classifier):
    """Classify with a module of the user's.

    Weight decay, spectral penalties, back-feeding and all else that a ``Classifier`` has apply to it. Where the module
    is called by position and returns its logits as a tensor, it is ``network`` itself, and layers keep their names.

    A checkpoint stores the name of the class as text, for messages; ``intriguing.load_model(path, network=Net)`` wants
    the class again, because no file decides which code runs.

    Args:
        network: a module, which is trained as it is; or a class, or a function, that builds one.
        settings: keywords of the class, in plain values. ``input_shape`` and ``num_classes`` are filled in if the class
            has arguments of these names. None: no keywords, or a module that was built already.
        input: keyword by which the module takes its images; None: by position.
        output: key, position or attribute of the logits in what the module returns; None: it returns a tensor, or
            something with ``logits``.
        weights: a file of a state dict that the module starts from; None: the weights that its class gives it.
        **arguments: of ``Classifier``.

    Raises:
        ValueError: a class that builds no module, settings that it does not take, a module that does not return logits
            (N, K) for the images, or weights that do not fit.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        >>> model = ModuleClassifier(net, input_shape=(1, 4, 4), num_classes=3, label="mine")
        >>> model.network is net, len(model.decayed_weights())
        (True, 1)
    """

    name: ClassVar[str] = "module"

    def __init__(
        self,
        network: nn.Module | Callable[..., nn.Module],
        *,
        settings: Mapping[str, Any] | None = None,
        input: str | None = None,
        output: str | int | None = None,
        weights: str | None = None,
        **arguments: Any,
    ) -> None:
        own = {"settings": settings, "input": input, "output": output, "weights": weights}
        super().__init__(network=network, **own, **arguments)

    @classmethod
    def architecture_label(cls, settings: Mapping[str, Any], num_classes: int | None) -> str:
        """Return the name of the class and its settings: ``Net(width=8)``."""
        name = name_of(settings["network"]).rpartition(".")[2]
        given = settings.get("settings") or {}
        return f"{name}({', '.join(f'{key}={_short(value)}' for key, value in given.items())})" if given else name

    def another(self) -> Self | None:
        """Build the network again, with new random weights; None where a module was given and no class."""
        network = self.settings["network"]
        given = {key: value for key, value in self.hparams.items() if key != "target"}
        return None if isinstance(network, nn.Module) else type(self)(network, **given)

    def build_network(
        self,
        *,
        network: nn.Module | Callable[..., nn.Module],
        settings: Mapping[str, Any] | None,
        input: str | None,
        output: str | int | None,
        weights: str | None,
    ) -> nn.Module:
        """Take or build the module, and check that it gives logits for the images; see the class for the arguments."""
        name = self.hparams["target"] = name_of(network)
        module = network
        if not isinstance(network, nn.Module):
            module = made(network, settings or {}, self.input_shape, self.num_classes)
        assert isinstance(module, nn.Module)
        adapted = self._adapted(module, name, input, output)
        self.hparams["weights"] = None  # read once: a checkpoint holds the network's own
        if weights is not None:
            fill(module, read_weights(weights), weights)
        return adapted

    def _adapted(self, module: nn.Module, name: str, input: str | None, output: str | int | None) -> nn.Module:
        """Return the network from images to logits that a module is, by its name in messages.

        Raises:
            ValueError: it does not return logits (N, K) for the images.
        """
        found = self._answer(module, name, input)
        picked = not isinstance(found, Tensor) or output is not None
        if picked:
            try:
                found = pick_output(found, output)
            except TypeError as error:
                raise ValueError(f"{name}: {_with_option(str(error), output)}") from error
        if found.shape != (2, self.num_classes):
            raise ValueError(
                f"{name} returns a tensor of shape {tuple(found.shape)} for 2 images of {self.num_classes} classes; "
                f"expected logits (2, {self.num_classes})"
                + " (an argument num_classes of a class is filled in)"
                * (found.dim() == 2)
            )
        by_keyword = module if input is None else _ByKeyword(module, input)
        return PickOutput(by_keyword, output) if picked else by_keyword

    def _answer(self, module: nn.Module, name: str, keyword: str | None) -> Any:
        """Return what a module returns for two grey images."""
        like = next(module.parameters(), torch.zeros(()))
        images = torch.full((2, *self.input_shape), 0.5, dtype=floating_dtype(module), device=like.device)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(module):
            try:
                return module(images) if keyword is None else module(**{keyword: images})
            except Exception as error:  # of the user's code
                hint = "" if keyword else "; model.input=<keyword> is for a network that wants its images by keyword"
                raise ValueError(
                    f"{name} cannot take images of shape {tuple(images.shape)}: {error_message(error)}{hint}"
                ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W), which are cast to the type of the network's weights."""
        found = self.network(images.to(floating_dtype(self.network)))
        # some return more than logits while they train, for example of auxiliary classifiers
        return found if isinstance(found, Tensor) else pick_output(found, None)

    def objective(self, batch: list[Tensor]) -> Tensor:
        """Return the training loss of a batch, whose images are cast to the type of the network's weights."""
        images, labels = batch
        return super().objective([images.to(floating_dtype(self.network)), labels])


class _ByKeyword(nn.Module):
    """Hand the images to a module by keyword."""

    def __init__(self, module: nn.Module, keyword: str) -> None:
        super().__init__()
        self.module, self.keyword = module, keyword

    def forward(self, images: Tensor) -> Any:
        """Return what the module returns."""
        return self.module(**{self.keyword: images})


def name_of(network: nn.Module | Callable[..., Any]) -> str:
    """Return the full name of a module's class, or of a class or function that builds modules: ``mine.Net``."""
    while isinstance(network, functools.partial):
        network = network.func
    owner: Any = type(network) if isinstance(network, nn.Module) or not hasattr(network, "__qualname__") else network
    return f"{owner.__module__}.{owner.__qualname__}"


def made(
    factory: Callable[..., nn.Module], settings: Mapping[str, Any], input_shape: tuple[int, ...], num_classes: int
) -> nn.Module:
    """Build a module by its class.

    Args:
        factory: a class, or a function that builds modules.
        settings: its keywords.
        input_shape: (C, H, W), handed over if there is an argument of this name.
        num_classes: K, likewise.

    Raises:
        ValueError: settings that it does not take, or something that is no module.
    """
    arguments = _arguments(factory)
    known = dict(zip(_FROM_IMAGES, (input_shape, num_classes), strict=True))
    try:
        module = factory(**{key: value for key, value in known.items() if key in arguments} | dict(settings))
    except Exception as error:  # of the user's code
        given = (
            f" with {', '.join(f'model.{key}={shown(value)}' for key, value in settings.items())}" if settings else ""
        )
        said = (
            error_message(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error_message(error)}"
        )
        raise ValueError(f"{name_of(factory)} cannot be built{given}: {said}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"{name_of(factory)} builds a {type(module).__name__}, not a torch.nn.Module")
    return module


def _arguments(factory: Callable[..., Any]) -> set[str]:
    """List the names of a class's arguments, also those that it hands to the class below as ``**keywords``."""
    found: set[str] = set()
    below = (
        [base.__init__ for base in factory.__mro__[1:] if base is not nn.Module] if isinstance(factory, type) else []
    )
    for one in (factory, *below):
        try:
            parameters = inspect.signature(one).parameters
        except (TypeError, ValueError):  # code without a signature
            return found
        found |= set(parameters)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return found
    return found


def _with_option(message: str, output: str | int | None) -> str:
    """Name the option of the command line in a message of ``pick_output``."""
    return f"{message.partition('; name the entry')[0]}; model.output=<entry> chooses" if output is None else message


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace(" ", "") if len(text) <= 24 else f"{text[:21]}..."
