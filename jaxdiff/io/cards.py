"""The card of a checkpoint: which files a step's folder must hold, of which size and CRC-32.

It is written after everything else, so a folder without a card, or with other content, is no checkpoint.
"""

from pathlib import Path
from typing import Any
import zlib

from jaxdiff.io import files

CARD = "card.json"


def listed(folder: Path) -> dict[str, list[int]]:
    """Relative name -> [size, CRC-32] of every file of a step's folder but the card."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)
    return {str(path.relative_to(folder)): [path.stat().st_size, crc(path)] for path in paths}


def crc(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def damage(folder: Path, card: dict[str, Any], *, checksums: bool) -> str | None:
    """What is wrong with the files the card names; None when nothing is."""
    for name, (size, wanted) in card["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, not {size}"
        if checksums and crc(path) != wanted:
            return f"the content of {name} changed since it was written"
    return None


def whole_steps(directory: Path) -> list[int]:
    """Steps in a folder of checkpoints whose files have the sizes that their cards tell, ascending."""
    steps = []
    for path in directory.glob(f"*/{CARD}"):
        try:
            known = files.read_json(path)
            is_whole = path.parent.name.isdecimal() and damage(path.parent, known, checksums=False) is None
        except (ValueError, OSError):  # removed while we looked, or damaged
            continue
        if is_whole:
            steps.append(int(path.parent.name))
    return sorted(steps)
