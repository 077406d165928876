"""`--watch[=SECONDS]`: the same look again and again, until what is looked at has finished."""

from collections.abc import Callable, Sequence
import time

from absl import flags

DEFAULT_SECONDS = 10.0


def define_watch(about: str, values: flags.FlagValues) -> None:
    """Adds the flag; its value is None, or the seconds between two looks."""
    flags.DEFINE_float("watch", None, about, lower_bound=0.1, flag_values=values)


def with_seconds(argv: Sequence[str]) -> list[str]:
    """The arguments with a bare --watch given its default, since a flag of a number cannot be without one."""
    bare = {"--watch", "-watch"}
    return [f"--watch={DEFAULT_SECONDS:g}" if word in bare else word for word in argv]


def repeat(look: Callable[[], bool], seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Calls `look` every so many seconds until it says that there is nothing more to come."""
    while not look():
        sleep(seconds)
