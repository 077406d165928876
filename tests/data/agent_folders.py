"""Small folders of data with agents, in the layouts of their makers."""

import json
import pathlib

import numpy as np

A = 3


def agent_rows(num_rows: int, *, seed: int = 0, width: int = 4) -> dict[str, np.ndarray]:
    """Arrays [T, A, ...] under the names of the agents' files, float64 as they are published."""
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.normal(size=(num_rows, A, width)),
        "acs": rng.uniform(-1, 1, size=(num_rows, A, 2)),
        "rews": rng.normal(size=(num_rows, A)),
        "next_obs": rng.normal(size=(num_rows, A, width)),
        "dones": np.zeros((num_rows, A)),
    }


def save_agents(folder: pathlib.Path, rows: dict[str, np.ndarray]) -> pathlib.Path:
    folder.mkdir(parents=True)
    for field, array in rows.items():
        for agent in range(array.shape[1]):
            np.save(folder / f"{field}_{agent}.npy", array[:, agent])
    return folder


def team_rows(lengths: tuple[int, ...], *, discrete: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays [T, A, ...] under the names of the team's files; every choice is among the allowed ones."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    rows = {
        "obs": rng.normal(size=(count, A, 4)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(count, A, 2)).astype(np.float32),
        "rewards": rng.normal(size=(count, A)).astype(np.float32),
        "path_lengths": np.array(lengths),
    }
    if discrete:
        allowed = rng.random((count, A, 5)) < 0.6
        choice = rng.integers(0, 5, size=(count, A))
        np.put_along_axis(allowed, choice[..., None], True, axis=-1)
        rows |= {"actions": choice, "legals": allowed.astype(np.int64)}
    return rows


def save_team(folder: pathlib.Path, rows: dict[str, np.ndarray]) -> pathlib.Path:
    folder.mkdir(parents=True)
    for field, array in rows.items():
        np.save(folder / f"{field}.npy", array)
    return folder


def save_vault(folder: pathlib.Path, arrays: dict[str, np.ndarray], *, spare: int = 3) -> pathlib.Path:
    """Arrays [L, T, ...] as flashbax.vault lays them out: zarr in OCDBT, longer in time than what was written."""
    import tensorstore

    folder.mkdir(parents=True)
    structure: dict = {}
    for name, array in arrays.items():
        *groups, leaf = name.split(".")
        inner = structure
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[leaf] = str(array.shape)
    (folder / "metadata.json").write_text(json.dumps({"version": 1.2, "structure_shape": structure}))

    def write(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        kvstore = {"driver": "ocdbt", "base": f"file://{folder}/", "path": name}
        spec = {"driver": "zarr", "kvstore": kvstore}
        store = tensorstore.open(spec, dtype=array.dtype.name, shape=shape, create=True).result()
        store[tuple(slice(0, n) for n in array.shape)].write(array).result()

    num_steps = next(iter(arrays.values())).shape[1]
    for name, array in arrays.items():
        write(f"{name}.", array, (array.shape[0], num_steps + spare, *array.shape[2:]))
    write("vault_index", np.array([num_steps], np.int32), (1,))
    return folder
