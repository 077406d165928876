"""`--config.mpe.prey=RUN`: the prey of a hunt, out of the run folder in which it learnt to flee (mpe-TASK-prey)."""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.cli.restore import read_plans, restore_pack
from jaxdiff.envs.mpe import PolicyPrey
from jaxdiff.io import stamp
from jaxdiff.io.folders import RunDir
from jaxdiff.sweep import lane_of
from jaxdiff.types import Algorithm, Array, Key


def load(folder: pathlib.Path, env: str) -> PolicyPrey:
    """The policy of a finished run of one member, at its last checkpoint, as `jaxdiff eval` restores it.

    Args:
      folder: of the run.
      env: mpe-tag or mpe-world, where it will be hunted.

    Raises:
      ValueError: no run folder, a run of another task, of several members, that has not finished or went non-finite, or
        a policy that remembers or decides on several actions at once.
    """
    run, given = RunDir(folder), f"config.mpe.prey={folder}"
    if not run.run_json.is_file():
        raise ValueError(
            f"{given} is a folder without run.json; give a run of {env}-prey, a file of OMAR's prey, or 'scripted'."
        )
    plans = read_plans(run)
    members = [member for plan in plans for member in plan["members"]]
    trained_in = plans[0]["config"]["env"]
    if trained_in != f"{env}-prey":
        raise ValueError(
            f"{given} was trained in {trained_in}, and the prey of {env} is trained in {env}-prey: jaxdiff train "
            f"--config.env={env}-prey ..."
        )
    if not run.is_done():
        raise ValueError(f"{given} has not finished; let it: the same command that started it goes on.")
    if len(members) != 1:
        raise ValueError(
            f"{given} has {len(members)} members, and a prey is one policy; train it by itself, with `jaxdiff train`."
        )
    return _restored(run.path.resolve(), run.pack(plans[0]["id"]).done.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)  # a study and an evaluation build their task several times
def _restored(folder: pathlib.Path, finished_ns: int) -> PolicyPrey:
    """The policy of a run of one member that finished then."""
    del finished_ns
    run = RunDir(folder)
    (plan,) = read_plans(run)
    known = stamp.read_stamp(folder)
    restored = restore_pack(run, plan, known, env=None, episodes=1, checkpoint="last", overrides=[{}])
    lane = lane_of(restored.lanes, 0)
    if not bool(lane.alive):
        raise ValueError(f"config.mpe.prey={folder} became non-finite in training; train another.")
    algorithm, obs_dim = restored.task.algorithm, restored.task.spec.obs_dim
    state = jax.tree.map(np.asarray, lane.state)
    _check_memoryless(folder, plan["config"], algorithm, state, obs_dim)

    def act(key: Key, obs: Array) -> Array:
        own = jax.tree.map(jnp.asarray, state)
        return algorithm.act(key, own, obs[None], algorithm.init_memory((1,)))[0][0, 0]

    return PolicyPrey(act, obs_dim)


def _check_memoryless(
    folder: pathlib.Path, config: Mapping[str, Any], algorithm: Algorithm, state: Any, obs_dim: int
) -> None:
    """Raises ValueError where an action depends on more than the present observation."""
    memory = algorithm.init_memory((1,))
    obs = jax.ShapeDtypeStruct((1, obs_dim), jnp.float32)
    chunk = jax.eval_shape(algorithm.act, jax.random.key(0), state, obs, memory)[0].shape[1]
    if jax.tree.leaves(memory) or chunk != 1:
        raise ValueError(
            f"config.mpe.prey={folder}: its {config['algorithm']} remembers what it saw, or decides on {chunk} actions "
            "at once, and a prey acts on what it sees now; train one without history, action_chunk and plans."
        )
