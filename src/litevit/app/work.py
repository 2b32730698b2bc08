"""One thread that runs models for everybody, and a queue before it that does not grow without end."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class BusyError(Exception):
    """Too many are waiting already."""


class Worker:
    """Runs functions one after the other in a thread of its own.

    Args:
        waiting: how many may wait or run at a time.
    """

    def __init__(self, waiting: int = 8):
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="litevit-app")
        self._places = threading.Semaphore(waiting)

    async def do(self, task: Callable[[], T]) -> T:
        """The result of `task`. Raises BusyError at once where the queue is full."""
        if not self._places.acquire(blocking=False):
            raise BusyError("Many people are asking at this moment. Try again in a few seconds.")

        def run() -> T:
            try:
                return task()
            finally:  # also when whoever asked has gone
                self._places.release()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
