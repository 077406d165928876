"""Where every algorithm's actions fall on the four-corner bandit, over seeds that train in one program.

  python -m experiments.studies.corner_bandit [--seeds=8] [--updates=2000] [--algorithms=a,b] [--out=FILE.json]

The data are 10,000 actions in four tight clouds at (+-0.8, +-0.8), whose rewards have means 3, 0, 1.5 and 5 and a
deviation of 0.5; the best is (0.8, -0.8). Every episode is one step and terminates: nothing is bootstrapped.
A policy that only imitates should be at every corner a quarter of the time; one that follows Q, at the best.

Each algorithm has its shipped `default` config with the changes that `make_config` and SETTINGS list, the same for all
seeds. All seeds see the same data; weights, batches and noise differ. A share is of the actions of the acting policy
within RADIUS of a corner, by the larger of the two distances. Of policies that choose among candidates, "one candidate"
is the same weights acting without the choice. "On the edge" is the share of actions with a number beyond 0.99, where
there are no data: they count as near their corner, since 1 - 0.8 is RADIUS. Seconds are of training, without compiling.
"""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from jaxdiff import sweep, train
from jaxdiff.cli.config import load
from jaxdiff.cli.overrides import apply_overrides
from jaxdiff.cli.settings import make_settings
from jaxdiff.cli.task import make_algorithm, reward_scale, scale_rewards
from jaxdiff.data import Dataset
from jaxdiff.envs import probes
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Algorithm, Array, PyTree, Transition

BEST = int(np.argmax(probes.CORNER_REWARDS))
RADIUS = 0.2  # four deviations of the clouds
EDGE = 0.99  # four deviations of the clouds, too
WIDTH = 64
BATCH = 128
RATE = 3e-3  # of every network: a run here is a fiftieth of the default's
AVERAGES = {"polyak": 0.05, "ema_rate": 0.02}  # as far as an algorithm has them, for the same reason


class Setting(NamedTuple):
    """What an algorithm needs on this task besides `make_config`."""

    changes: dict[str, Any]  # dotted key of the config -> value
    why: str


# Five levels cannot draw spots this small: between two corners the mean of the posterior is neither.
FINE = {"model.policy.num_levels": 20, "model.policy.num_steps": 20}
SMOOTH_V = "V sees the observation alone, which is 0: there relu without biases is flat, and only its last bias learns"
PLAIN_Q = {"model.critic_layer_norm": False}
FLAT_Q = "normalised critics are flat from the best corner to the middle, where there are no data and the policy stops"
SETTINGS: dict[str, Setting] = {
    "bc": Setting({}, "nothing"),
    "td3_bc": Setting(
        {**PLAIN_Q, "hparams.lr": 3e-4}, FLAT_Q + "; without q_start the critics must be the faster ones"
    ),
    "cql": Setting(
        {**PLAIN_Q, "hparams.q_start": 0.0},
        FLAT_Q + "; the penalty parts the corners, and one that imitates first waits between them for any",
    ),
    "iql": Setting(
        {"model.critic_activation": "mish", "hparams.expectile": 0.9},
        SMOOTH_V + "; at 0.7 V is the second best corner's value, and weights are capped: that corner would pull too",
    ),
    "diffusion_bc": Setting(FINE, "5 noise levels cannot draw spots of width 0.05"),
    "diffusion_ql": Setting({}, "nothing"),
    "edp": Setting({**PLAIN_Q, "model.policy.num_steps": 6}, FLAT_Q + "; fewer steps for speed"),
    "idql": Setting({**FINE, "model.critic_activation": "mish"}, "as diffusion_bc; " + SMOOTH_V),
    "ifql": Setting({}, "nothing"),
    "fql": Setting({**PLAIN_Q, "hparams.bc_weight": 0.1}, FLAT_Q + "; at 1 imitation of the other corners outweighs Q"),
    "fbrac": Setting(
        {**PLAIN_Q, "hparams.bc_weight": 0.3}, FLAT_Q + "; at 1 imitation of the other corners outweighs Q"
    ),
    "consistency_ac": Setting(
        {**PLAIN_Q, "hparams.q_weight": 10.0}, FLAT_Q + "; the loss of its pairs is 100 / step large"
    ),
    "qgpo": Setting({}, "nothing"),
}
# Names of ALGORITHMS that the study leaves out, each with the reason.
ABSENT = {
    "decision_diffuser": "a planner: it learns from stretches of episodes, and here each has one step",
    "diffuser": "a planner: it learns from stretches of episodes, and here each has one step",
    "dom2": "made for agents, and on this task diffusion_ql with a penalty on its critics; not measured",
    "dppo": "on-policy: it learns from episodes of its own, and here is only a dataset",
    "omar": "made for agents; tests/algorithms/test_omar.py has it on this task",
}


