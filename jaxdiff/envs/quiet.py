"""Loading MuJoCo models without known noise."""

from collections.abc import Iterator
import contextlib
import warnings

_KNOWN = "settotalmass"  # half_cheetah.xml, in brax and in gymnasium, uses this deprecated attribute


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """While it lasts, MuJoCo's warnings become Python warnings, and the known one is dropped.

    MuJoCo's own handler would write to stderr and append to a file MUJOCO_LOG.TXT in the working directory.
    """
    import mujoco

    def handle(message: str) -> None:
        if _KNOWN not in message:
            warnings.warn(f"MuJoCo: {message}", RuntimeWarning, stacklevel=2)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(handle)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
