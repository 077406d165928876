"""Files under a URL: a bucket, or anything else that fsspec reaches. The only module that knows fsspec."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import errno
import os
from pathlib import Path
import re
from typing import Any

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
# What these hold is replaced whole by every write; elsewhere a file is written beside its target and then renamed.
STORES = frozenset({"memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss"})
LIBRARIES = {"az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "adl": "adlfs", "oss": "ossfs"}  # none of our extra's
BATCH = 64  # files in flight


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL such as s3://bucket/study. Ask before making a `Path` of it, which merges its slashes."""
    return REMOTE.match(os.fspath(path)) is not None


class Storage:
    """Files below one URL, by their names relative to it.

    Failed requests are tried again by the library of the protocol; what reaches us has failed for good.

    Args:
      url: of a folder, which need not exist; its bucket must. Credentials and endpoints come from where the protocol's
        library looks for them (AWS_PROFILE, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, ...).

    Raises:
      ImportError: the protocol's library is not installed.
      ValueError: no such protocol.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._protocol = self.url.partition("://")[0].partition("::")[0]
        self._files = _file_system(self.url, self._protocol)
        self._root = str(self._files._strip_protocol(self.url)).rstrip("/")

    def list(self, under: str = "") -> dict[str, int]:
        """Name -> size of every file below the folder `under`; empty when there is none.

        Raises:
          OSError: see `_told`.
        """
        folder = self._path(under) if under else self._root
        with self._told("list its files"):
            self._files.invalidate_cache()
            try:
                found = self._files.find(folder, detail=True)
            except FileNotFoundError:
                found = {}
            if not found:
                self._probe()  # some file systems list nothing where they may not look
        start = self._root + "/"
        return {path.removeprefix(start): int(info["size"]) for path, info in found.items() if path.startswith(start)}

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Content of the files; those that are not there are left out.

        Raises:
          OSError: see `_told`.
        """
        found = {}
        with self._told("read"):
            for start in range(0, len(names), BATCH):
                paths = {self._path(name): name for name in names[start : start + BATCH]}
                for path, content in self._files.cat(list(paths), on_error="return").items():
                    if isinstance(content, BaseException) and not _is_absence(content):
                        raise content
                    if not isinstance(content, BaseException):
                        found[paths[path]] = content
        return found

    def get(self, targets: Mapping[str, Path]) -> None:
        """Copies large files here: name -> path. A failure leaves some of them, or parts of them.

        Raises:
          OSError: see `_told`; a FileNotFoundError also where one is not there.
        """
        for path in targets.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._told("read"):
            names = list(targets)
            for start in range(0, len(names), BATCH):
                chosen = names[start : start + BATCH]
                self._files.get([self._path(name) for name in chosen], [str(targets[name]) for name in chosen])

    def put(self, sources: Mapping[str, Path]) -> None:
        """Copies large files there: name -> path. A failure leaves some of them, or parts of them.

        Raises:
          OSError: see `_told`; a FileNotFoundError also where a source is not there.
        """
        with self._told("write"):
            names = list(sources)
            self._make_folders(names)
            for start in range(0, len(names), BATCH):
                chosen = names[start : start + BATCH]
                self._files.put([str(sources[name]) for name in chosen], [self._path(name) for name in chosen])

    def write(self, name: str, content: bytes) -> None:
        """Replaces one file whole, or leaves it as it was.

        Raises:
          OSError: see `_told`.
        """
        path = self._path(name)
        with self._told("write"):
            if self._protocol in STORES:
                self._files.pipe_file(path, content)
                return
            self._make_folders([name])
            folder, _, last = path.rpartition("/")
            temporary = f"{folder}/.{last}.{os.getpid()}.tmp"
            self._files.pipe_file(temporary, content)
            self._files.mv(temporary, path)

    def remove(self, *names: str) -> None:
        """Removes files, and folders with all that is in them. What is not there is passed over.

        Raises:
          OSError: see `_told`.
        """
        with self._told("delete"):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm(self._path(name), recursive=True)

    def check_writable(self) -> None:
        """Tells before the work, rather than after it, that nothing can be written there; leaves nothing behind.

        Raises:
          OSError: see `_told`.
        """
        name = f".check-{os.getpid()}"
        self.write(name, b" ")
        self.remove(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _probe(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.cat_file(self._path("run.json"))

    def _make_folders(self, names: Sequence[str]) -> None:
        if self._protocol not in STORES:
            for folder in {self._path(name).rpartition("/")[0] for name in names}:
                self._files.makedirs(folder, exist_ok=True)

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Makes one line with advice of what the storage's library raises.

        Raises:
          FileNotFoundError: no such bucket, or no such file.
          PermissionError: no credentials, or they do not suffice.
          OSError: anything else: no connection, a full disk.
        """
        try:
            yield
        except Exception as error:
            kind, number, advice = _reason(error)
            if kind is None:
                raise
            line = " ".join(str(error).split())[:300]
            raise kind(number, f"cannot {doing}: {advice}{f' ({line})' if line else ''}", self.url) from error


def _file_system(url: str, protocol: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(f"{url} needs fsspec; run: pip install 'jaxdiff[storage]'") from error
    try:
        return fsspec.core.url_to_fs(url)[0]
    except ImportError as error:
        wanted = LIBRARIES.get(protocol, "'jaxdiff[storage]'")
        raise ImportError(f"{url} needs another library ({error}); run: pip install {wanted}") from error
    except ValueError as error:
        raise ValueError(f"{url}: {error}; give a folder, or a URL such as s3://bucket/study.") from error


def _is_absence(error: BaseException) -> bool:
    return isinstance(error, FileNotFoundError)


def _reason(error: Exception) -> tuple[type[OSError] | None, int, str]:
    """What to raise for a storage's error: kind, errno, advice. None for what is no failure of the storage."""
    name, library = type(error).__name__, type(error).__module__.partition(".")[0]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # of this machine
        return None, 0, ""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError, errno.ENOENT, "no such bucket or file; check the name, and make the bucket first"
    if isinstance(error, PermissionError) or "Credential" in name or "Token" in name:
        return PermissionError, errno.EACCES, "give this machine credentials to list, read, write and delete there"
    if isinstance(error, OSError) or library in {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure"}:
        return OSError, errno.EIO, "check the connection and the URL, then give the command again"
    return None, 0, ""
