"""Check the attack's part of a config: an attack of the project, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from intriguing.attacks import ATTACKS, Attack, FunctionAttack, as_attack
from intriguing.attacks.amplify import RULES as AMPLIFY_RULES
from intriguing.attacks.targets import RULES
from intriguing.data import ImageData
from intriguing.errors import UserError, did_you_mean
from intriguing.validation import choice, flag, number, refuse_unknown

CLOSEST = "closest"
TRAIN, BATCH, NONE = STARTS = "train", "batch", "none"
"""Images from which an attack begins: the training images of the data set, the other attacked ones, none."""
MODULE = "module"
"""Name of the option of conf/attack for a function of the user's."""


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """An attack and its settings, checked.

    Attributes:
        name: name in ``attacks.ATTACKS``; of a function of the user's, the name of the function.
        settings: keywords of the attack.
        targets: rule for target classes: one of ``attacks.targets.RULES`` or ``closest``; or the name of the class
            that all images are to be taken for; empty for noise, and for a function that is given no targets.
        target_class: number of that class; None for a rule, and while the images are not known.
        starts: one of `STARTS`, for attacks that begin from images of other classes; empty for others, and where the
            data decides, see ``starts.chosen_starts``.
        amplify: per-pixel RMS to scale the perturbations to afterwards; None: they are not scaled.
        amplify_by: ``set`` or ``image``, see ``attacks.amplify``.
        own: the function of the user's; None for an attack of the project.
        function: its full name as it was typed; empty for an attack of the project.
    """

    name: str
    settings: Mapping[str, Any]
    targets: str = ""
    target_class: int | None = None
    starts: str = ""
    amplify: float | None = None
    amplify_by: str = "set"
    own: FunctionAttack | None = field(default=None, repr=False)
    function: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any], function: Callable[..., Any] | None = None) -> AttackSettings:
        """Check the ``attack`` part of a config.

        Args:
            config: plain values.
            function: what ``attack._target_`` names, for ``attack=module``.

        Raises:
            UserError: an unknown attack, rule or setting, or a value that cannot be right.
        """
        name = choice("attack.name", config["name"], (*ATTACKS, MODULE))
        if name == MODULE:
            return _own_attack(config, function)
        if "_target_" in config:
            raise UserError(
                f"attack._target_ is read by nothing with attack={name}; for a function of yours give attack=module "
                f"attack._target_={config['_target_']}"
            )
        if not ATTACKS[name].reads_model:
            settings = {key: value for key, value in config.items() if key != "name"}
            return cls(name=name, settings=_checked(ATTACKS[name], "attack", settings))
        own = [key for key in _BESIDE if ATTACKS[name].takes(key)]
        if given := [key for key in _BESIDE if key in config and key not in own]:
            takers = [f"attack={other}" for other, attack in ATTACKS.items() if attack.takes(given[0])]
            raise UserError(
                f"attack.{given[0]} is read by nothing with attack={name}; it is a setting of {', '.join(takers)}"
            )
        refuse_unknown("attack", config, ("name", *own, "targets", "amplify", "amplify_by", "settings"))
        settings = dict(config["settings"] or {})
        if twice := [key for key in own if key in settings]:
            raise UserError(f"attack.settings.{twice[0]} is read by nothing; give attack.{twice[0]}")
        beside = {"effort": config["effort"]} if "effort" in own else {}
        starts = config["starts"] if "starts" in own else None
        return cls(
            name=name,
            settings=_checked(ATTACKS[name], "attack", beside) | _checked(ATTACKS[name], "attack.settings", settings),
            targets=str(config["targets"]),
            starts="" if starts is None else choice("attack.starts", starts, STARTS),
            **_amplification(config),
        )

    def aimed(self, data: ImageData) -> AttackSettings:
        """Return the attack with the number of the class that is named in place of a rule, and with its usual name.

        Args:
            data: the images, whose classes have names.

        Raises:
            UserError: neither a rule nor a class is called so.
        """
        rules = RULES if self.own else (*RULES, CLOSEST)
        if not self.targets or self.targets in rules:
            return self
        try:
            number = data.class_number(self.targets)
        except UserError as error:
            said = did_you_mean(self.targets, rules) or f", and {error}"
            raise UserError(
                f"unknown attack.targets '{self.targets}': the rules are {', '.join(rules)}{said}"
            ) from error
        return replace(self, targets=data.class_label(number), target_class=number)

    @property
    def attack(self) -> Attack | FunctionAttack:
        """The attack itself."""
        return self.own or ATTACKS[self.name]

    @property
    def takes_starts(self) -> bool:
        """Whether it begins from images of other classes; a function of the user's reads its keywords itself."""
        return self.own is None and ATTACKS[self.name].takes("starts")

    @property
    def clip(self) -> bool:
        """Whether the images lie in [0, 1]."""
        return self.own.clip if self.own else bool(self.settings.get("clip", True))

    @property
    def description(self) -> dict[str, Any]:
        """The attack in plain values, as sets and run folders record it."""
        if not self.attack.reads_model:
            return {"name": self.name, **self.settings}
        usual = self.attack.defaults
        # What is null is not said where null is the default: no grid, or the number that the effort says.
        settings = {k: v for k, v in self.settings.items() if k == "chunk_size" or (v, usual.get(k, 0)) != (None, None)}
        described: dict[str, Any] = {"name": self.name, "targets": self.targets or None, "settings": settings}
        if self.takes_starts:
            described["starts"] = self.starts
        described["amplify"] = self.amplify
        if self.own:
            described |= {"function": self.function, "clip": self.own.clip}
        if self.target_class is not None:
            described["target_class"] = self.target_class
        return described | ({} if self.amplify is None else {"amplify_by": self.amplify_by})

    @property
    def label(self) -> str:
        """The part of a run's name that names the attack: "lbfgs_random", "nearest_fast_closest_starts_batch"."""
        if self.own:
            return f"{self.function}_{self.targets}" if self.targets else self.function
        if not self.targets:
            return f"{self.name}{self.settings['stddev']:g}"
        effort, usual = self.settings.get("effort"), self.attack.defaults.get("effort")
        parts = [self.name, *([] if effort == usual else [str(effort)]), self.targets]
        return "_".join([*parts, *(["starts", self.starts] if self.starts not in ("", TRAIN) else [])])

    @property
    def amplification(self) -> str:
        """The part of a run's name that says how it is amplified, "_amplify0.1"; empty where it is not."""
        by = "_by_image" if self.amplify_by == "image" else ""
        return "" if self.amplify is None else f"_amplify{self.amplify:g}{by}"


