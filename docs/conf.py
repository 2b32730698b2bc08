"""The site: `make docs` builds it into docs/_build/html. Warnings are errors; pages load nothing from elsewhere."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

DOCS = Path(__file__).parent
BUILD = DOCS / "_build"
WORK = BUILD / "work"  # where cells run
DONE = WORK / "pages.json"
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
nb_execution_timeout = 3600  # of a cell, on a busy machine
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
    """Reads the pages of `ORDER` first: later ones use the models that they train. Pages that changed begin anew."""
    docnames.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    done = json.loads(DONE.read_text()) if DONE.exists() else {}
    for name in docnames:
        text = Path(app.env.doc2path(name)).read_text(encoding="utf-8")
        if "{code-cell}" in text and done.get(name) != hashlib.sha256(text.encode()).hexdigest():
            for made in re.findall(r"--run\.dir (\S+)|write_\w+\(\"(\w+)\"", text):
                shutil.rmtree(WORK / "".join(made), ignore_errors=True)


def remember(app: Sphinx, doctree: object) -> None:
    """Which text of a page has run: `--run.dir` of an unchanged page stays, for the pages after it."""
    text = Path(app.env.doc2path(app.env.docname)).read_text(encoding="utf-8")
    if "{code-cell}" in text and app.config.nb_execution_mode != "off":
        done = json.loads(DONE.read_text()) if DONE.exists() else {}
        DONE.write_text(json.dumps({**done, app.env.docname: hashlib.sha256(text.encode()).hexdigest()}))


# A kernel says that it takes colours; pages show plain text, and paths below the folder they run in. `%%sh` prints what
# a command says in one piece: IPython's own hands it out in pieces, which the page would show on lines of their own.
STARTUP = """import os, subprocess, warnings
from IPython.core.magic import register_cell_magic

os.chdir({work!r})
for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
    os.environ.pop(name, None)
os.environ |= {{"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "110", "LITEVIT_CACHE": "cache"}}
warnings.filterwarnings("ignore", message="IProgress not found")


@register_cell_magic
def sh(line, cell):
    command = ["bash", "-e", "-o", "pipefail", "-c", cell]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, end="")
    if done.returncode:
        raise RuntimeError(f"exit code {{done.returncode}}: {{done.stdout[-600:]}}")
"""


def prepare_cells() -> None:
    """A kernel starts in docs/_build/work and finds this environment's `litevit` first."""
    startup = BUILD / "ipython" / "profile_default" / "startup"
    for folder in (WORK, startup):
        folder.mkdir(parents=True, exist_ok=True)
    (startup / "work.py").write_text(STARTUP.format(work=str(WORK)))
    os.environ["IPYTHONDIR"] = str(BUILD / "ipython")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


def without_missing_reports(app: Sphinx, docname: str, content: list[str]) -> None:
    """The contents name the reports of tests; those that are not written yet are left out."""
    for name in ("faults", "hostile", "numbers", "licences"):
        if docname == "index" and not (DOCS / f"{name}.md").exists():
            content[0] = content[0].replace(f"\n{name}\n", "\n")


def mark_long_cells(app: Sphinx, doctree: nodes.document) -> None:
    """Cells of sentences get a class, for a width that can be read; browsers would make them a word wide."""
    for cell in doctree.findall(nodes.entry):
        if len(cell.astext()) > 30:
            cell["classes"].append("long")


SHORT = re.compile(r"(?P<what>.*?)\bArgs: (?P<args>.+?)(?: Returns: (?P<returns>.+))?")


def spread(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings of one line, `Args: x: (B, C). Returns: (B, C).`, get the sections that longer ones have."""
    for i, line in enumerate(lines):
        if match := SHORT.fullmatch(line):
            returns = ["", "Returns:", f"    {match['returns']}"] if match["returns"] else []
            lines[i : i + 1] = [match["what"].strip(), "", "Args:", f"    {match['args']}", *returns, ""]
            return


def with_fields(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """What stands behind each field of a dataclass, as its attributes."""
    if what != "class" or not dataclasses.is_dataclass(thing) or "Attributes:" in lines:
        return
    said = generated.comments(thing)
    if lines and lines[-1]:
        lines.append("")
    lines += ["Attributes:", *(f"    {field}: {about}" for field, about in said.items() if about), ""]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", with_fields, priority=300)
    app.connect("autodoc-process-docstring", spread, priority=400)  # before napoleon
    prepare_cells()
    generated.write(DOCS)
    app.connect("source-read", without_missing_reports)
    app.connect("env-get-outdated", lambda *told: ["index"])  # a report may have come
    app.connect("env-before-read-docs", in_order)
    app.connect("doctree-read", remember)
    app.connect("doctree-read", mark_long_cells)
