"""Flashbax vaults, as OG-MARL publishes its data: `3m.vlt/Good`, a store of arrays [L, T, A, ...] with `metadata.json`.

Flashbax itself is not needed: a vault is a zarr array for each field in one OCDBT store, and TensorStore, which orbax
brings along, reads those. L sequences, 5 seeds in the data of OMAR, are laid end to end.

Reference: Formanek et al. 2023 (OG-MARL), arXiv:2302.00521; the layout is that of flashbax.vault, version 1.
"""

from collections.abc import Iterator, Mapping
import json
import pathlib
from typing import Any

import numpy as np

from jaxdiff.data.sources import discrete
from jaxdiff.data.sources.npy import Reading, require_finite

METADATA = "metadata.json"
STRUCTURE = "structure_shape"  # of the metadata: the fields' names, nested
REQUIRED = ("observations", "actions", "rewards", "terminals")
KNOWN = (*REQUIRED, "truncations", "infos.state", "infos.legals")


def owns(path: pathlib.Path) -> bool:
    """Whether a folder is a vault: metadata beside a store."""
    return (path / METADATA).is_file() and (path / "manifest.ocdbt").is_file()


def name_of(path: pathlib.Path) -> str:
    """`3m-Good` for `3m.vlt/Good`."""
    *_, parent, last = ("", *path.resolve().parts)
    return f"{parent.removesuffix('.vlt')}-{last}".lstrip("-")


def read(path: pathlib.Path, reading: Reading) -> dict[str, np.ndarray]:
    """Reads the whole vault into memory.

    Raises:
      ValueError: damaged or of another version, a field is missing, or see `rows`.
      ImportError: TensorStore is not installed; the message is the line that installs it.
    """
    try:
        import tensorstore
    except ImportError as error:
        raise ImportError(f"{path}: vaults need tensorstore; install it with: pip install tensorstore") from error
    try:
        structure = json.loads((path / METADATA).read_text(encoding="utf-8"))[STRUCTURE]
        names = [name for name in _flat(structure) if name in KNOWN]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / METADATA}: not the metadata of a vault of version 1 ({error!r}).") from error
    _require(names, path, list(_flat(structure)))

    def opened(name: str) -> Any:
        store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path.resolve()}/"}, "path": name}
        return tensorstore.open({"driver": "zarr", "kvstore": store}, open=True, read=True).result()

    try:
        num_steps = int(np.asarray(opened("vault_index").read().result())[0])
        arrays = {name: np.asarray(opened(f"{name}.")[:, :num_steps].read().result()) for name in names}
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"{path}: damaged vault ({reason}); fetch it again.") from error
    return rows(arrays, str(path), reading)


def rows(arrays: Mapping[str, np.ndarray], source: str, reading: Reading) -> dict[str, np.ndarray]:
    """A vault's arrays as rows: sequences end to end, discrete actions as scores, masks in the observations.

    An episode ends where every agent is ended by the task or by the clock, and where its sequence does.

    Args:
      arrays: by KNOWN names; observations [L, T, A, O], actions [L, T, A] or [L, T, A, U], rewards, terminals and
        truncations [L, T, A], infos.legals [L, T, A, n], infos.state [L, T, ...].
      source: how to name the vault in an error.
      reading: num_actions, where nothing else tells it.

    Raises:
      ValueError: a field is missing, sizes do not fit together, NaN, no step, wrong actions.
    """
    _require(arrays, source, list(arrays))
    shape = arrays["observations"].shape
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"{source}: observations have shape {shape}; (sequences, steps, agents, numbers) is needed.")
    flat: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        agreeing = 2 if name == "infos.state" else 3
        if array.shape[:agreeing] != shape[:agreeing]:
            raise ValueError(f"{source}: {name} has shape {array.shape}, and observations {shape}; they must agree.")
        flat[name] = array.reshape(-1, *array.shape[2:])
        require_finite(flat[name], f"{source}: {name}")
    terminated = flat["terminals"] > 0
    ended: np.ndarray = np.all(terminated | (flat.get("truncations", np.zeros_like(terminated)) > 0), axis=1)
    ended[shape[1] - 1 :: shape[1]] = True
    action, allowed = flat["actions"], flat.get("infos.legals")
    if action.dtype.kind in "iu" or allowed is not None:
        action = discrete.scores(action, f"{source}: actions", allowed=allowed, num_actions=reading.num_actions)
    found: dict[str, np.ndarray] = {
        "observations": discrete.with_mask(flat["observations"], allowed),
        "actions": action,
        "rewards": flat["rewards"],
        "terminals": terminated,
        "timeouts": ended & ~np.all(terminated, axis=1),
    }
    return found if "infos.state" not in flat else {**found, "infos/state": flat["infos.state"].astype(np.float32)}


def _require(names: Any, source: str | pathlib.Path, found: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ValueError(f"{source}: no {', '.join(missing)}; found: {', '.join(found) or 'nothing'}.")


def _flat(structure: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of the leaves of a nested dict."""
    for name, inner in structure.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
