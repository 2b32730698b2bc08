"""Links that leave docs/ (source files, measurements) lead to copies inside the site, so that it can be read alone."""

import os
import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

LINK = re.compile(r"(?<=\]\()((?:\.\./)+[^)#\s]*)(?=[)#])")


def leaves(page: Path, target: str, docs: Path) -> Path | None:
    """The file or folder that a page's link names, where it lies outside of docs/."""
    path = Path(os.path.normpath(page.parent / target))
    return None if path.is_relative_to(docs) else path


def copy_of(path: Path, docs: Path) -> str:
    """A page of the site, by its path below docs/: the file as text, or a folder with what it says of itself."""
    root = docs.parent
    name = f"generated/files/{path.relative_to(root)}".replace(".", "_")
    page = docs / f"{name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    up = os.path.relpath(root, page.parent)
    here = f"---\norphan: true\n---\n# {path.relative_to(root)}\n\n"
    if path.is_dir():
        about = path / "README.md"
        here += _included(about, page) if about.exists() else ""
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in (".json", ".csv", ".md"))
        here += "\n\n" + "\n".join(f"* {{download}}`{f.relative_to(path)} <{up}/{f.relative_to(root)}>`" for f in files)
    elif path.suffix == ".md":
        here += _included(path, page)
    else:
        language = {".py": "python", ".json": "json", ".cpp": "cpp"}.get(path.suffix, "text")
        here += f"```{{literalinclude}} {up}/{path.relative_to(root)}\n:language: {language}\n```"
    text = here + "\n"
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
    return name


def _included(about: Path, page: Path) -> str:
    """The text of a Markdown file below its title; its pictures are copied beside the page, its links become words."""
    text = re.sub(r"\A# .*\n", "", about.read_text(encoding="utf-8"))
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        shutil.copy(about.parent / target, page.parent)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


def rewrite(app: Sphinx, docname: str, content: list[str]) -> None:
    docs = Path(app.srcdir)
    page = Path(app.env.doc2path(docname))

    def inside(match: re.Match[str]) -> str:
        path = leaves(page, match[1], docs)
        if path is None:
            return match[1]
        if not path.exists():
            raise ValueError(f"{docname}: {match[1]} does not exist")
        if path.name in PAGES:
            return os.path.relpath(docs / PAGES[path.name], page.parent)
        return os.path.relpath(docs / f"{copy_of(path, docs)}.md", page.parent)

    content[0] = LINK.sub(inside, content[0])


PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}  # of the root, which the site includes


def find_all(docs: Path) -> None:
    """Writes the copies of all that pages link to."""
    for page in docs.rglob("*.md"):
        if "_build" in page.parts or page.is_relative_to(docs / "generated/files"):
            continue
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            path = leaves(page, target, docs)
            if path is not None and path.exists() and path.name not in PAGES:
                copy_of(path, docs)


def setup(app: Sphinx) -> dict[str, bool]:
    # After conf.py's own setup, which writes pages from tables, and before Sphinx looks which pages there are.
    app.connect("config-inited", lambda app, config: find_all(Path(app.srcdir)))
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
