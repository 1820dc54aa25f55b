"""A request to stop. The training loop asks at every step, so that all ranks stop at the same one."""

import os
import signal
import threading
import time
from types import FrameType

_PARENT_SECONDS = 1.0


class StopFlag:
    """Raised by SIGTERM, SIGINT or the death of the launcher, and never lowered."""

    def __init__(self) -> None:
        self.signals = 0
        """Reasons to stop so far."""

    @property
    def requested(self) -> bool:
        """Whether the run should commit and end."""
        return self.signals > 0

    def install(self) -> None:
        """Listen to the signals. To be called in the main thread, before anything slow is imported."""
        signal.signal(signal.SIGTERM, self._raise)
        signal.signal(signal.SIGINT, self._raise)

    def follow_parent(self) -> None:
        """Stop when the process that started this one is gone: nobody would hear how the rank ends, and another
        attempt may already start.
        """
        parent = os.getppid()

        def follow() -> None:
            while os.getppid() == parent:
                time.sleep(_PARENT_SECONDS)
            self.signals += 1

        threading.Thread(target=follow, name="launcher-watch", daemon=True).start()

    def _raise(self, _signum: int, _frame: FrameType | None) -> None:
        self.signals += 1
