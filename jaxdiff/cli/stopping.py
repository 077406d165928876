"""Being told to stop: a pre-empted worker saves and leaves, and whoever started it starts it again."""

import signal
import threading
from types import FrameType, TracebackType

REQUEUE = 75  # exit code: stopped and saved, start the same command again (EX_TEMPFAIL of sysexits.h)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # of schedulers; Ctrl-C still interrupts at once


class StopRequest:
    """Notes the first SIGTERM or SIGUSR1 inside the block; a second one ends the process as it would have.

    Outside the main thread, where Python takes no handlers, nothing is noted.
    """

    def __init__(self) -> None:
        self.is_wanted = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def __call__(self) -> bool:
        """Whether the process was told to stop."""
        return self.is_wanted

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.is_wanted = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
