"""Ctrl-C and SIGTERM: a run finishes its step, saves and ends."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Stop(threading.Event):
    """Set when the run has to end."""

    by_keyboard = False  # Ctrl-C


@contextlib.contextmanager
def stop_signal() -> Iterator[Stop]:
    """Sets an event on SIGTERM or the first Ctrl-C, so that the loop can save. The second Ctrl-C acts as usual.

    Further SIGTERMs are let pass: schedulers send several, and the checkpoint is being written.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def remember(number: int, _: Any) -> None:
        stop.set()
        if number == signal.SIGINT:
            stop.by_keyboard = True
            signal.signal(number, before[signal.SIGINT])

    for number in before:
        signal.signal(number, remember)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_signals_to_the_main_process(_: int) -> None:
    """Ctrl-C, and SIGTERM to a whole process group (`timeout`, a job's end), reach the loader's workers, too.

    They ignore the first, so that the main process can finish its step and save; the second ends them, as PyTorch needs
    to be rid of a worker that hangs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))
