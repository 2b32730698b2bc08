"""The site: `make docs` builds it into docs/_build/html. Warnings are errors; nothing on a page comes from elsewhere."""

import os
import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
BUILD = DOCS / "_build"
sys.path.insert(0, str(DOCS / "site"))

import generated  # noqa: E402  of docs/site

import litevit  # noqa: E402

project = "litevit"
author = "the litevit authors"
copyright = "the litevit authors, Apache-2.0"
version = release = litevit.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "mathml",
    "links",
]
exclude_patterns = ["_build", "site"]
nitpicky = False
highlight_language = "text"  # of fences without a language: commands and what they print
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# Pages with code cells run when they are built, in one folder, in the order of `ORDER`; unchanged ones are kept.
nb_execution_mode = "cache"
nb_execution_cache_path = str(BUILD / "cells")
nb_execution_timeout = 1200
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
suppress_warnings = ["myst-nb.lexer"]  # of cells that were not run: `-D nb_execution_mode=off`
ORDER = ["start", "guides/classification", "guides/detection", "guides/instances", "guides/segmentation"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_rtype = False
viewcode_line_numbers = True

html_theme = "furo"
html_title = f"litevit {release}"
html_static_path = ["site/static"]
html_css_files = ["litevit.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
html_math_renderer = "mathml"
copybutton_exclude = ".linenos, .gp, .go"


def in_order(app: Sphinx, env: object, docnames: list[str]) -> None:
    """Reads the pages of `ORDER` first: later ones use the models that they train."""
    docnames.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def prepare_cells() -> None:
    """A kernel starts in docs/_build/work, finds this environment's `litevit` first and prints without colours."""
    work, startup = BUILD / "work", BUILD / "ipython" / "profile_default" / "startup"
    for folder in (work, startup):
        folder.mkdir(parents=True, exist_ok=True)
    (startup / "work.py").write_text(f"import os\nos.chdir({str(work)!r})\n")
    os.environ["IPYTHONDIR"] = str(BUILD / "ipython")
    os.environ["LITEVIT_CACHE"] = str(BUILD / "cache")  # the scenes that are drawn
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ |= {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "110", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def setup(app: Sphinx) -> None:
    prepare_cells()
    generated.write(DOCS)
    app.connect("env-before-read-docs", in_order)
