"""`litevit train`: the fields of a recipe as options, read by tyro and checked by pydantic."""

import difflib
import json
import sys
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, Union

from tyro.conf import FlagConversionOff, arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from litevit.cli.arguments import parse, unknown_option
from litevit.cli.options import known_options
from litevit.cli.options_table import GENERIC
from litevit.files import parse_json

INTERRUPTED = 130  # as a shell says it of Ctrl-C


def train(arguments: Sequence[str]) -> int:
    """Runs a recipe: litevit train RECIPE --data PATH [--field.name value ...].

    The fields of the recipe are its options: `litevit train quickstart --help` lists them.

    Returns: the exit code: 0, also of a run that SIGTERM ended; 130 of one that Ctrl-C did.
    """
    from litevit import recipes

    names = ", ".join(recipes.RECIPES)
    usage = f"usage: litevit train RECIPE --data PATH [OPTIONS]\n\nRecipes: {names}, or a run's recipe.json"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{usage}\n`litevit train RECIPE --help` lists the options of one.")
        if not arguments:
            sys.exit(2)
        return 0
    name, *rest = arguments
    if name.startswith("-"):
        raise ValueError(f"The recipe comes first: litevit train RECIPE {name} ...; recipes: {names}")
    about = recipes.RECIPES[name].__doc__ if name in recipes.RECIPES else f"The recipe in {name}."
    recipe, only_show = read_options(recipes.get_recipe(name), rest, prog=f"litevit train {name}", about=about)
    from litevit.engine.config import to_dict
    from litevit.jobs import train as job

    if only_show:
        print(json.dumps(to_dict(job.resolve(recipe)), indent=2))
        return 0
    return INTERRUPTED if job.train(recipe).by_keyboard else 0


def read_options(recipe: Any, arguments: Sequence[str], *, prog: str, about: str | None = None) -> tuple[Any, bool]:
    """The recipe with what the command line says instead, and whether it is only to be shown.

    Raises:
        ValueError: an option that does not exist, or a value that cannot be read or is out of its range.
    """
    from dataclasses import replace

    from litevit.engine.config import Recipe, check
    from litevit.jobs.recipe_files import DATA

    whole: Any = Recipe[DATA[recipe.task]]  # type: ignore[misc, valid-type]
    chosen = _choose_model(recipe, arguments)
    recipe, chosen = _with_backbone(recipe, chosen)
    known = _known_overrides(recipe, chosen.name, asks={"-h", "--help"} & set(arguments))
    kept = _keep_overrides(recipe, chosen.name, known, chosen.without)
    types = {name: _as_option(kind) for name, kind in known.items()}
    kinds: Any = TypedDict("kinds", types, total=False)  # type: ignore[misc]

    def options(
        recipe: Annotated[whole, arg(name="")] = recipe,
        overrides: Annotated[kinds, arg(name="model.overrides")] = kept,  # type: ignore[assignment]
        data: str | None = None,
        without: tuple[str, ...] = (),
        show_recipe: bool = False,
    ) -> tuple[Any, bool]:
        """
        Args:
            data: the same as --data.path
            without: names in model.overrides that the recipe sets and this run does not
            show_recipe: print the recipe as it would run, as JSON, and stop
        """
        if data is not None:
            recipe = replace(recipe, data=replace(recipe.data, path=data))
        return replace(recipe, model=replace(recipe.model, overrides=dict(overrides))), show_recipe

    (recipe, only_show), unknown = parse(
        options,
        arguments,
        prog=prog,
        description=about,
        return_unknown_args=True,
        config=(FlagConversionOff,),
        registry=_registry(),
    )
    if unknown:
        raise ValueError(_unknown_option(unknown, recipe, list(known)))
    check(recipe)
    return recipe, only_show


class Chosen(NamedTuple):
    """What decides which other options there are."""

    name: str  # of the model
    weights: str | None
    backbone: str | None
    without: tuple[str, ...]  # of the recipe's overrides


def _choose_model(recipe: Any, arguments: Sequence[str]) -> Chosen:
    def choice(
        name: Annotated[str, arg(name="model.name")] = recipe.model.name,
        weights: Annotated[str | None, arg(name="model.weights")] = recipe.model.weights,
        backbone: Annotated[str | None, arg(name="model.overrides.backbone")] = None,
        without: tuple[str, ...] = (),
    ) -> Chosen:
        own = None if "backbone" in without else recipe.model.overrides.get("backbone")
        return Chosen(name, weights, backbone or own, without)

    return parse(choice, arguments, prog="litevit train", return_unknown_args=True, add_help=False)[0]


def _with_backbone(recipe: Any, chosen: Chosen) -> tuple[Any, Chosen]:
    """The recipe with the backbone of a model that takes any: the one that is given, or that of the weights."""
    from dataclasses import replace

    backbone = chosen.backbone
    if chosen.name in GENERIC and backbone is None:
        from litevit.checkpoints.load import backbones_of
        from litevit.checkpoints.published import is_file
        from litevit.jobs.runs import find_run

        if (run := find_run(chosen.weights)) is not None:
            backbone = run.backbone
        elif chosen.weights is not None and is_file(chosen.weights):
            backbone = next(iter(backbones_of(chosen.weights)), None)
        if backbone is None:
            raise ValueError(
                f"{chosen.name} takes any backbone: say which, as --model.overrides.backbone litv2_s, or start from a "
                "run with --model.weights RUN"
            )
        said = f"{chosen.name} takes the backbone of {chosen.weights}: {backbone}"
        print(f"litevit: {said} (--model.overrides.backbone: another)", file=sys.stderr)
        chosen = chosen._replace(without=tuple(name for name in chosen.without if name != "backbone"))
    if backbone is not None:
        overrides = {**recipe.model.overrides, "backbone": backbone}
        recipe = replace(recipe, model=replace(recipe.model, overrides=overrides))
    return recipe, chosen


