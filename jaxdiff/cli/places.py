"""Run folders as commands are given them, a path or a URL, and the local folders that commands work on."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxdiff.io.folders import RunDir
from jaxdiff.io.storage import is_remote

if TYPE_CHECKING:
    from jaxdiff.io.remote import Mirror


class Place(NamedTuple):
    """Where a run is."""

    folder: Path  # on this machine
    mirror: "Mirror | None"  # of a URL: what is in `folder` comes from there and goes there

    def refresh(self) -> None:
        """Brings the results here that have come since.

        Raises:
          OSError: the storage failed.
        """
        if self.mirror is not None:
            self.mirror.pull_results()

    def publish(self, *names: str) -> None:
        """Puts files of the folder where the run is.

        Raises:
          OSError: the storage failed.
        """
        if self.mirror is not None:
            self.mirror.push(*names)


def to_write(name: str | Path) -> Place:
    """The place of a run that is to be made, widened or gone on with.

    Raises:
      OSError: the URL cannot be written.
      ImportError, ValueError: see `Mirror`.
    """
    place = _place(name)
    if place.mirror is not None:
        place.mirror.check_writable()
        if place.mirror.storage.read(["run.json"]):
            place.mirror.pull_study()
    return place


def to_work(name: str | Path) -> Place:
    """The place of a study that is there, with what a worker must know of it.

    Raises:
      OSError: the URL has no study, or cannot be read.
      ImportError, ValueError: see `Mirror`.
    """
    place = _place(name)
    if place.mirror is not None:
        place.mirror.pull_study()
    return place


def to_read(name: str | Path) -> Place:
    """The place of a run with its results, of unfinished packs as of their newest checkpoint; no checkpoints.

    Raises:
      OSError: the URL has no run, or cannot be read.
      ImportError, ValueError: see `Mirror`.
    """
    place = _place(name)
    place.refresh()
    return place


def to_act(name: str | Path) -> Place:
    """The place of a run with its results and its checkpoints.

    Raises:
      OSError: the URL has no run, or cannot be read.
      ImportError, ValueError: see `Mirror`.
    """
    place = to_read(name)
    if place.mirror is not None:
        for pack_id in RunDir(place.folder).list_packs():
            place.mirror.pull_checkpoints(pack_id)
    return place


def _place(name: str | Path) -> Place:
    if not is_remote(name):
        return Place(Path(name).expanduser(), None)
    from jaxdiff.io.remote import Mirror, scratch_of

    mirror = Mirror(str(name), scratch_of(str(name)))
    return Place(mirror.local.path, mirror)