_BESIDE = ("effort", "starts")  # keywords of single attacks that stand beside their settings
_OWN_KEYS = ("name", "_target_", "targets", "amplify", "amplify_by", "clip", "settings")


def _own_attack(config: Mapping[str, Any], function: Callable[..., Any] | None) -> AttackSettings:
    """Check the config of ``attack=module``, whose other keys are settings of the function."""
    if function is None:
        raise UserError("attack=module needs the function that attack._target_ names")
    short, nested = {key: value for key, value in config.items() if key not in _OWN_KEYS}, config["settings"] or {}
    if twice := sorted(set(short) & set(nested)):
        raise UserError(f"attack.{twice[0]} and attack.settings.{twice[0]} are one setting; give one of them")
    target = str(config["_target_"])
    try:
        own = as_attack(function, clip=flag("attack.clip", config["clip"]))
    except TypeError as error:
        raise UserError(f"attack._target_={target}: {error}") from error
    if not isinstance(own, FunctionAttack):
        raise UserError(f"attack._target_={target} is attack={own.name}")
    targets = "" if config["targets"] is None else str(config["targets"])
    if targets and not own.takes("targets"):
        raise UserError(f"attack.targets={targets}: {target} takes no targets; leave attack.targets out")
    return AttackSettings(
        name=target if own.name in ATTACKS else own.name,
        settings=_checked(own, "attack", short | nested),
        targets=targets,
        own=own,
        function=target,
        **_amplification(config),
    )


def _amplification(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check how the perturbations are scaled afterwards."""
    amplify = None if config["amplify"] is None else number("attack.amplify", config["amplify"], 0, above=True)
    return {"amplify": amplify, "amplify_by": choice("attack.amplify_by", config["amplify_by"], AMPLIFY_RULES)}


def _checked(attack: Attack | FunctionAttack, where: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return attack.check(settings)
    except (TypeError, ValueError) as error:
        raise UserError(_with_full_names(str(error), settings, where)) from error


def _with_full_names(message: str, settings: Mapping[str, Any], where: str) -> str:
    """Put ``where`` before the setting that a message of an attack speaks of."""
    for key in settings:
        if message.startswith(f"{key} "):
            return f"{where}.{message}"
        if (words := f"expected {key} ") in message:
            return message.replace(words, f"expected {where}.{key} ", 1)
    return f"{where}: {message}"
