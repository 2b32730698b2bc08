"""One thread that runs models for everybody, and a queue before it that does not grow without end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class BusyError(Exception):
    """Too many are waiting already."""


class LeftError(Exception):
    """Whoever asked has gone before it was their turn."""


class Worker:
    """Runs functions one after the other in a thread of its own.

    Args:
        waiting: how many may wait or run at a time.
    """

    def __init__(self, waiting: int = 8):
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="litevit-app")
        self._places = threading.Semaphore(waiting)
        self._turn = asyncio.Lock()

    async def do(self, task: Callable[[], T], *, gone: Callable[[], Awaitable[bool]] | None = None) -> T:
        """The result of `task`.

        Args:
            gone: whether nobody waits for the result any more; asked when it is the task's turn.

        Raises:
            BusyError: at once, where the queue is full.
            LeftError: `gone`.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError("Many people are asking at this moment. Try again in a few seconds.")
        try:
            async with self._turn:
                if gone is not None and await gone():
                    raise LeftError
                return await asyncio.get_running_loop().run_in_executor(self._threads, task)
        finally:
            self._places.release()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
