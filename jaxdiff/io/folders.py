"""The run folder: where each file lies.

DIR/run.json, packs.json, facts.json, report.html
DIR/packs/<pack_id>/pack.json, train.npz, eval.npz, rollouts.npz, plans.npz, checkpoints/, done.json, failed.json, lock
"""

import dataclasses
import os
from pathlib import Path
import re

from jaxdiff.io import files

PACK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class PackDir:
    """Paths of one pack: members that train side by side in one program."""

    path: Path

    @property
    def id(self) -> str:
        """Name of the pack's folder."""
        return self.path.name

    @property
    def pack_json(self) -> Path:
        """What was planned: lanes, config, number of updates, members."""
        return self.path / "pack.json"

    @property
    def train(self) -> Path:
        """Training metrics, columns [T, L]."""
        return self.path / "train.npz"

    @property
    def eval(self) -> Path:
        """Evaluation returns, scores and lengths, columns [T, L, M]."""
        return self.path / "eval.npz"

    @property
    def rollouts(self) -> Path:
        """A few episodes of the last evaluation."""
        return self.path / "rollouts.npz"

    @property
    def plans(self) -> Path:
        """A planner's plans at the starts of those episodes."""
        return self.path / "plans.npz"

    @property
    def checkpoints(self) -> Path:
        """Folder of `checkpoint.Checkpoints`."""
        return self.path / "checkpoints"

    @property
    def done(self) -> Path:
        """Written last: cost, speed, members that went non-finite."""
        return self.path / "done.json"

    @property
    def failed(self) -> Path:
        """What went wrong when it was last tried; gone once it has finished."""
        return self.path / "failed.json"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the pack, see `locks`."""
        return self.path / "lock"

    def is_done(self) -> bool:
        """Whether the pack finished: done.json is written last."""
        return self.done.is_file()


@dataclasses.dataclass(frozen=True)
class RunDir:
    """Paths of one run folder. Makes and reads nothing by itself."""

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", Path(path))

    @property
    def run_json(self) -> Path:
        """Command, resolved config, versions, dataset: see `stamp`."""
        return self.path / "run.json"

    @property
    def packs_json(self) -> Path:
        """The packs of the study in order: see `packlist`."""
        return self.path / "packs.json"

    @property
    def facts_json(self) -> Path:
        """Facts about the environment that a picture may want."""
        return self.path / "facts.json"

    @property
    def report_html(self) -> Path:
        """The report."""
        return self.path / "report.html"

    def pack(self, pack_id: str) -> PackDir:
        """Paths of the pack `pack_id`, whether or not it exists.

        Raises:
          ValueError: the id is not a plain folder name.
        """
        if not PACK_ID.fullmatch(pack_id):
            raise ValueError(f"pack id {pack_id!r} must be letters, digits, '.', '_' and '-', not starting with '.'.")
        return PackDir(self.path / "packs" / pack_id)

    def list_packs(self) -> list[str]:
        """Ids of the packs that have a folder, sorted."""
        folder = self.path / "packs"
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and PACK_ID.fullmatch(entry.name))

    def is_done(self) -> bool:
        """Whether there is a pack and every pack, of packs.json or with a folder, has finished."""
        listed = files.read_json_object(self.packs_json, ("packs",))["packs"] if self.packs_json.is_file() else []
        packs = {*self.list_packs(), *(entry["id"] for entry in listed)}
        return bool(packs) and all(self.pack(pack_id).is_done() for pack_id in packs)
