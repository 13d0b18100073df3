"""Being asked to stop: by Ctrl-C, or by a scheduler that takes the machine away."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from accelerate import Accelerator


class Stop:
    """Notes SIGINT and SIGTERM inside a `with` block, so that a step is finished and saved first.

    A second Ctrl-C interrupts at once. Processes of a run agree: if one is asked, all stop after the same
    step.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator, self._before = accelerator, dict[int, Any]()
        self.was_asked = False

    def __enter__(self) -> Stop:
        # Python lets no other thread handle signals: there, whoever started it has to be asked.
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether any process was asked to stop; all processes must ask alike."""
        if self._accelerator.num_processes > 1:
            if self.was_asked:
                self._accelerator.set_trigger()
            self.was_asked = self._accelerator.check_trigger()
        return self.was_asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.was_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.was_asked = True
