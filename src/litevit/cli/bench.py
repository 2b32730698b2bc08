"""`litevit bench`."""

import difflib
import sys
from collections.abc import Sequence

from litevit.cli.arguments import bind


def bench(arguments: Sequence[str]) -> None:
    """Measures speed beside today's models: litevit bench {models,attention,ops,scaling} [OPTIONS].

    `litevit bench models --help` lists the options of one.
    """
    from litevit.bench.commands import COMMANDS

    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:10} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items()]
        print(
            "\n".join(["usage: litevit bench WHAT [OPTIONS]", "", *lines, "", "`litevit bench WHAT --help` says more."])
        )
        if not arguments:
            sys.exit(2)
        return
    what, *rest = arguments
    if what not in COMMANDS:
        near = difflib.get_close_matches(what, COMMANDS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(COMMANDS)}."
        raise ValueError(f"Unknown benchmark '{what}'. {hint}")
    bind(COMMANDS[what], rest, prog=f"litevit bench {what}")()
