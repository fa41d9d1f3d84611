"""Settings of the site: uv run --group docs sphinx-build -W docs site."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # of the project's own directive

import intriguing

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
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "intriguing"
html_static_path: list[str] = []
copybutton_exclude = ".linenos, .gp, .go"
