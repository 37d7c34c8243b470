"""Whether this process was asked to stop: what decoders would swallow as an exception is looked up here between clips."""

from __future__ import annotations

import threading
from typing import Final


class Interruption:
    """Asked for from a signal handler or any thread; noticed by whoever works."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Asks to stop."""
        self._asked.set()

    def forget(self) -> None:
        """As if nobody had asked, for the next run of this process."""
        self._asked.clear()

    @property
    def is_asked(self) -> bool:
        """Whether anybody has asked."""
        return self._asked.is_set()

    def raise_if_asked(self) -> None:
        """Raises KeyboardInterrupt if anybody has asked."""
        if self.is_asked:
            raise KeyboardInterrupt


INTERRUPTION: Final = Interruption()
"""Of this process."""
