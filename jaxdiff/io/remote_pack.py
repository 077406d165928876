"""One pack of a remote run folder: what is pushed and pulled in which order. `remote` says why in this one."""

from collections.abc import Iterable, Mapping
import json
from pathlib import Path
import re
import shutil
from typing import Any
import zlib

from absl import logging

from jaxdiff.io import cards, files
from jaxdiff.io.folders import PACK_ID, PackDir
from jaxdiff.io.storage import Storage

TABLES = ("pack.json", "train.npz", "eval.npz", "rollouts.npz")  # what goes with a checkpoint
RESULTS = (*TABLES, "plans.npz")
DONE, FAILED = "done.json", "failed.json"
STEP = re.compile(r"(checkpoints|tables)/(\d+)(-[0-9a-f]+)?/")

Signature = tuple[int, int, int]  # size, time of the last change, inode: a file written anew has another
Card = tuple[bytes, dict[str, Any]]


class RemotePack:
    """A pack there and its folder here. Whoever calls `pull` or `push` holds the folder's lock."""

    def __init__(self, storage: Storage, folder: PackDir) -> None:
        self.storage, self.folder = storage, folder
        self._pushed: dict[str, Signature] = {}

    def push(self) -> None:
        """Checkpoints, results, done.json, failed.json, and deletion of what is old, in this order."""
        there, is_done = self._list(), self.folder.is_done()
        if not is_done and "pack.json" not in there:
            self._write("pack.json")
        steps = [step for step in cards.whole_steps(self.folder.checkpoints) if self._push_step(step, there)]
        if is_done:
            for name in (*RESULTS, DONE):
                self._write(name)
        self._write(FAILED)
        if FAILED in there and not self.folder.failed.is_file():
            self._remove(FAILED)
        self._remove_old(there, steps)
        if is_done:
            self._remove("tables")

    def pull(self) -> None:
        """Results of a finished pack; else the newest whole checkpoint with its tables, and the best one."""
        there = self._list()
        known = self._begin_pull(there)
        if known is None:
            return
        for step in sorted(known, reverse=True):
            if self._pull_step(step, known[step], _tables(step, known[step])):
                self._pull_best(known)
                return
        self._take("", ("pack.json", FAILED), there)

    def pull_results(self, there: Mapping[str, int]) -> None:
        """Everything but checkpoints."""
        known = self._begin_pull(there)
        if known is None:
            return
        newest = max(known, default=None)
        if newest is None:
            self._take("", ("pack.json",), there)
        else:
            self._take(_tables(newest, known[newest]), TABLES, there)
        self._take("", (FAILED,), there)

    def pull_checkpoints(self) -> None:
        """The newest whole checkpoint and the best one, of a pack that may have finished."""
        known = self._cards(self._list())
        for step in sorted(known, reverse=True):
            if self._pull_step(step, known[step]):
                break
        self._pull_best(known)

    def _list(self) -> dict[str, int]:
        return by_pack(self.storage.list(f"packs/{self.folder.id}")).get(self.folder.id, {})

    def _there(self, name: str) -> str:
        return f"packs/{self.folder.id}/{name}"

    def _write(self, name: str, target: str | None = None) -> None:
        """Pushes a file of the pack's folder, if there is one."""
        path = self.folder.path / name
        if path.is_file():
            push_file(self.storage, self._there(target or name), path, self._pushed)

    def _remove(self, *names: str) -> None:
        self.storage.remove(*(self._there(name) for name in names))
        for name in list(self._pushed):
            if any(name == self._there(gone) or name.startswith(self._there(gone) + "/") for gone in names):
                del self._pushed[name]

    def _push_step(self, step: int, there: Mapping[str, int]) -> bool:
        """Pushes a whole checkpoint; False where it has been removed here meanwhile."""
        folder, base = self.folder.checkpoints / str(step), f"checkpoints/{step}"
        path, target = folder / cards.CARD, f"{base}/{cards.CARD}"
        try:
            if target in there and self._pushed.get(self._there(target)) == _signature(path):
                return True
            content = path.read_bytes()
            card = json.loads(content)
            new = {self._there(f"{base}/{name}"): folder / name for name in card["files"]}
            new = {name: file for name, file in new.items() if self._pushed.get(name) != _signature(file)}
            signatures = {name: _signature(file) for name, file in new.items()}
            self.storage.put(new)
        except FileNotFoundError:
            if path.is_file():
                raise
            return False
        self._pushed.update(signatures)
        for name in TABLES:
            self._write(name, f"{_tables(step, (content, card))}/{name}")
        self._write(target)
        return path.is_file()

    def _remove_old(self, there: Mapping[str, int], steps: Iterable[int]) -> None:
        """Removes steps that are not kept here, if there is a newer one that is there now."""
        kept = set(steps)
        old = {match[0]: int(match[2]) for match in map(STEP.match, there) if match}
        old = {folder: step for folder, step in old.items() if step < max(kept, default=0) and step not in kept}
        gone = [f"{folder}{cards.CARD}" for folder in old if f"{folder}{cards.CARD}" in there]
        if old:
            self._remove(*gone, *(folder.rstrip("/") for folder in old))

    def _begin_pull(self, there: Mapping[str, int]) -> dict[int, Card] | None:
        """Clears what is here and gives the steps to go on from; None where it has finished and come, or is ahead."""
        if DONE in there:
            self._pull_finished(there)
            return None
        known = self._resumable(there)
        if self._is_ahead(known, there):
            return None
        self._clear()
        return known

    def _pull_finished(self, there: Mapping[str, int]) -> None:
        done = self.storage.read([self._there(DONE)])[self._there(DONE)]
        whole = all((self.folder.path / name).is_file() for name in RESULTS if name in there)
        if whole and self.folder.is_done() and self.folder.done.read_bytes() == done:
            return
        self._clear()
        self._take("", RESULTS, there)
        write_bytes(self.folder.done, done)

    def _take(self, folder: str, names: Iterable[str], there: Mapping[str, int]) -> None:
        """Brings those of the files here that are in a folder of the pack; the others are none of this state."""
        start = f"{folder}/" if folder else ""
        found = self.storage.read([self._there(start + name) for name in names if start + name in there])
        for name in names:
            content = found.get(self._there(start + name))
            if content is None:
                (self.folder.path / name).unlink(missing_ok=True)
            else:
                write_bytes(self.folder.path / name, content)

    def _cards(self, there: Mapping[str, int]) -> dict[int, Card]:
        """Step -> card of the checkpoints that are whole by the sizes of their files."""
        matches = (re.fullmatch(rf"checkpoints/(\d+)/{re.escape(cards.CARD)}", name) for name in there)
        steps = {self._there(match[0]): int(match[1]) for match in matches if match}
        known = {}
        for name, content in self.storage.read(list(steps)).items():
            step, card = steps[name], json.loads(content)
            if all(there.get(f"checkpoints/{step}/{file}") == size for file, (size, _) in card["files"].items()):
                known[step] = content, card
            else:
                self._warn(step, "it is not whole")
        return known

    def _resumable(self, there: Mapping[str, int]) -> dict[int, Card]:
        """Cards of the steps from which a run can go on: their tables are there too."""
        known = self._cards(there)
        for step in list(known):
            if f"{_tables(step, known[step])}/pack.json" not in there:
                self._warn(step, "it has no tables of its own, so two workers wrote it")
                del known[step]
        return known

    def _is_ahead(self, known: Mapping[int, Card], there: Mapping[str, int]) -> bool:
        """Whether the copy here, of the same start of the pack, has a checkpoint as new as the newest there."""
        here, newest = cards.whole_steps(self.folder.checkpoints), max(known, default=-1)
        if not here or max(here) < newest or not self.folder.pack_json.is_file():
            return False
        name = self._there(f"{_tables(newest, known[newest])}/pack.json" if known else "pack.json")
        return self.storage.read([name]).get(name) == self.folder.pack_json.read_bytes()

    def _pull_best(self, known: Mapping[int, Card]) -> None:
        scores = {step: card["score"] for step, (_, card) in known.items() if card["score"] is not None}
        for step in sorted(scores, key=lambda step: (scores[step], step), reverse=True):
            if self._pull_step(step, known[step]):
                return

    def _pull_step(self, step: int, known: Card, tables: str | None = None) -> bool:
        """Brings a checkpoint here, after it the tables, its card last; False where its content is damaged."""
        content, card = known
        folder, path = self.folder.checkpoints / str(step), self.folder.checkpoints / str(step) / cards.CARD
        if not (path.is_file() and path.read_bytes() == content and not cards.damage(folder, card, checksums=False)):
            shutil.rmtree(folder, ignore_errors=True)
            self.storage.get({self._there(f"checkpoints/{step}/{name}"): folder / name for name in card["files"]})
        damage = cards.damage(folder, card, checksums=True)
        if damage is not None:
            self._warn(step, damage)
            shutil.rmtree(folder)
            return False
        if tables is not None:
            self._take(tables, TABLES, {f"{tables}/{name}": 0 for name in TABLES})
        write_bytes(path, content)
        self._pushed[self._there(f"checkpoints/{step}/{cards.CARD}")] = _signature(path)
        return True

    def _clear(self) -> None:
        """Empties the folder here, but for the lock: one that is removed could be held twice."""
        self._pushed.clear()
        for entry in self.folder.path.iterdir() if self.folder.path.is_dir() else ():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry != self.folder.lock:
                entry.unlink()

    def _warn(self, step: int, reason: str) -> None:
        where = f"{self.storage.url}/packs/{self.folder.id}"
        logging.warning("checkpoint %d of %s is passed over: %s.", step, where, reason)


def push_file(storage: Storage, name: str, path: Path, pushed: dict[str, Signature]) -> None:
    """Writes a file there unless it is the one that was pushed last."""
    signature = _signature(path)
    if pushed.get(name) != signature:
        storage.write(name, path.read_bytes())
        pushed[name] = signature


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file here, atomically."""
    files.write_atomic(path, lambda file: _write(file, content))


def by_pack(there: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Pack id -> name within the pack -> size, of names within a run folder."""
    packs: dict[str, dict[str, int]] = {}
    for name, size in there.items():
        parts = name.split("/", 2)
        if len(parts) == 3 and parts[0] == "packs" and PACK_ID.fullmatch(parts[1]):
            packs.setdefault(parts[1], {})[parts[2]] = size
    return packs


def _tables(step: int, card: Card) -> str:
    return f"tables/{step}-{zlib.crc32(card[0]):08x}"


def _signature(path: Path) -> Signature:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _write(file: Any, content: bytes) -> None:
    file.write(content)
