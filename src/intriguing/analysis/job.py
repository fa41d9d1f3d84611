"""From a resolved ``analyze`` config to one checked job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from intriguing import __version__
from intriguing.analysis.analyze import SECTIONS
from intriguing.analysis.reference import Reference
from intriguing.analysis.sections import NoSettings
from intriguing.analysis.settings import settings_of
from intriguing.checkpoints import Network
from intriguing.data import OwnData
from intriguing.errors import UserError
from intriguing.runs.identity import identity_of
from intriguing.runs.jobs import LoggerSettings
from intriguing.runs.records import RunRecord, find_runs, read_run
from intriguing.validation import choice, flag, refuse_unknown, whole

_KEYS = (
    *("networks", "sets", "model", "sections", "settings", "batch_size", "processes", "data", "trainer", "launcher"),
    *("logger", "runs", "name", "study", "tags", "seed", "threads"),
)


_OF_REFERENCE = ("reference", "reference_name")  # settings of all sections


@dataclass(frozen=True, kw_only=True)
class AnalysisJob:
    """One analysis, checked.

    Attributes:
        runs: folder of all runs.
        name: the run folder is ``<runs>/analyze/<name>``.
        title: heading of the page.
        networks: finished train runs.
        sets: finished attack runs.
        sections: names in ``analysis.SECTIONS``.
        settings: by section, instances of its settings.
        asked: the part of the config that decides the result, without the runs.
        data: where the networks' images are, see ``data.images_of_network``.
        reference: numbers that the tables compare with; None: the paper's.
        images: opens the Datasets of ``data=module``; None for other data.
        batch_size: images per forward pass.
        seed: seed of everything random.
        threads: threads of the process.
        results: folder that gets a copy of the small files; None for none.
        logger: whether and as what W&B records the run.
        study: name of the study, or None.
        tags: free words.
        network_classes: classes by which checkpoints of users' networks are opened.
        left_out: what the study did without, and why; empty where nothing is missing.
        command: the command line that makes this job.
        files: further files of the run folder, text by name.
    """

    runs: str
    name: str
    title: str
    networks: tuple[RunRecord, ...]
    sets: tuple[RunRecord, ...]
    sections: tuple[str, ...]
    settings: Mapping[str, object]
    asked: Mapping[str, Any] = field(repr=False)
    data: Mapping[str, Any]
    reference: Reference | None = None
    images: OwnData | None = field(default=None, repr=False)
    network_classes: tuple[Network, ...] = ()
    batch_size: int
    seed: int
    threads: int
    results: str | None
    logger: LoggerSettings
    study: str | None
    tags: tuple[str, ...]
    left_out: str = ""
    command: str
    files: Mapping[str, str]

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        images: OwnData | None = None,
        network_classes: Sequence[Network] = (),
        command: str = "",
        files: Mapping[str, str] | None = None,
        left_out: str = "",
    ) -> AnalysisJob:
        """Check a resolved ``analyze`` config; a study's runs are added by ``of`` when they are finished.

        Raises:
            UserError: a value that cannot be right, or a pattern that matches nothing.
        """
        refuse_unknown("", config, _KEYS, whole="an analysis")
        study = config["study"]
        if not isinstance(config["sections"], list):
            raise UserError(f"sections must be a list of names, got {config['sections']!r}")
        sections = tuple(choice("section", one, SECTIONS) for one in config["sections"])
        if study is None and not config["networks"]:
            raise UserError("nothing to analyse: give study=quickstart, study=paper, or networks='runs/train/*'")
        if config["processes"] is not None:
            whole("processes", config["processes"], 1)
        name = config["name"] or (study["name"] if study else "analysis")
        asked = identity_of(config, "analyze")
        given = {name: value for name, value in asked["settings"].items() if name in sections}
        own = {name: value for name, value in config["settings"].items() if name not in _OF_REFERENCE}
        reference = _reference(*(config["settings"].get(key) for key in _OF_REFERENCE))
        if reference is not None:
            given["reference"] = {"name": reference.name, "sha256": reference.sha256}
        return cls(
            runs=str(config["runs"]),
            name=str(name),
            title=str(study["title"] if study else f"Analysis {name}"),
            networks=() if study else tuple(_find(config["networks"], "train")),
            sets=() if study or not config["sets"] else tuple(_find(config["sets"], "attack")),
            sections=sections,
            settings=_settings(own),
            asked=asked | {"settings": given},
            data={**config["data"], "download": flag("data.download", config["data"].get("download", False))},
            reference=reference,
            images=images,
            network_classes=tuple(network_classes),
            batch_size=whole("batch_size", config["batch_size"], 1),
            seed=whole("seed", config["seed"], 0),
            threads=whole("threads", config["threads"], 1),
            results=study["results"] if study else None,
            logger=LoggerSettings.of(config["logger"]),
            study=study["name"] if study else None,
            tags=tuple(config["tags"]),
            left_out=left_out,
            command=command,
            files=files or {},
        )

    def of(
        self, folders: Sequence[Path], network_classes: Sequence[Network] = (), images: OwnData | None = None
    ) -> AnalysisJob:
        """Return a copy that analyses these run folders, with the classes and images of users' own among them."""
        records = [read_run(folder) for folder in dict.fromkeys(folders)]
        return replace(
            self,
            images=self.images or images,
            network_classes=(*self.network_classes, *network_classes),
            networks=tuple(one for one in records if one.stage == "train"),
            sets=tuple(one for one in records if one.stage == "attack"),
        )

    @property
    def label(self) -> str:
        """The heading of the page."""
        return self.title

    @property
    def identity(self) -> dict[str, Any]:
        """The runs by name and content, and the part of the config that decides the result."""
        return {
            "networks": {one.name: one.artifacts.get("model.ckpt", "") for one in self.networks},
            "sets": {one.name: one.artifacts.get("set.safetensors", "") for one in self.sets},
            **self.asked,
            "title": self.title,
            "version": __version__,
        }


def _reference(path: Any, name: Any) -> Reference | None:
    """Read the numbers to compare with."""
    for key, value in zip(_OF_REFERENCE, (path, name), strict=True):
        if value is not None and (isinstance(value, list | dict | bool) or not str(value)):
            raise UserError(f"settings.{key} must be a text, got {value!r}")
    if path is None and name is not None:
        raise UserError(f"settings.reference_name={name} names no numbers: give settings.reference=<file>.csv too")
    return None if path is None else Reference.read(str(path), None if name is None else str(name))


def _settings(given: Mapping[str, Any]) -> dict[str, object]:
    """Check the settings of every section that has some."""
    kinds = {name: section.settings for name, section in SECTIONS.items() if section.settings is not NoSettings}
    if unknown := [name for name in given if name not in kinds]:
        raise UserError(f"settings.{unknown[0]} is read by no section; there are settings of {', '.join(kinds)}")
    return {name: settings_of(kinds[name], f"settings.{name}", values) for name, values in given.items()}


def _find(patterns: str | list[str], stage: str) -> list[RunRecord]:
    found: dict[Path, RunRecord] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        found |= {record.folder: record for record in find_runs(str(pattern), stage=stage)}
    return list(found.values())
