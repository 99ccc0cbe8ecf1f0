"""The documentation site: ``make docs`` builds it with Sphinx, strictly, into build/docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "mgrpo_lightning"
copyright = "The mgrpo_lightning authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = project
exclude_patterns = ["conf.py"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
napoleon_google_docstring = True

_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./|\w)[^)#:]*)\)")


def _check_links(app: Sphinx, name: str, source: list[str]) -> None:
    """Check every link into the repository, and turn links that a site cannot have into text."""
    source[0] = _LINK.sub(lambda match: _checked(match, name), source[0])


def _checked(match: re.Match[str], name: str) -> str:
    text, target = match[1], match[2]
    path = (ROOT / "docs" / name).parent.joinpath(target).resolve()
    if not path.exists():
        raise SphinxError(f"{name}.md has a dead link: {target}")
    # A folder cannot be linked to, nor a text that is no page of the site; any other file becomes a download.
    elsewhere = path.suffix == ".md" and not path.is_relative_to(ROOT / "docs")
    return f"{text} (`{path.relative_to(ROOT)}`)" if path.is_dir() or elsewhere else match[0]


def setup(app: Sphinx) -> None:
    """Called by Sphinx.

    Args:
        app: Of this build.
    """
    app.connect("source-read", _check_links)
