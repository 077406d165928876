"""One offline page of a planner's plans: how they come out of noise, what they were chosen from, what came of them."""

import os
from typing import BinaryIO

from jaxdiff.io import files
from jaxdiff.io.plans.page import Episode, Planned, page


def write(planned: Planned, path: str | os.PathLike[str]) -> None:
    """Writes the page.

    Raises:
      OSError: the file cannot be written.
    """
    content = page(planned).encode()

    def write_all(file: BinaryIO) -> None:
        file.write(content)

    files.write_atomic(path, write_all)


__all__ = ["Episode", "Planned", "page", "write"]
