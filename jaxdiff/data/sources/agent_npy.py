"""Folders with a file for each field of each agent, as OMAR publishes its data: `obs_0.npy`, `acs_2.npy` and so on.

    ENV/QUALITY/seed_0_data/{obs,acs,rews,next_obs,dones}_{0..A-1}.npy      rows in order, [T, O], [T, U], [T]

Either one seed's folder is read, or the quality's with all seeds, one after the other. Episodes are not told apart in
the files: all have the same length. The next observations are true ones, at an episode's end too.

Reference: Pan et al. 2022 (OMAR), arXiv:2111.11188, and its code.
"""

from collections.abc import Mapping, Sequence
import pathlib
import re

import numpy as np

from jaxdiff.data.sources.npy import Reading, read_array, require_finite

FIELDS = ("obs", "acs", "rews", "next_obs", "dones")
STATES = "states"  # of the whole simulator, where a task has them
EPISODE_STEPS = 25  # of the particle tasks
# By the beginning of the environment's name.
OTHER_EPISODE_STEPS: Mapping[str, int] = {"halfcheetah": 1000}
TEAMS: Mapping[str, int] = {"simple_spread": 3, "simple_tag": 3, "simple_world": 3, "halfcheetah": 2}


def owns(path: pathlib.Path) -> bool:
    """Whether a folder holds agents' files, or folders of seeds."""
    return _agents(path) > 0 or bool(_seeds(path))


def name_of(path: pathlib.Path) -> str:
    """`simple_tag-expert`, or `simple_tag-expert-seed0` for one seed."""
    *_, env, quality, last = ("", "", *path.resolve().parts)
    seed = re.fullmatch(r"seed_(\d+)_data", last)
    return f"{env}-{quality}-seed{seed[1]}" if seed else f"{quality}-{last}"


def read(path: pathlib.Path, reading: Reading) -> dict[str, np.ndarray]:
    """Reads one seed, or all.

    Raises:
      ValueError: a file is missing or no array of numbers, lengths differ or are no number of whole episodes, NaN,
        fewer agents than a known task has, agents that see different numbers of things (unless `reading.pad`), seeds
        of different tasks.
    """
    steps = reading.max_episode_steps or episode_steps(path)
    seeds = [path] if _agents(path) else _seeds(path)
    if not seeds:
        raise ValueError(f"{path}: no obs_0.npy and no seed_0_data in it.")
    _check_teams(path, seeds)
    parts = [_read_seed(seed, steps, reading.pad) for seed in seeds]
    for seed, part in zip(seeds, parts, strict=True):
        sizes, first = ({k: x.shape[1:] for k, x in p.items()} for p in (part, parts[0]))
        if sizes != first:
            raise ValueError(f"{seed}: rows have shapes {sizes}, those of {seeds[0].name} {first}; give one of them.")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def episode_steps(path: pathlib.Path) -> int:
    """Length of an episode, by the environment's name among the last folders of the path."""
    return _by_name(path, OTHER_EPISODE_STEPS) or EPISODE_STEPS


def _by_name(path: pathlib.Path, known: Mapping[str, int]) -> int | None:
    """What is known of the environment that one of the last folders of a path is called after."""
    for part in path.resolve().parts[-3:]:
        for begin, number in known.items():
            if part.lower().startswith(begin):
                return number
    return None


def _check_teams(path: pathlib.Path, seeds: Sequence[pathlib.Path]) -> None:
    """Raises ValueError where a seed has fewer agents than its task, or seeds have different numbers of them."""
    found = {seed: _agents(seed) for seed in seeds}
    if needed := _by_name(path, TEAMS):
        for seed, count in found.items():
            if count < needed:
                missing = ", ".join(f"{field}_{i}.npy" for i in range(count, needed) for field in FIELDS)
                raise ValueError(
                    f"{seed}: no {missing}; its task has {needed} agents: fetch the folder again, or rename it if it "
                    "is of another task."
                )
    if len(set(found.values())) > 1:
        counts = ", ".join(f"{seed.name} has {count}" for seed, count in found.items())
        raise ValueError(
            f"{path}: seeds with different numbers of agents: {counts}; give one of them, or fetch the others again."
        )


