"""What a checkpoint needs to know of a tree: its layout, copies that outlive a donation, keys as numbers, placement."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.types import PyTree

Layout = dict[str, list[Any]]  # path of a leaf -> [dtype, shape]


def host_copy(tree: PyTree) -> PyTree:
    """The tree with every array copied out of reach of a later donation."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array) and not is_key(leaf)]
    on_cpu = all(device.platform == "cpu" for leaf in leaves for device in leaf.devices())
    if not on_cpu:
        for leaf in leaves:
            leaf.copy_to_host_async()

    def copy(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            return leaf.copy()
        if not isinstance(leaf, jax.Array):
            return leaf
        if is_key(leaf):
            leaf = jax.random.key_data(leaf)
        # On CPU the numpy view of an array is its buffer, and holding it would keep XLA from reusing a donated one.
        return np.asarray(leaf.copy() if on_cpu else leaf)

    return jax.tree.map(copy, tree)


def is_key(leaf: Any) -> bool:
    """True for arrays of typed random keys."""
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def numbers_for_keys(like: PyTree) -> PyTree:
    """`like` with numpy arrays of numbers in place of typed keys."""

    def numbers(leaf: Any) -> Any:
        if not is_key(leaf):
            return leaf
        shape = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        return np.broadcast_to(np.zeros((), shape.dtype), shape.shape)

    return jax.tree.map(numbers, like)


def as_key(like: Any, found: Any) -> Any:
    """What was found, as typed keys placed as `like` where that is a key."""
    return jax.device_put(jax.random.wrap_key_data(found), like.sharding) if is_key(like) else found


def placed(like: PyTree) -> PyTree:
    """`like` with a sharding on every leaf that is to be a `jax.Array`."""
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or default)

    return jax.tree.map(place, like)


def layout_of(tree: PyTree) -> Layout:
    """What a tree's leaves are, for a card."""

    def entry(leaf: Any) -> list[Any]:
        if not hasattr(leaf, "dtype"):
            return [type(leaf).__name__, []]
        return [str(leaf.dtype), list(leaf.shape)]

    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): entry(leaf) for path, leaf in leaves}


def check_layout(folder: Path, held: Layout, wanted: Layout) -> None:
    """Refuses a checkpoint of another tree.

    Raises:
      ValueError: the first leaf that only one of them has, or that they have in different shapes.
    """
    for name in [*wanted, *held]:
        here, there = held.get(name), wanted.get(name)
        if here != there:
            raise ValueError(
                f"checkpoint at {folder} holds {_describe(name, here)}, the program wants {_describe(name, there)}; "
                "did the config change?"
            )


def _describe(name: str, entry: list[Any] | None) -> str:
    return f"no {name!r}" if entry is None else f"{name!r} as {entry[0]}{entry[1]}"
