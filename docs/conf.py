"""The site: Sphinx with Markdown pages. Pages about methods and examples are written from the source here."""

import inspect
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import pages  # noqa: E402

import k2chi  # noqa: E402

project = "k2chi"
author = "The k2chi authors"
copyright = "the k2chi authors, Apache-2.0"
release = version = k2chi.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"k2chi {release}"
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}


def plain_text(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code` in backticks; what else means something to Sphinx is escaped."""
    text = inspect.cleandoc("\n".join(lines))
    parts = re.split(r"(`[^`\n]+`)", text)
    # Sphinx wants a boundary on both sides of code, as in `fine`³: an escaped space is one, and is not shown.
    plain = (re.sub(r"([\\*|_])", r"\\\1", p) for p in parts)
    out = "".join(
        f"\\ ``{p[1:-1]}``\\ " if p.startswith("`") else q for p, q in zip(parts, plain, strict=True)
    )
    paragraphs = re.split(r"\n\s*\n", out)
    lines[:] = "\n\n".join(" ".join(p.split()) for p in paragraphs).splitlines()


def setup(app):
    app.connect("autodoc-process-docstring", plain_text)
    pages.write(HERE, ROOT)