def make_dataset(num_points: int = 10_000) -> Dataset:
    """The bandit's data on the host, rewards as they are."""
    action, reward = probes.bandit_corners(0, num_points=num_points)
    obs, ended = np.zeros((num_points, 1), np.float32), np.zeros(num_points, np.float32)
    rows: Any = Transition(obs, action, reward, ended, obs)  # type: ignore[arg-type]
    return Dataset(rows, np.arange(num_points, dtype=np.int32))  # type: ignore[arg-type]


def scaled(config: ConfigDict, dataset: Dataset) -> Dataset:
    """The data on the device, rewards scaled as the config says."""
    return jax.device_put(scale_rewards(dataset, reward_scale(config, dataset)))  # type: ignore[no-any-return]


def make_config(name: str, num_updates: int) -> ConfigDict:
    """The shipped default with what every algorithm needs for so short a run on one observation, and SETTINGS.

    Raises:
      KeyError: a name without settings.
    """
    if name not in SETTINGS:
        raise unknown_name("algorithm of the bandit", name, SETTINGS)
    config = load(name)
    config.num_updates, config.batch_size = num_updates, BATCH
    config.normalise_obs = False  # the only observation is 0
    for key in config.hparams:
        if key == "lr" or key.endswith("_lr") and config.hparams[key] > 0.0:
            config.hparams[key] = RATE
        elif key == "q_start" and config.hparams.q_start > 0.0:
            config.hparams.q_start = num_updates / 4.0  # the default's would be after the end
    config.hparams.update({key: value for key, value in AVERAGES.items() if key in config.hparams})
    _fit(config.model)
    return apply_overrides(config, SETTINGS[name].changes)


def _fit(model: ConfigDict) -> None:
    for key, value in model.items():
        if isinstance(value, ConfigDict):
            _fit(value)
        elif key == "hidden" or key.endswith("_hidden"):
            model[key] = (WIDTH, WIDTH)
        elif key == "actor_activation":
            model[key] = "mish"  # of the observation 0, where relu without biases is flat
        elif key == "activation":
            model[key] = "relu"  # of a noised action; sharper than mish at this width, and faster


def train_seeds(config: ConfigDict, seeds: Sequence[int], dataset: Dataset) -> tuple[train.Lane, dict[str, float]]:
    """Lanes [S] after config.num_updates updates of all seeds in one program, and seconds: compiling, training."""
    algorithm = make_algorithm(config, probes.bandit().spec, None)
    hparams = jax.tree.map(np.float32, make_settings(config)[1])
    dataset = scaled(config, dataset)

    def start(seed: Array) -> train.Lane:
        return train.init_lane(algorithm, hparams, seed)

    began = time.perf_counter()
    lanes = sweep.over_lanes(start, "vmap")(jnp.asarray(seeds, jnp.int32))
    chunk = sweep.over_lanes(train.make_chunk(algorithm, config.batch_size), "vmap", donate=True)
    lanes, _ = jax.block_until_ready(chunk(lanes, jnp.int32(0), dataset))
    compiled = time.perf_counter()
    lanes, _ = jax.block_until_ready(chunk(lanes, jnp.int32(config.num_updates), dataset))
    return lanes, {"compile_seconds": compiled - began, "train_seconds": time.perf_counter() - compiled}


def draw_actions(algorithm: Algorithm, states: PyTree, seeds: Sequence[int], count: int) -> np.ndarray:
    """[S, count, 2] of the acting policies of states [S], each with the noise of its own seed."""

    def act(lane: tuple[PyTree, Array]) -> Array:
        state, seed = lane
        chunk, _ = algorithm.act(jax.random.key(seed), state, jnp.zeros((count, 1)), algorithm.init_memory((count,)))
        return chunk[:, 0]

    # One seed after another: 32 candidates for 2000 actions of 8 seeds at once would take a gigabyte.
    return np.asarray(sweep.over_lanes(act, "map")((states, jnp.asarray(seeds, jnp.int32))))


