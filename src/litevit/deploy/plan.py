"""What is to be written: which graph, for which images, with which facts about it."""

import sys
from dataclasses import replace
from functools import cache
from typing import Any

from litevit.checkpoints.preprocessing import Preprocessing
from litevit.deploy.formats import Format, Job
from litevit.deploy.graph import Graph, build_graph
from litevit.deploy.metadata import Metadata
from litevit.deploy.preprocess import PreprocessedGraph
from litevit.deploy.program import trace
from litevit.deploy.seal import BLANK
from litevit.deploy.shapes import InputShape, smallest_side
from litevit.deploy.source import Source, plain_config

LEAST_IMAGE = 16  # side of an image that a file resizes itself


def plan(
    source: Source,
    kind: Format,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    dynamic: bool = True,
    preprocessing: bool = False,
    opset: int | None = None,
    verify: bool = True,
) -> tuple[Job, list[str]]:
    """What is to be written, traced when it is. Args: as of `export`. Returns: the job, and notes for the report."""
    notes: list[str] = []
    graph = build_graph(source.model)
    if preprocessing:
        return _plan_with_preprocessing(graph, source, kind, image_size, batch_size, dynamic, opset, verify), notes
    smallest = smallest_side(source.model)
    own = _own_size(source, smallest)
    size: tuple[int, int] | None = (image_size, image_size) if isinstance(image_size, int) else image_size
    batch = batch_size
    if size is None and (not dynamic or not kind.free):
        size = own
        if dynamic:
            notes.append(f"{kind.runtime} files take one size: {size[0]} x {size[1]} (--image-size chooses another)")
    if size is None and min(own) < smallest:
        size = own
        notes.append(f"the model's own images, {own[0]} x {own[1]}, are below the {smallest} pixels of free sides")
    if batch is None and (not dynamic or not kind.free):
        batch = 1
    _check_sizes(size, batch, source)
    shape = InputShape(batch=batch, size=size, smallest=smallest)
    return _job(graph, shape, source, kind, _preprocessing_at(source.preprocessing, size), opset, verify), notes


def _plan_with_preprocessing(
    graph: Graph,
    source: Source,
    kind: Format,
    image_size: int | tuple[int, int] | None,
    batch_size: int | None,
    dynamic: bool,
    opset: int | None,
    verify: bool,
) -> Job:
    """`image_size` is what the images are resized to; the images given may have any size."""
    how = source.preprocessing
    if graph.task != "classification" or how is None:
        raise ValueError(
            f"preprocessing is put into files of classifiers; {source.name} does {graph.task}: leave it out, and "
            "litevit.load_exported resizes and normalises a list of images as the model does"
        )
    if not (kind.free and dynamic):
        raise ValueError(f"preprocessing takes images of any size, which fixed {kind.runtime} files do not")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    _check_sizes(size, batch_size, source)
    if size is not None and size[0] != size[1]:
        raise ValueError(f"preprocessing resizes to squares, got image_size {size[0]} x {size[1]}")
    how = _preprocessing_at(how, size)
    assert how is not None
    shape = InputShape(batch=batch_size, smallest=LEAST_IMAGE, uint8=True)
    return _job(PreprocessedGraph(graph, how).eval(), shape, source, kind, how, opset, verify)


def _job(
    graph: Graph,
    shape: InputShape,
    source: Source,
    kind: Format,
    how: Preprocessing | None,
    opset: int | None,
    verify: bool,
) -> Job:
    metadata = Metadata(
        model=source.name,
        task=graph.task,
        outputs=graph.names,
        classes=source.classes.names if source.classes else (),
        class_ids=source.classes.ids if source.classes else (),
        num_things=source.classes.num_things if source.classes else None,
        preprocessing=how,
        preprocessing_inside=shape.uint8,
        config=plain_config(source.model),
        batch=shape.batch,
        size=shape.size,
        smallest=shape.smallest,
        verified=verify,
        licence=source.licence,
        source=source.source,
        notice=source.notice,
        recipe=source.recipe,
        litevit=litevit_version(),
        seal=BLANK if kind.sealed else None,
    )
    return Job(graph=graph, program=cache(lambda: trace(graph, shape)), shape=shape, metadata=metadata, opset=opset)


def _preprocessing_at(how: Preprocessing | None, size: tuple[int, int] | None) -> Preprocessing | None:
    """A classifier's, where the file takes one square size."""
    if how is None or size is None or not isinstance(how.size, int) or size[0] != size[1]:
        return how
    return replace(how, size=size[0])


def _own_size(source: Source, smallest: int) -> tuple[int, int]:
    """Of the images that the model is made for."""
    how = source.preprocessing
    if how is None or how.size == (0, 0):
        return (max(224, smallest),) * 2
    if isinstance(how.size, int):
        return how.size, how.size
    return how.size[0], how.size[0]


def _check_sizes(size: tuple[int, int] | None, batch: int | None, source: Source) -> None:
    if batch is not None and batch < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch}")
    if size is None:
        return
    if len(size) != 2:
        raise ValueError(f"image_size takes one side or height and width, got {size}")
    backbone = getattr(source.model, "backbone", source.model)
    features: Any = getattr(backbone, "features", ())
    least = features[-1].stride if len(features) == 4 else 1
    if min(size) < least:
        raise ValueError(
            f"image_size must be at least {least} on both sides for {source.name}, got {size[0]} x {size[1]}"
        )


def litevit_version() -> str:
    return str(sys.modules["litevit"].__version__)
