"""A run folder on a bucket: everything works on a local folder, which is mirrored to and from the remote one.

    URL/run.json, packs.json, facts.json                        as in a local run folder
    URL/packs/<id>/pack.json, train.npz, ..., done.json         pack.json at the start, the rest from a finished pack
    URL/packs/<id>/checkpoints/<step>/...                       as local
    URL/packs/<id>/tables/<step>-<CRC of its card>/...          plan and metric tables that belong to that checkpoint

A store replaces one file at a time, whole, and promises nothing about two. So what makes a state valid is written last:

* A step counts once its card.json is there. Before it go the step's files, which it names with size and CRC, and the
  tables, which are found by the CRC of the card. Killed anywhere in between, the remote folder still shows the step
  before it.
* Older steps are deleted once a newer card is there.
* Tables of a pack that is not finished lie with their checkpoint alone. So a slower worker never takes rows away from
  a faster one's checkpoint, nor from a finished pack.
* done.json comes after all results.

Two workers on one pack by mistake: members compute the same numbers wherever they run, so either's results may stand.
A step made of files of both does not match its card; whoever pulls passes over it and takes the one before, or starts
anew. Each worker deletes only steps older than its own newest one. So the mistake may cost time, and never a result.
"""

from collections.abc import Callable, Mapping
from concurrent import futures
import errno
import hashlib
import os
from pathlib import Path
import platform
import re
import shutil

from jaxdiff.io import files
from jaxdiff.io.folders import RunDir
from jaxdiff.io.locks import held
from jaxdiff.io.remote_pack import DONE, RemotePack, Signature, by_pack, push_file, write_bytes
from jaxdiff.io.storage import Storage

STUDY = ("facts.json", "packs.json", "run.json")
MARK = ".mirror.json"
ELSEWHERE = "set JAXDIFF_SCRATCH to another folder."
THREADS = 16
ATTEMPTS = 3  # at a pack whose checkpoints are replaced while we read them


