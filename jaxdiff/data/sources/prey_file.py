"""The prey's network out of OMAR's `pretrained_adv_model.pt`, a pickle, without running what a pickle can ask for.

A file that PyTorch wrote before it used zip archives is five pickles end to end: a magic number, a protocol number,
facts about the system, the object, and the keys of its storages; then for each key an int64 count of numbers, and the
numbers. The object names four globals. Here each of them is a stand-in that holds data and does nothing, any other name
is refused, and PyTorch is not needed.
"""

from collections.abc import Mapping
import hashlib
import io
import pathlib
import pickle
from typing import Any, NamedTuple
import warnings

import numpy as np

Shape = tuple[int, ...]

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MOST_BYTES = 16 * 2**20  # OMAR's files have 1 MB
KNOWN: Mapping[str, tuple[int, str]] = {  # bytes and sha256 of OMAR's own files
    "simple_tag": (903_199, "b22b95f3397f41a21aa247810e385a8ecf85294f2e2ed8e523a954c633daf7a2"),
    "simple_world": (1_049_031, "ed3170cfb9c3f6872305c9c795a7aed089fde7b5e5cc2bff5f7debfed37c2115"),
}
HIDDEN = 64
WIDTHS = {14: "simple_tag", 22: "simple_world"}  # what the prey sees
NAMES: Mapping[str, tuple[str, tuple[int | str, ...]]] = {  # here -> in the file, and shape
    "bn_gamma": ("in_fn.weight", ("n",)),
    "bn_beta": ("in_fn.bias", ("n",)),
    "bn_mean": ("in_fn.running_mean", ("n",)),
    "bn_var": ("in_fn.running_var", ("n",)),
    "w1": ("fc1.weight", (HIDDEN, "n")),
    "b1": ("fc1.bias", (HIDDEN,)),
    "w2": ("fc2.weight", (HIDDEN, HIDDEN)),
    "b2": ("fc2.bias", (HIDDEN,)),
    "w3": ("fc3.weight", (2, HIDDEN)),
    "b3": ("fc3.bias", (2,)),
}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The weights of the prey, the last of the file's `agent_params`.

    Warns where the file is none of the two that OMAR's data were made with.

    Returns:
      float32: bn_gamma, bn_beta, bn_mean, bn_var [n], w1 [64, n], b1 [64], w2 [64, 64], b2 [64], w3 [2, 64], b3 [2];
      y = w x + b. n is 14 for simple_tag and 22 for simple_world. And published, a boolean []: whether the file is one
      of those two.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a pickle that asks for anything but the four globals, which is then not done; not a file of this
        kind; cut short; without a prey of these shapes.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path}: more than {MOST_BYTES >> 20} MB; the files of OMAR's prey have about 1 MB.")
    if content.startswith(b"PK"):
        raise ValueError(
            f"{path}: a zip archive, as newer PyTorch writes; OMAR's file is older. Write it again with "
            "torch.save(..., _use_new_zipfile_serialization=False)."
        )
    try:
        params = _prey(*_unpack(content, path))
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # a pickle can make anything of its stand-ins fail
        raise ValueError(f"{path}: no file of OMAR's prey, or damaged ({type(error).__name__}: {error}).") from error
    published = _is_published(content, WIDTHS[len(params["bn_gamma"])], path)
    return {**params, "published": np.array(published)}


class _Refused(Exception):
    """A pickle asked for a global."""


class _Storage(NamedTuple):
    """Names numbers that come later in the file."""

    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: Shape
    stride: Shape