def _known_overrides(recipe: Any, name: str, *, asks: object) -> dict[str, Any]:
    """All overrides a model may have, with their types. Args: asks: true where help alone is asked for."""
    own = recipe.model.overrides
    if name.startswith("timm/"):  # its models take what they like: the recipe's own, and what nearly all have
        given = {key: type(value) for key, value in own.items()} if name == recipe.model.name else {}
        return {"drop_path_rate": float, **given}
    if asks and (known := known_options(name, own.get("backbone"))) is not None:
        return known
    from litevit.zoo import model_options

    return model_options(name, own.get("backbone"))


def _keep_overrides(recipe: Any, name: str, known: dict[str, Any], without: Sequence[str]) -> dict[str, Any]:
    """The recipe's overrides of the model that stay."""
    given = recipe.model.overrides
    if strange := [key for key in without if key not in given]:
        there = f"It has: {', '.join(given)}." if given else "It has none."
        raise ValueError(f"--without {strange[0]}: the recipe has no such override of the model. {there}")
    # JSON has lists where a model's config has tuples.
    rows = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    kept = {key: value for key, value in rows.items() if key not in without}
    if strange := [key for key in kept if key not in known]:
        if name == recipe.model.name:
            if strange[0] == "backbone":
                raise ValueError(_own_backbone(name))
            near = difflib.get_close_matches(strange[0], known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Leave it out with --without {strange[0]}."
            raise ValueError(f"Unknown option of {name}: '{strange[0]}'. {hint}")
        print(f"litevit: {name} has no {', '.join(strange)}: left out of the recipe's overrides", file=sys.stderr)
    return {key: value for key, value in kept.items() if key in known}


def _own_backbone(name: str) -> str:
    """What to do where a model that has its backbone in its name is given another."""
    system = next((system for system in GENERIC if name.startswith(f"{system}_")), None)
    other = f"{system} --model.overrides.backbone lit_s" if system else "lit_s (`litevit list` shows all)"
    return f"{name} has its own backbone. For another: --model.name {other}"


def _as_option(kind: Any) -> Any:
    """The type of a model's option as tyro reads it; what is more than a value or a row of values is given as JSON."""
    scalars = (int, float, bool, str, type(None))

    def simple(kind: Any, inside: bool = False) -> bool:
        origin = typing.get_origin(kind)
        if origin in (Union, types.UnionType) or (origin is tuple and not inside):
            return all(part is Ellipsis or simple(part, origin is tuple) for part in typing.get_args(kind))
        return kind in scalars or origin is Literal

    return kind if simple(kind) else Annotated[object, JSON]


JSON: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="JSON",
    instance_from_str=lambda words: parse_json(words[0], repr(words[0][:60])),
    is_instance=lambda value: True,
    str_from_instance=lambda value: [json.dumps(value)],
)


def _registry() -> ConstructorRegistry:
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def switch(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[bool] | None:
        """`--run.compile`, `--run.compile True` and `--run.compile false`."""
        if info.type is not bool:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="[True|False]",
            instance_from_str=_read_switch,
            is_instance=lambda value: isinstance(value, bool),
            str_from_instance=lambda value: [str(value)],
        )

    @registry.struct_rule
    def overrides(info: StructTypeInfo) -> StructConstructorSpec | None:
        """A recipe's `model.overrides` have their own place among the options, with the types of the model's config."""
        if typing.get_origin(info.type) is not dict:
            return None
        return StructConstructorSpec(instantiate=dict, fields=())

    return registry


def _read_switch(words: Sequence[str]) -> bool:
    word = " ".join(words).lower() or "true"
    if word not in ("true", "false"):
        raise ValueError(f"expected True or False, got {' '.join(words)}")
    return word == "true"


def _unknown_option(unknown: Sequence[str], recipe: Any, overrides: Sequence[str]) -> str:
    """One line about the first argument that no option took."""
    from litevit.engine.config import flat, to_dict

    option = next((word for word in unknown if word.startswith("--")), None)
    if option is None:
        return f"Unexpected argument {unknown[0]!r}: options begin with --, and a value follows its option."
    written = option.partition("=")[0].removeprefix("--model.").replace("-", "_")
    if option.startswith("--model.") and written == "backbone" and "backbone" not in overrides:
        return f"Unknown option {option}. {_own_backbone(recipe.model.name)}"
    if option.startswith("--model.") and written in overrides:
        return f"Unknown option {option}. Did you mean --model.overrides.{written}?"
    fields = [field for field in flat(to_dict(recipe)) if not field.startswith("model.overrides")]
    known = [*fields, *(f"model.overrides.{key}" for key in overrides), "data", "without", "show-recipe"]
    return unknown_option(option.partition("=")[0], [f"--{name}" for name in known])
