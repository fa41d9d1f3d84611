"""Settings of the site: uv run --group docs sphinx-build -W docs site."""

from __future__ import annotations

import runpy
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import intriguing

EXAMPLES = Path(__file__).parents[1] / "examples"

project = "intriguing"
copyright = "the intriguing maintainers"
version = release = intriguing.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
highlight_language = "none"

suppress_warnings = ["ref.python"]  # attributes of several classes have one name, such as `name`
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "intriguing"
html_static_path: list[str] = []
copybutton_exclude = ".linenos, .gp, .go"


def _prose_returns(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep Napoleon from reading a type before the first colon of ``Returns:``; the types are in the signatures."""
    for before, line in enumerate(list(lines[:-1])):
        if line.strip() in ("Returns:", "Yields:"):
            first = lines[before + 1]
            indent = len(first) - len(first.lstrip())
            lines[before + 1] = f"{first[:indent]}: {first[indent:]}"


def _list_modules(app: Any, page: str, source: list[str]) -> None:
    """Put the modules of a package without public names into its page, at the line ``% modules``."""
    package = Path(intriguing.__file__).parent / Path(page).name
    names = sorted(f"{package.name}.{file.stem}" for file in package.glob("[!_]*.py"))
    texts = [f"## intriguing.{name}\n\n```{{eval-rst}}\n.. automodule:: intriguing.{name}\n```\n" for name in names]
    source[0] = source[0].replace("% modules\n", "\n".join(texts))


class ExampleOutput(SphinxDirective):
    """Run an example with the arguments of the directive, and show the command and its output."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Run the example in this process, which has imported torch."""
        name, *options = self.arguments[0].split()
        self.env.note_dependency(str(EXAMPLES / name))
        typed, output = sys.argv, StringIO()
        sys.argv = [name, *options]
        try:
            with redirect_stdout(output):
                runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        finally:
            sys.argv = typed
        command = " ".join(["python", f"examples/{name}", *options])
        text = f"$ {command}\n{output.getvalue()}"
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Any) -> None:
    """Connect the readers of docstrings, before Napoleon's, and of pages; add the directive."""
    app.add_directive("example-output", ExampleOutput)
    app.connect("source-read", _list_modules)
    app.connect("autodoc-process-docstring", _prose_returns, priority=100)