def scratch_of(remote: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Local folder that mirrors a URL: in JAXDIFF_SCRATCH, or in the user's cache; one for each machine and URL."""
    url = remote.rstrip("/")
    name = re.sub(r"[^A-Za-z0-9]+", "-", url.rpartition("/")[2]).strip("-") or "run"
    key = hashlib.sha256(url.encode()).hexdigest()[:12]
    given = environment.get("JAXDIFF_SCRATCH")
    return Path(given or Path("~/.cache/jaxdiff/mirrors") / platform.node()).expanduser() / f"{name}-{key}"


class Mirror:
    """A remote run folder and its local copy. The remote one is the truth: what it lacks goes from the copy on a pull.

    Args:
      remote: URL of the run folder.
      local: the copy; empty, missing, or a mirror of the same URL.

    Raises:
      ImportError: the protocol's library is not installed.
      ValueError: no such protocol, or the local folder holds something else.
    """

    def __init__(self, remote: str, local: str | os.PathLike[str]) -> None:
        self.storage = Storage(remote)
        self.remote, self.local = self.storage.url, RunDir(local)
        self._pushed: dict[str, Signature] = {}
        self._packs: dict[str, RemotePack] = {}
        self._claim()

    def check_writable(self) -> None:
        """Tells before the work that nothing can be written there.

        Raises:
          OSError: no such bucket, no credentials, or too few; with advice.
        """
        self.storage.check_writable()

    def finished(self) -> set[str]:
        """Ids of the packs that have finished, by one listing."""
        return {pack_id for pack_id, names in by_pack(self.storage.list("packs")).items() if DONE in names}

    def pull(self, *names: str) -> None:
        """Brings files of the run folder here.

        Raises:
          FileNotFoundError: the remote folder has no such file.
          OSError: the storage failed.
        """
        found = self.storage.read(names)
        missing = [name for name in names if name not in found]
        if missing:
            why = f"has no {missing[0]}; give the --workdir of a run, or make one with `jaxdiff sweep ... --prepare`"
            raise FileNotFoundError(errno.ENOENT, why, self.remote)
        for name, content in found.items():
            write_bytes(self.local.path / name, content)

    def pull_study(self) -> None:
        """Brings run.json, packs.json, facts.json and plans of packs here: what a worker must know of a study.

        Raises:
          FileNotFoundError: there is no run.json.
          OSError: the storage failed.
        """
        self._pull_study(self.storage.list())

    def pull_results(self) -> None:
        """Brings everything but checkpoints here; of a pack that has not finished, as of its newest checkpoint.

        A pack that a process of this machine works on is left alone, as is one whose copy here is ahead.

        Raises:
          FileNotFoundError: there is no run.json.
          OSError: the storage failed.
        """
        there = self.storage.list()
        self._pull_study(there)
        packs = by_pack(there)
        with futures.ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda pack_id: self._pull_results_of(pack_id, packs[pack_id]), packs))

    def pull_pack(self, pack_id: str) -> None:
        """Makes the pack's local folder ready to be worked on; call it while holding the pack's lock.

        A finished pack comes with its results, any other with its newest whole checkpoint and the tables of it, and
        the best one. A copy here that is ahead of the remote one stays.

        Raises:
          OSError: the storage failed.
        """
        self._again(self.pack(pack_id).pull)

    def pull_checkpoints(self, pack_id: str) -> None:
        """Brings a pack here with its newest and its best checkpoint, finished or not: to act with it.

        Raises:
          OSError: the storage failed.
        """
        pack = self.pack(pack_id)
        with held(pack.folder.lock) as is_ours:
            if is_ours:  # else what is here is newer than what is there
                self._again(pack.pull)
                self._again(pack.pull_checkpoints)

    def push(self, *names: str) -> None:
        """Writes files of the run folder there, in this order; of folders, all that changed.

        Raises:
          FileNotFoundError: there is no such file here.
          OSError: the storage failed.
        """
        for name in names:
            path = self.local.path / name
            inside = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
            for entry in inside:
                push_file(self.storage, entry.relative_to(self.local.path).as_posix(), entry, self._pushed)

    def push_pack(self, pack_id: str) -> None:
        """Writes there what is new of a pack: whole checkpoints with their tables, results once it has finished.

        May run while a checkpoint is being written or removed here: only steps that have their card are looked at.

        Raises:
          OSError: the storage failed. What is there stays valid, and the next call makes up for it.
        """
        self.pack(pack_id).push()

    def pack(self, pack_id: str) -> RemotePack:
        """One pack of the run."""
        if pack_id not in self._packs:
            self._packs[pack_id] = RemotePack(self.storage, self.local.pack(pack_id))
        return self._packs[pack_id]

    def _claim(self) -> None:
        mark = self.local.path / MARK
        if mark.is_file():
            known = files.read_json_object(mark, ("remote",))["remote"]
            if known != self.remote:
                raise ValueError(f"{self.local.path} mirrors {known}, not {self.remote}; {ELSEWHERE}")
        elif self.local.path.is_dir() and any(self.local.path.iterdir()):
            raise ValueError(f"{self.local.path} is not empty and mirrors nothing; {ELSEWHERE}")
        else:
            files.write_json_atomic(mark, {"remote": self.remote})

    def _again(self, pull: Callable[[], None]) -> None:
        for _ in range(ATTEMPTS - 1):
            try:
                return pull()
            except FileNotFoundError:  # a worker elsewhere has just replaced a checkpoint
                continue
        return pull()

    def _pull_study(self, there: Mapping[str, int]) -> None:
        self.pull(*(name for name in STUDY if name in there or name == "run.json"))
        for name in STUDY:
            if name not in there:
                (self.local.path / name).unlink(missing_ok=True)
        packs = by_pack(there)
        for pack_id in set(self.local.list_packs()) - set(packs):
            self._forget(pack_id)
        plans = [f"packs/{pack_id}/pack.json" for pack_id, names in packs.items() if "pack.json" in names]
        wanted = [name for name in plans if not (self.local.path / name).is_file()]
        for name, content in self.storage.read(wanted).items():
            write_bytes(self.local.path / name, content)

    def _pull_results_of(self, pack_id: str, there: Mapping[str, int]) -> None:
        pack = self.pack(pack_id)
        with held(pack.folder.lock) as is_ours:
            if is_ours:
                pack.pull_results(there)

    def _forget(self, pack_id: str) -> None:
        with held(self.local.pack(pack_id).lock) as is_ours:
            if is_ours:
                shutil.rmtree(self.local.pack(pack_id).path)
