"""README is short, every relative link leads to a file or a heading, and every package has a page of the reference."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import intriguing

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "intriguing"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _text(page: Path) -> str:
    """The text of a page without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`", lambda code: re.sub(r"[()\[\]]", "", code.group()), text)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(_text(page)) if not link.startswith(("http:", "https:"))]
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in _anchors(target), f"{link}: no such heading"


def test_readme_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_readme_gives_the_test_command_of_ci() -> None:
    (command,) = re.findall(r"^pip install .*pytest.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text().replace("--quiet ", "")


def test_every_package_and_every_public_page_is_in_the_reference() -> None:
    parts = {file.parent.name for file in SOURCE.glob("*/__init__.py")}
    parts |= {file.stem for file in SOURCE.glob("*.py")} - {"__init__", "commands", "validation"}
    index = (ROOT / "docs" / "reference" / "index.md").read_text()
    listed = index[index.index("```{toctree}") :].split()
    for part in sorted(parts):
        page = ROOT / "docs" / "reference" / f"{part}.md"
        assert page.is_file() and f"automodule:: intriguing.{part}" in page.read_text(), f"no page about {part}"
        assert part in listed, f"docs/reference/index.md does not list {part}"


def test_pages_without_names_of_their_own_list_their_modules() -> None:
    for package in sorted(path.parent.name for path in SOURCE.glob("*/__init__.py")):
        public = hasattr(importlib.import_module(f"intriguing.{package}"), "__all__")
        page = (ROOT / "docs" / "reference" / f"{package}.md").read_text()
        assert public or "% modules\n" in page, package


def _functions() -> dict[str, Callable[..., object]]:
    """The functions and methods that the reference shows, by name."""
    found: dict[str, Callable[..., object]] = {}
    for package in sorted(path.parent.name for path in SOURCE.glob("*/__init__.py")):
        module = importlib.import_module(f"intriguing.{package}")
        for name in getattr(module, "__all__", ()):
            public = getattr(module, name)
            if inspect.isclass(public):
                methods = {key: value for key, value in vars(public).items() if inspect.isfunction(value)}
                found |= {f"{package}.{name}.{key}": one for key, one in methods.items() if not key.startswith("_")}
            elif inspect.isfunction(public):
                found[f"{package}.{name}"] = public
    return found


FUNCTIONS = _functions()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_arguments_that_are_documented_are_those_that_there_are(name: str) -> None:
    doc = inspect.cleandoc(FUNCTIONS[name].__doc__ or "") + "\n"
    if section := re.search(r"^Args:\n((?:    .*\n|\n)+)", doc, re.MULTILINE):
        entries = re.findall(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*):", section[1], re.MULTILINE)
        documented = {argument.lstrip("*") for entry in entries for argument in entry.split(", ")}
        assert documented == set(inspect.signature(FUNCTIONS[name]).parameters) - {"self", "cls"}


def test_versions_agree() -> None:
    assert f"version: {intriguing.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {intriguing.__version__} " in (ROOT / "CHANGELOG.md").read_text()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {f"intriguing-{stage}" for stage in ("train", "attack", "analyze")}