def corner_shares(actions: np.ndarray) -> np.ndarray:
    """Shares [..., 5] of the actions [..., N, 2] at each corner, in the order of `probes.CORNERS`, and elsewhere."""
    distance = np.abs(actions[..., None, :] - probes.CORNERS).max(axis=-1)
    near = (distance <= RADIUS).mean(axis=-2)
    return np.concatenate([near, 1.0 - near.sum(axis=-1, keepdims=True)], axis=-1)


def run(name: str, seeds: Sequence[int], num_updates: int, num_actions: int = 2000) -> dict[str, Any]:
    """Shares [S, 5] of an algorithm by way of acting, the mean and deviation of its actions, and what it took."""
    began = time.perf_counter()
    config = make_config(name, num_updates)
    lanes, seconds = train_seeds(config, seeds, make_dataset())
    ways = {"acting": config}
    if "selection_temperature" in config.hparams and config.model.num_candidates > 1:
        ways["one_candidate"] = apply_overrides(config, {"model.num_candidates": 1})
    row: dict[str, Any] = {}
    for way, chosen in ways.items():
        algorithm = make_algorithm(chosen, probes.bandit().spec, None)
        actions = draw_actions(algorithm, lanes.state, seeds, num_actions)
        row[way] = corner_shares(actions).tolist()
        row[f"{way}_edge"] = (np.abs(actions).max(axis=-1) > EDGE).mean(axis=-1).tolist()
        row[f"{way}_mean"], row[f"{way}_std"] = actions.mean(axis=1).tolist(), actions.std(axis=1).tolist()
    row["finite_seeds"] = int(np.asarray(lanes.alive).sum())
    return row | seconds | {"seconds": time.perf_counter() - began}


COLUMNS = (
    *("algorithm", "best corner", "lowest to highest seed", "pays 3", "pays 1.5", "pays 0", "elsewhere"),
    *("on the edge", "one candidate: best", "seconds"),
)
HEADER = f"| {' | '.join(COLUMNS)} |\n|:--|{'--:|' * (len(COLUMNS) - 1)}"


def table_row(name: str, row: dict[str, Any]) -> str:
    """A line of the table, shares in percent."""
    shares = 100.0 * np.asarray(row["acting"])
    mean, best = shares.mean(axis=0), shares[:, BEST]
    one = f"{100.0 * np.asarray(row['one_candidate'])[:, BEST].mean():.1f}" if "one_candidate" in row else ""
    others = " | ".join(f"{mean[corner]:.1f}" for corner in (0, 2, 1, 4))
    lost = len(shares) - row["finite_seeds"]
    label = f"`{name}`" + (f" ({lost} seeds not finite)" if lost else "")
    edge = f"{100.0 * np.mean(row['acting_edge']):.1f}"
    spread = f"{best.min():.1f} to {best.max():.1f}"
    cells = (label, f"{mean[BEST]:.1f}", spread, others, edge, one, f"{row['train_seconds']:.0f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Trains, prints a markdown table line by line and, with --out, writes every number and setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="how many, from 0")
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--algorithms", default=",".join(SETTINGS), help="separated by commas")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    flags = parser.parse_args()
    began, rows = time.perf_counter(), {}
    print(f"{flags.seeds} seeds, {flags.updates} updates, jax {jax.__version__}, {jax.devices()[0].device_kind}\n")
    print(HEADER, flush=True)
    for name in flags.algorithms.split(","):
        rows[name] = run(name, range(flags.seeds), flags.updates)
        print(table_row(name, rows[name]), flush=True)
    seconds = time.perf_counter() - began
    print(f"\n{seconds:.0f} s in all")
    if flags.out:
        configs = {name: json.loads(make_config(name, flags.updates).to_json_best_effort()) for name in rows}
        found = {"rows": rows, "configs": configs, "seconds": seconds, "jax": jax.__version__}
        flags.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
