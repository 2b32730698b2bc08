"""Ranges of a recipe's numbers, as annotations: `engine.config` checks them all before a run begins."""

from typing import Annotated

from annotated_types import Ge, Gt, Interval

Positive = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]
Above0 = Annotated[float, Gt(0)]
AtLeast0 = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
ShareAbove0 = Annotated[float, Interval(gt=0, le=1)]
ShareBelow1 = Annotated[float, Interval(ge=0, lt=1)]
