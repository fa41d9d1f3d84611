"""From a resolved ``analyze`` config to one checked job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from intriguing import __version__
from intriguing.analysis import (
    EXTRA,
    SECTIONS,
)
from intriguing.errors import UserError
from intriguing.runs.jobs import LoggerSettings
from intriguing.runs.records import RunRecord, find_runs, read_run
from intriguing.validation import choice, flag, whole


@dataclass(frozen=True)
class ReportJob:
    """What to analyse, checked.

    Attributes:
        runs, name: the run folder is ``<runs>/analyze/<name>``.
        title: heading of the page.
        networks, sets: finished train and attack runs.
        sections: which of ``analysis.SECTIONS`` and ``analysis.EXTRA``.
        settings: of the latter, by section; what is None is the section's own default.
        data: where the networks' images are, see ``data.images_of_network``.
        results: folder that gets a copy of the small files; None for none.
    """

    runs: str
    name: str
    title: str
    networks: tuple[RunRecord, ...]
    sets: tuple[RunRecord, ...]
    sections: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    data: dict[str, Any]
    batch_size: int
    seed: int
    threads: int
    results: str | None
    logger: LoggerSettings
    study: str | None
    tags: tuple[str, ...]
    command: str

    @classmethod
    def from_config(cls, config: dict[str, Any], *, command: str = "") -> ReportJob:
        """Check a resolved ``analyze`` config; a study's runs are added by ``of`` when they are there.

        Raises:
            UserError: a value that cannot be right, or a pattern that matches nothing.
        """
        study = config["study"]
        asked = config["sections"] if config["sections"] is not None else (study or {}).get("sections")
        sections = SECTIONS
        if asked is not None:
            sections = tuple(choice("section", one, (*SECTIONS, *EXTRA)) for one in asked)
        if study is None and not config["networks"]:
            raise UserError("nothing to analyse: give study=quickstart, study=paper, or networks='runs/train/*'")
        if config["processes"] is not None:
            whole("processes", config["processes"], 1)
        name = config["name"] or (study["name"] if study else "analysis")
        return cls(
            runs=str(config["runs"]),
            name=str(name),
            title=str(study["title"] if study else f"Analysis {name}"),
            networks=() if study else tuple(_find(config["networks"], "train")),
            sets=() if study or not config["sets"] else tuple(_find(config["sets"], "attack")),
            sections=sections,
            settings=_settings(config["settings"], (study or {}).get("settings") or {}),
            data={**config["data"], "download": flag("data.download", config["data"]["download"])},
            batch_size=whole("batch_size", config["batch_size"], 1),
            seed=whole("seed", config["seed"], 0),
            threads=whole("threads", config["threads"], 1),
            results=study["results"] if study else None,
            logger=LoggerSettings.of(config["logger"]),
            study=study["name"] if study else None,
            tags=tuple(config["tags"]),
            command=command,
        )

    def of(self, folders: Sequence[Path]) -> ReportJob:
        """The same, of these run folders."""
        records = [read_run(folder) for folder in dict.fromkeys(folders)]
        return replace(
            self,
            networks=tuple(one for one in records if one.stage == "train"),
            sets=tuple(one for one in records if one.stage == "attack"),
        )

    @property
    def label(self) -> str:
        """The heading of the page."""
        return self.title

    @property
    def identity(self) -> dict[str, Any]:
        """The runs by name and content, and what is asked of them."""
        return {
            "networks": {one.name: one.artifacts.get("model.ckpt", "") for one in self.networks},
            "sets": {one.name: one.artifacts.get("set.safetensors", "") for one in self.sets},
            "sections": list(self.sections),
            "settings": {key: value for key, value in self.settings.items() if key in self.sections},
            "seed": self.seed,
            "title": self.title,
            "version": __version__,
        }


def _settings(given: dict[str, dict[str, Any]], study: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of each section: what the user gave, else the study's."""
    for section, settings in study.items():
        if unknown := sorted(set(settings) - set(given.get(section, {}))):
            known = ", ".join(f"{key}.{name}" for key, names in given.items() for name in names)
            raise UserError(f"study.settings has {section}.{unknown[0]}, which no section reads; there are {known}")
    return {
        section: {k: study.get(section, {}).get(k) if v is None else v for k, v in settings.items()}
        for section, settings in given.items()
    }


def _find(patterns: str | list[str], stage: str) -> list[RunRecord]:
    found: dict[Path, RunRecord] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        found |= {record.folder: record for record in find_runs(str(pattern), stage=stage)}
    return list(found.values())