class _Dict(dict[Any, Any]):
    """For collections.OrderedDict; attributes that a pickle would set are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        del state


class _Rebuild:
    """For torch._utils._rebuild_tensor_v2. An object without attributes, which no pickle can change."""

    __slots__ = ()

    def __call__(self, storage: _Storage, offset: int, shape: Shape, stride: Shape, *rest: object) -> _Tensor:
        del rest  # whether it has a gradient, and hooks
        return _Tensor(storage, offset, shape, stride)


class _Ordered:
    """Makes a _Dict; without attributes, as _Rebuild."""

    __slots__ = ()

    def __call__(self) -> _Dict:
        return _Dict()


ALLOWED: Mapping[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _Ordered(),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
}


class _Unpickler(pickle.Unpickler):
    """Knows four names, and imports nothing."""

    def __init__(self, file: io.BytesIO, path: pathlib.Path) -> None:
        super().__init__(file)
        self._path = path
        self.dtypes: dict[str, str] = {}  # of the storages that were named

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            known = ", ".join(".".join(pair) for pair in ALLOWED)
            raise _Refused(
                f"{self._path}: refused, its pickle asks for the global {module}.{name}, and a prey needs none but "
                f"{known}. A pickle can run code: do not load this file elsewhere unless you trust its origin."
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or dtype not in ("<f4", "<i8") or not isinstance(key, str) or not isinstance(size, int):
            raise ValueError("a reference to something that is no storage of numbers")
        self.dtypes[key] = dtype
        return _Storage(key, size)


def _unpack(content: bytes, path: pathlib.Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The object, and the numbers of each storage."""
    file = io.BytesIO(content)
    if _Unpickler(file, path).load() != MAGIC:
        raise ValueError("it does not begin with PyTorch's magic number")
    if _Unpickler(file, path).load() != PROTOCOL:
        raise ValueError("its protocol is another")
    if _Unpickler(file, path).load()["little_endian"] is not True:
        raise ValueError("its machine was big-endian")
    objects = _Unpickler(file, path)
    found = objects.load()
    numbers: dict[str, np.ndarray] = {}
    for key in _Unpickler(file, path).load():
        dtype = np.dtype(objects.dtypes[key])
        count = int.from_bytes(file.read(8), "little")
        raw = file.read(count * dtype.itemsize)
        if len(raw) != count * dtype.itemsize:
            raise ValueError(f"cut short in storage {key}")
        numbers[key] = np.frombuffer(raw, dtype)
    return found, numbers


def _prey(found: Any, numbers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of NAMES, from the policy of the last agent."""
    policy = found["agent_params"][-1]["policy"]
    width = policy["in_fn.weight"].shape[0]
    if width not in WIDTHS:
        known = " or ".join(f"{n} ({task})" for n, task in WIDTHS.items())
        raise ValueError(f"its network reads {width} numbers, {known} are known")
    params = {}
    for name, (stored, shape) in NAMES.items():
        wanted = tuple(width if size == "n" else size for size in shape)
        params[name] = _array(policy[stored], wanted, stored, numbers)
    return params


def _array(tensor: _Tensor, shape: tuple[Any, ...], name: str, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
    """The tensor's numbers, float32 and finite, laid out in C order."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has another shape than {shape}")
    flat = numbers[tensor.storage.key]
    index = np.full(shape, tensor.offset)
    for axis, (size, stride) in enumerate(zip(shape, tensor.stride, strict=True)):
        index = index + stride * np.arange(size).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    if len(flat) != tensor.storage.size or index.min() < 0 or index.max() >= len(flat):
        raise ValueError(f"{name} reaches beyond its storage")
    array = flat[index]
    if array.dtype != np.float32 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite float32")
    return array


def _is_published(content: bytes, task: str, path: pathlib.Path) -> bool:
    """Whether these are the bytes that OMAR's data and scores are about; warns where not."""
    size, sha256 = KNOWN[task]
    found = hashlib.sha256(content).hexdigest()
    if found == sha256:
        return True
    warnings.warn(
        f"{path}: {len(content)} bytes, sha256 {found[:12]}...; OMAR's file of {task} has {size} bytes, sha256 "
        f"{sha256[:12]}...: with this prey there are no reference scores, and returns are not comparable with "
        "published ones.",
        stacklevel=3,
    )
    return False
