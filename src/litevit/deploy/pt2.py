"""PyTorch's own exported program (.pt2): runs wherever PyTorch does, and is what AOTInductor compiles."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from litevit.deploy.formats import Format, Job, Opened
from litevit.deploy.metadata import KEY, Metadata
from litevit.deploy.pt2_safety import check_archive
from litevit.files import parse_json

FILE = f"{KEY}.json"


class PT2Engine:
    def __init__(self, program: torch.export.ExportedProgram, threads: int | None):
        self.module = program.module()
        self.threads = threads

    @torch.no_grad()
    def run(self, images: Tensor) -> list[Tensor]:
        with _threads(self.threads):
            return list(self.module(images))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """PyTorch's threads are the process's: they are lent."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write(job: Job, path: Path) -> None:
    # Into memory first: on a full disk PyTorch's own writer of files ends the process instead of raising.
    content = io.BytesIO()
    torch.export.save(job.program(), content, extra_files={FILE: json.dumps(job.metadata.write())})
    # Not its buffer: Python 3.12.1 dies when it collects one that the error of a full disk has kept.
    path.write_bytes(content.getvalue())


def load(path: Path, threads: int | None) -> Opened:
    check_archive(path)
    extra = {FILE: ""}
    with _quiet():
        program = torch.export.load(path, extra_files=extra)
    metadata = Metadata.read(parse_json(extra[FILE] or "{}", f"{path}: {FILE}"), path)
    return Opened(PT2Engine(program, threads), metadata)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch logs the traces of what it tries with a damaged file before it raises."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


FORMAT = Format(name="pt2", suffix=".pt2", runtime="PyTorch", needs=("torch",), write=write, load=load, free=True)
