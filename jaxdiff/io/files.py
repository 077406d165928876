"""Whole files or none: every write goes to a temporary file beside its target and then takes the target's name."""

from collections.abc import Callable, Iterable, Mapping
import errno
import json
import os
from pathlib import Path
import tempfile
from typing import Any, BinaryIO
import zipfile

import numpy as np


def write_atomic(path: str | os.PathLike[str], write: Callable[[BinaryIO], None]) -> None:
    """Replaces `path` by what `write` puts into a file, or leaves it as it was.

    The temporary file lies in the same folder (a rename is atomic only inside one file system) and reaches the disk
    before the rename. Missing parent folders are made.

    Args:
      path: the file to write.
      write: called once with an open binary file.

    Raises:
      OSError: the disk is full, or the folder is not writable. The previous content of `path` is still there. The
        error names `path` where the system named no file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def check_writable(folder: str | os.PathLike[str], advice: str) -> None:
    """Tells before the work, rather than after it, that a folder cannot be written; leaves nothing behind.

    Args:
      folder: need not exist; then the nearest parent that does is tried.
      advice: what to do about it, the end of the error.

    Raises:
      OSError: the folder, or a parent of it, is a file or takes no new files.
    """
    folder = Path(folder)
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"is a file, where a folder is needed; {advice}", str(nearest))
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b" ")
    except OSError as error:
        # Its own file name would be that of the temporary file.
        reason = f"no file can be written there ({error.strerror}); {advice}"
        raise OSError(error.errno or errno.EIO, reason, str(nearest)) from error


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as `encode_json` gives it.

    Raises:
      TypeError: a value has no JSON form. Nothing was written.
      OSError: see `write_atomic`.
    """
    content = encode_json(value).encode()
    write_atomic(path, lambda file: _write_bytes(file, content))


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes text as UTF-8.

    Raises:
      OSError: see `write_atomic`.
    """
    write_atomic(path, lambda file: _write_bytes(file, text.encode()))


def encode_json(value: Any) -> str:
    """Indented JSON; numpy scalars and arrays, paths and tuples become plain numbers, strings and lists.

    Raises:
      TypeError: a value has no JSON form.
    """
    return json.dumps(value, indent=1, default=_plain) + "\n"


def write_npz_atomic(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named numeric or string arrays as a compressed npz that loads with `allow_pickle=False`.

    Raises:
      ValueError: an array holds Python objects. Nothing was written.
      OSError: see `write_atomic`.
    """
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise ValueError(f"array {name!r} holds Python objects; an npz takes numbers, booleans and strings only.")
    # np.savez takes names as keywords, and "file" is its own argument: zip the members by hand instead.
    write_atomic(path, lambda file: _write_zip(file, plain))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not whole JSON.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error.msg} at line {error.lineno}, {len(text)} characters read): "
            "it was cut short or edited; delete it or restore a copy."
        ) from error


def read_json_object(path: str | os.PathLike[str], keys: Iterable[str] = ()) -> dict[str, Any]:
    """Reads a JSON file that holds an object with at least these keys.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not whole JSON, not an object, or lacks a key.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, not an object: restore a copy, or move it away.")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(map(repr, missing))}: it was edited or is not jaxdiff's; restore a copy."
        )
    return value


def read_npz(path: str | os.PathLike[str], names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Reads the arrays of an npz file into memory, never unpickling.

    Args:
      path: the file.
      names: only these, as far as they are there; None reads all.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not a whole npz, or holds pickled objects.
    """
    try:
        # Opened here: np.load leaves the file open when it is not a whole zip.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            wanted = archive.files if names is None else [name for name in names if name in archive.files]
            return {name: archive[name] for name in wanted}
    except (zipfile.BadZipFile, EOFError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable npz file ({error}); it was cut short or is not ours.") from error


def _write_bytes(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _write_zip(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} {value!r} has no JSON form; give numbers, strings, lists and dicts.")


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may forget the rename. Some file systems cannot do it; the content is safe either way.
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
