"""`litevit train`."""

import sys
from collections.abc import Sequence
from typing import Any

import tyro


def train(arguments: Sequence[str]) -> None:
    """Runs a recipe: litevit train RECIPE --data PATH [--field.name value ...].

    The fields of the recipe are its options: `litevit train quickstart --help` lists them.
    """
    from litevit import recipes
    from litevit.jobs import train as job

    names = ", ".join(recipes.RECIPES)
    usage = f"usage: litevit train RECIPE --data PATH [OPTIONS]\n\nRecipes: {names}, or a run's recipe.json"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{usage}\n`litevit train RECIPE --help` lists the options of one.")
        if not arguments:
            sys.exit(2)
        return
    name, *rest = arguments
    recipe = recipes.get_recipe(name)
    recipe, rest = _model_overrides(recipe, _as_tyro_spells(recipe, rest))
    kind: Any = job.Recipe[job.TASKS[recipe.task][0]]  # type: ignore[misc, valid-type]
    recipe = tyro.cli(kind, default=recipe, args=rest, prog=f"litevit train {name}")
    job.train(recipe)


def _as_tyro_spells(recipe: Any, arguments: Sequence[str]) -> list[str]:
    """`--data PATH` is `--data.path PATH`, and a switch takes `True` and `False` like every other field."""
    words = [
        word.replace("--data", "--data.path", 1) if word.partition("=")[0] == "--data" else word for word in arguments
    ]
    spelled: list[str] = []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        path = name.removeprefix("--").replace("-", "_").split(".")
        found: Any = recipe
        for part in path:
            found = getattr(found, part, None)
        given = value if equals else words[0] if words else ""
        if name.startswith("--") and isinstance(found, bool) and given.lower() in ("true", "false"):
            if not equals:
                words.pop(0)
            group, dot, field = name.rpartition(".")
            spelled.append(name if given.lower() == "true" else f"{group}{dot}no-{field}")
        else:
            spelled.append(word)
    return spelled


def _model_overrides(recipe: Any, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Takes `--model.overrides.FIELD VALUE` out of the arguments: any field of the model's config may be set."""
    from litevit.engine.config import override

    rest = list(arguments)
    prefix = "--model.overrides."
    while (i := next((i for i, word in enumerate(rest) if word.startswith(prefix)), None)) is not None:
        word, equals, value = rest.pop(i).partition("=")
        values = [value] if equals else []
        while not equals and i < len(rest) and not rest[i].startswith("--"):
            values.append(rest.pop(i))
        if not values:
            raise ValueError(f"{word} needs a value")
        text = values[0] if len(values) == 1 else f"[{', '.join(values)}]"
        recipe = override(recipe, word.removeprefix("--").replace("-", "_"), text)
    return recipe, rest
