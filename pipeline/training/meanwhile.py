"""A sign of life from what takes long: a line each half minute in which nothing else was said."""

import threading
from collections.abc import Callable

from pipeline import LINE_EVERY_S


class Meanwhile:
    """Calls a function, in a thread, whenever it was not told for half a minute that something was `said`.

    From `start` to `stop`, or as a context manager.

    Args:
        tell: says how far it is.

    Example:
        >>> with Meanwhile(lambda: print("still at it")) as meanwhile:
        ...     meanwhile.said()
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._said = threading.Event()
        self._over = False
        self._thread: threading.Thread | None = None

    def said(self) -> None:
        """Something was: the half minute begins anew."""
        self._said.set()

    def start(self) -> None:
        """Begin the first half minute."""
        self._over = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Say nothing more."""
        self._over = True
        self._said.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> "Meanwhile":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _watch(self) -> None:
        while not self._over:
            if self._said.wait(LINE_EVERY_S):
                self._said.clear()
            else:
                self._tell()
