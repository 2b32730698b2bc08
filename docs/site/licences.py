"""The licences of everything that litevit asks for, as the installed packages state them.

python docs/site/licences.py        writes docs/licences.md
"""

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "licences.md"
# SPDX's names for what older packages write in words, in a classifier or at the head of their licence file.
SPDX = (
    (r"apache.{0,60}(2\.0|software)|^apache$|www\.apache\.org/licenses/license-2\.0", "Apache-2.0"),
    (r"^mit\b|mit license|permission is hereby granted, free of charge", "MIT"),
    (r"bsd.?3|3-clause bsd|bsd 3-clause|neither the name of", "BSD-3-Clause"),
    (r"bsd.?2|freebsd|simplified bsd", "BSD-2-Clause"),
    (r"\bbsd\b|redistribution and use in source and binary forms", "BSD-3-Clause"),
    (r"mpl.?2|mozilla public license.{0,20}2\.0", "MPL-2.0"),
    (r"python software foundation|psf", "PSF-2.0"),
    (r"nvidia|cuda", "NVIDIA's, proprietary"),
    (r"\bisc\b", "ISC"),
    (r"unlicense", "Unlicense"),
    (r"lgpl|lesser general public", "LGPL"),
    (r"gpl|general public license", "GPL"),
)
# Wheels that carry encoders under another licence than the source, which is all that their metadata name.
WHEELS = {
    "av": "BSD-3-Clause; wheels: GPL-2.0, for their x264 and x265",  # libx264, libx265 in av.libs
    "pillow-heif": "BSD-3-Clause; wheels: GPL-2.0, for their x265",  # its LICENSES_bundled.txt
}
ASKS_MORE = re.compile(r"GPL|MPL|NVIDIA|proprietary|not stated|General Public", flags=re.IGNORECASE)
HEAD = (
    "# Licences",
    "",
    "Made by `python docs/site/licences.py`: what the installed packages say of themselves. litevit is Apache-2.0; the "
    "licences of weights and data stand in the [README](../README.md#papers-and-licences) and on every "
    "[model's card](generated/models.md). A package's own files say what else it carries (PyTorch's wheels for CUDA "
    "bring NVIDIA's libraries; those of pillow-heif libheif, LGPL).",
    "",
    "To look for known vulnerabilities in what you have installed: `pip install pip-audit`, then `pip-audit`, which "
    "asks an advisory service on the internet.",
    "",
    "## What litevit asks for",
    "",
    "| package | in | licence |",
    "|---|---|---|",
)


def named(text: str) -> str | None:
    """SPDX's name for a licence in words. Args: text: a name, a classifier or the file itself."""
    if len(text) <= 60 and re.search(r"\b(AND|OR|WITH)\b", text):
        return text
    found = (spdx for pattern, spdx in SPDX if re.search(pattern, text.strip(), flags=re.IGNORECASE | re.DOTALL))
    return next(found, None)


def licence_of(package: Distribution) -> str:
    """By the first that says it: `WHEELS`, SPDX's field, the classifiers, the field in words, the licence file."""
    said = package.metadata
    if known := WHEELS.get(canonicalize_name(said["Name"])):
        return known
    if expression := said["License-Expression"]:
        return str(expression)
    lines = [line for line in said.get_all("Classifier") or [] if line.startswith("License ::")]
    classifiers = [line.rpartition("::")[2].strip() for line in lines if not line.endswith(("approved", "Approved"))]
    if len(classifiers) > 1:
        return ", ".join(classifiers)
    if classifiers and classifiers != ["BSD License"] and (name := named(classifiers[0])):
        return name
    for text in (said["License"] or "", *files_of(package), *classifiers):
        if name := named(text):
            return name
    return "not stated"


def files_of(package: Distribution) -> list[str]:
    names = [path for path in package.files or [] if re.match(r"licen[cs]e|copying", path.name, flags=re.IGNORECASE)]
    found = [path.locate() for path in names if ".dist-info" in str(path)]
    return [Path(path).read_text(encoding="utf-8", errors="replace")[:2000] for path in found if Path(path).is_file()]


def asked() -> dict[str, set[str]]:
    """Every package that pyproject.toml names, and where: the core or an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, set[str]] = {}
    for group, lines in groups.items():
        for line in lines:
            name = canonicalize_name(Requirement(line).name)
            if name != "litevit":
                found.setdefault(name, set()).add(group)
    return found


def brought(names: set[str]) -> dict[str, Distribution]:
    """Packages, and all that they need, as far as it is installed here."""
    found: dict[str, Distribution] = {}
    left = [(name, "") for name in names]
    seen = set(left)
    while left:
        name, extra = left.pop()
        try:
            package = found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for line in package.requires or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                for wanted in ((canonicalize_name(need.name), extra) for extra in ("", *need.extras)):
                    if wanted not in seen:
                        seen.add(wanted)
                        left.append(wanted)
    return found


def direct() -> list[str]:
    """A row of the page for every package that pyproject.toml names."""
    here = brought(set(asked()))
    return [
        f"| {name} | {', '.join(sorted(groups))} | {licence_of(here[name]) if name in here else 'not installed here'} |"
        for name, groups in sorted(asked().items())
    ]


def page() -> str:
    named_here = asked()
    core = brought({name for name, groups in named_here.items() if "core" in groups})
    users = brought({name for name, groups in named_here.items() if groups - {"dev", "docs"}})
    others = brought(set(named_here))
    lines = [*HEAD, *direct(), ""]
    lines += ["## What those bring", "", "| package | with | licence |", "|---|---|---|"]
    for name, package in sorted(others.items()):
        if name not in named_here:
            how = "core" if name in core else "extras" if name in users else "docs, dev"
            lines.append(f"| {name} | {how} | {licence_of(package)} |")
    asking = [
        f"{name} ({licence_of(package)}; {'core' if name in core else 'extras' if name in users else 'docs, dev'})"
        for name, package in sorted(others.items())
        if ASKS_MORE.search(licence_of(package))
    ]
    lines += ["", "## Those that ask for more than their notice", ""]
    lines += [*(f"* {line}" for line in asking), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
