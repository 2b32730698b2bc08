"""`litevit app`."""

import sys
from pathlib import Path

from litevit.cli.terminal import Device, plain_word


def app(
    *,
    model: str | None = None,
    weights: str | None = None,
    run: tuple[Path, ...] = (),
    exported: tuple[Path, ...] = (),
    host: str = "127.0.0.1",
    port: int = 8765,
    open: bool = False,
    device: Device = "auto",
) -> None:
    """Serves a web page on this machine: try the models on pictures, see what they look at, follow training runs.

    Args:
        model: name of the model that the page starts with; default: the first run or exported file, else litv2_s. The
            page offers every model.
        weights: 'official' (where they have been downloaded before), 'none' (random), a checkpoint file, or the folder
            of a training run.
        run: folders of training runs, or folders that hold some, for the page to offer and follow.
        exported: files of litevit export for the page to offer.
        host: address to listen on. 127.0.0.1 is this machine alone; under any other the address gets a random token,
            without which nothing is answered.
        port: 0 takes any that is free.
        open: open the page in the browser.
        device: where models run.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {port}")
    from litevit.app.choices import Choices
    from litevit.app.server import serve
    from litevit.devices import find_device

    word = None if weights is None else plain_word(weights)
    choices = Choices(model=model, weights=word, runs=run, exported=exported, device=find_device(device))

    def ready(address: str) -> None:
        print(f"litevit app: {address}", flush=True)
        print("Ctrl+C ends it. Pictures stay in memory on this machine.", file=sys.stderr)
        if open:
            import webbrowser

            webbrowser.open(address)

    serve(choices, host=host, port=port, ready=ready)