def _agents(path: pathlib.Path) -> int:
    """One more than the largest agent's number in a folder's files."""
    found = (re.fullmatch(rf"(?:{'|'.join(FIELDS)})_(\d+)\.npy", file.name) for file in path.glob("*.npy"))
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _seeds(path: pathlib.Path) -> list[pathlib.Path]:
    found = [folder for folder in path.glob("seed_*_data") if folder.is_dir()]
    return sorted(found, key=lambda folder: (len(folder.name), folder.name))


def _read_seed(path: pathlib.Path, steps: int, pad: bool) -> dict[str, np.ndarray]:
    num_agents = _agents(path)
    missing = [f"{n}_{i}.npy" for i in range(num_agents) for n in FIELDS if not (path / f"{n}_{i}.npy").is_file()]
    if missing or not num_agents:
        raise ValueError(
            f"{path}: no {', '.join(missing) or 'obs_0.npy'}; each of {max(num_agents, 1)} agents needs "
            f"{', '.join(FIELDS)}: fetch the folder again, or rename its files."
        )
    columns = {field: _field(path, field, num_agents) for field in FIELDS}
    num_rows = len(columns["obs"][0])
    if num_rows % steps:
        raise ValueError(
            f"{path}: {num_rows} rows are {num_rows // steps} episodes of {steps} steps and {num_rows % steps} rows; "
            "if the task's episodes have another length, import it with --max_episode_steps=LENGTH."
        )
    rows = {
        "observations": _stacked(columns["obs"], path, "obs", pad),
        "next_observations": _stacked(columns["next_obs"], path, "next_obs", pad),
        "actions": _stacked(columns["acs"], path, "acs", False),
        "rewards": np.stack([x.reshape(num_rows) for x in columns["rews"]], axis=1),
        "terminals": np.stack([x.reshape(num_rows) for x in columns["dones"]], axis=1),
        "timeouts": np.arange(1, num_rows + 1) % steps == 0,
    }
    if all((path / f"{STATES}_{i}.npy").is_file() for i in range(num_agents)):
        rows["infos/state"] = _stacked(_field(path, STATES, num_agents), path, STATES, False).astype(np.float32)
    return rows


def _field(path: pathlib.Path, field: str, num_agents: int) -> list[np.ndarray]:
    """One field of every agent, of equal lengths and finite."""
    rows, found = len(read_array(path / "obs_0.npy")), []
    for agent in range(num_agents):
        file = path / f"{field}_{agent}.npy"
        array = read_array(file)
        if len(array) != rows:
            raise ValueError(f"{file}: {len(array)} rows, and obs_0.npy has {rows}; all files need as many.")
        if field in ("rews", "dones") and array.size != rows:
            raise ValueError(f"{file}: has shape {array.shape}; one number for each of {rows} rows is needed.")
        if field not in ("rews", "dones") and array.ndim != 2:
            raise ValueError(f"{file}: has shape {array.shape}; ({rows}, numbers of a row) is needed.")
        require_finite(array, str(file), agent)
        found.append(array)
    return found


def _stacked(arrays: list[np.ndarray], path: pathlib.Path, field: str, pad: bool) -> np.ndarray:
    """[T, A, F] of agents' [T, F]; narrower ones are filled up with zeros at their end where `pad` says so."""
    widths = [array.shape[1] for array in arrays]
    if len(set(widths)) > 1 and not pad:
        raise ValueError(
            f"{path}: {', '.join(f'{field}_{i}.npy has {w}' for i, w in enumerate(widths))} numbers a row; all agents "
            "need as many. Observations can be filled up with zeros: jaxdiff data import FOLDER --pad --out=NEW.hdf5"
        )
    stacked = np.zeros((len(arrays[0]), len(arrays), max(widths)), arrays[0].dtype)
    for agent, array in enumerate(arrays):
        stacked[:, agent, : array.shape[1]] = array
    return stacked
