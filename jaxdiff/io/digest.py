"""One number for what a study computed: equal for equal bits, however its members were packed, killed or scheduled."""

from collections.abc import Mapping
import hashlib

import numpy as np

from jaxdiff.io.runs import Pack, Run

CLOCK = "wall_seconds"


def member_digests(run: Run) -> dict[str, str]:
    """Member id -> hash of its rows of both tables, clocks left out. Members without an evaluation are not there."""
    found = {}
    for pack in run.packs:
        if pack.eval is not None and len(pack.eval["step"]):
            for lane, member in enumerate(pack.members):
                found[member.id] = _digest(pack, lane)
    return found


def digest(digests: Mapping[str, str]) -> str:
    """Hash of all members' hashes, in whichever order they come."""
    lines = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _digest(pack: Pack, lane: int) -> str:
    content = hashlib.sha256()
    for name, table in (("train", pack.train), ("eval", pack.eval)):
        for column in sorted((table or {}).keys() - {CLOCK}):
            values = table[column]  # type: ignore[index]
            mine = np.ascontiguousarray(values if column == "step" else values[:, lane])
            content.update(f"{name} {column} {mine.dtype} {mine.shape}\n".encode())
            content.update(mine.tobytes())
    return content.hexdigest()[:16]
