"""One live line on stderr: how far, how fast, how long still, how many members were lost."""

from collections import deque
from collections.abc import Callable
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import rich.progress

WINDOW = 20  # updates over which the speed is measured


class Progress:
    """Shows the progress of a run: a line that redraws itself on a terminal, plain lines elsewhere.

    Plain lines come at most every `seconds_between_lines`, so a cluster's log stays readable; the first and the last
    state are always printed. The speed is that of the last few updates, compilation and resumed work left out.

    Args:
      total_member_updates: members times updates each, over the whole run.
      members: how many train in total, for the count of lost ones.
      stream: where to write; None is stderr.
      seconds_between_lines: for plain lines.
      clock: seconds from any origin.

    Raises:
      ValueError: total_member_updates or members is less than 1.
    """

    def __init__(
        self,
        total_member_updates: int,
        members: int,
        *,
        stream: TextIO | None = None,
        seconds_between_lines: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if total_member_updates < 1 or members < 1:
            raise ValueError(f"{total_member_updates=} and {members=} must be at least 1.")
        self._total, self._members = total_member_updates, members
        self._stream = sys.stderr if stream is None else stream
        self._seconds_between_lines, self._clock = seconds_between_lines, clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._printed_at: float | None = None
        self._unprinted: str | None = None
        self._bar: rich.progress.Progress | None = None
        if self._stream.isatty():
            self._bar = _bar(self._stream)
            self._task = self._bar.add_task("", total=total_member_updates, text="compiling")
            self._bar.start()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, done: int, nonfinite: int = 0, note: str = "") -> None:
        """Shows the state.

        Args:
          done: member-updates applied so far, resumed ones included. The first call sets where the speed counts from.
          nonfinite: members frozen because a number in them stopped being finite.
          note: a few words at the end of the line, such as the best setting's score.
        """
        now = self._clock()
        self._seen.append((now, done))
        text = self._describe(done, nonfinite, note)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)
            self._bar.refresh()
        elif self._printed_at is None or now - self._printed_at >= self._seconds_between_lines:
            self._print(f"{100 * done / self._total:5.1f}%  {text}", now)
        else:
            self._unprinted = f"{100 * done / self._total:5.1f}%  {text}"

    def close(self) -> None:
        """Leaves the last state on the screen and the cursor on a fresh line. May be called twice."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._unprinted is not None:
            self._print(self._unprinted, self._clock())

    def _print(self, line: str, now: float) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
        self._printed_at, self._unprinted = now, None

    def _describe(self, done: int, nonfinite: int, note: str) -> str:
        parts = [f"{done:,}/{self._total:,} member-updates"]
        speed = self._speed()
        if speed is not None:
            parts.append(f"{_short(speed)}/s")
            parts.append(f"{_duration((self._total - done) / speed)} left")
        if nonfinite:
            parts.append(f"{nonfinite} of {self._members} members non-finite")
        if note:
            parts.append(note)
        return "  ".join(parts)

    def _speed(self) -> float | None:
        """Member-updates per second over the window; None before anything can be said."""
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - start) if end > start and last > first else None


def _bar(stream: TextIO) -> "rich.progress.Progress":
    import rich.console
    import rich.progress
    import rich.table

    return rich.progress.Progress(
        rich.progress.BarColumn(bar_width=24),
        rich.progress.TaskProgressColumn(),
        rich.progress.TextColumn("{task.fields[text]}", markup=False, table_column=rich.table.Column(no_wrap=True)),
        console=rich.console.Console(file=stream),
        auto_refresh=False,
        redirect_stdout=False,
    )


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.1f}"


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
