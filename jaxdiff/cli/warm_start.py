"""Lanes that start from another run's trained networks; `pretrained` says which and what comes along."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdiff import sweep, train
from jaxdiff.cli.loops import make_loop
from jaxdiff.cli.pretrained import POLICY, members_of, plans_of
from jaxdiff.cli.restore import restore
from jaxdiff.cli.task import make_algorithm, make_env
from jaxdiff.envs import HostEnv
from jaxdiff.io import stamp
from jaxdiff.io.checkpoint import Checkpoints
from jaxdiff.io.runs import RunDir
from jaxdiff.types import PyTree


def start_from(lanes: train.Lane, config: Mapping[str, Any], seeds: Sequence[int]) -> train.Lane:
    """The lanes with the networks of the run that the config starts from; themselves where it starts anew.

    Raises:
      ValueError: no network in common, or one of another shape.
    """
    if not plans_of(config):
        return lanes
    folder, found = str(config["init_from"]), _read(config)
    only = next(iter(found.values()))
    source = sweep.stack([found.get(seed, only) for seed in seeds])
    state = lanes.state
    common = [name for name in state.params if name in source["params"]]
    if not common:
        raise ValueError(
            f"init_from={folder} trained the networks {', '.join(source['params'])}, and {config['algorithm']} has "
            f"{', '.join(state.params)}: none in common."
        )
    params, target = dict(state.params), dict(state.target_params)
    for name in common:
        _check_shapes(folder, name, source["params"][name], params[name])
        params[name] = jax.device_put(source["params"][name])
        target[name] = jax.device_put(source["target"][name])
    return lanes.replace(state=state.replace(params=params, target_params=target))  # type: ignore[attr-defined,no-any-return]


def _read(config: Mapping[str, Any]) -> dict[int, PyTree]:
    """seed -> {"params", "target"} of the last checkpoints, on the host."""
    folder = str(config["init_from"])
    num_devices = int(stamp.read_stamp(folder)["device_count"])
    packs = {plan["id"]: _networks(folder, plan, num_devices) for plan in plans_of(config)}
    return {seed: sweep.lane_of(packs[plan["id"]], index) for seed, (plan, index) in members_of(config).items()}


def _networks(folder: str, plan: Mapping[str, Any], num_devices: int) -> PyTree:
    """Networks and targets of a pack's lanes; what acts is in both places."""
    config, saved = plan["config"], plan["obs_statistics"]
    env = make_env(config)
    means = None if saved is None else (np.asarray(saved[0], np.float32), np.asarray(saved[1], np.float32))
    init = make_loop(config, make_algorithm(config, env.spec, means), env).init
    if isinstance(env, HostEnv):
        env.close()
    with Checkpoints(RunDir(folder).pack(plan["id"]).checkpoints) as checkpoints:
        lanes, _ = restore(checkpoints, plan, "last", num_devices=num_devices, trained=init, acting=init, overrides={})
    params, target = dict(lanes.state.params), dict(lanes.state.target_params)
    if POLICY in params:
        acting = target if config["model"].get("act_with_ema", False) else params
        params[POLICY] = target[POLICY] = acting[POLICY]
    return {"params": params, "target": target}


def _check_shapes(folder: str, name: str, there: PyTree, here: PyTree) -> None:
    shapes = [
        {jax.tree_util.keystr(p, simple=True, separator="/"): leaf.shape[1:]
         for p, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (there, here)
    ]  # fmt: skip
    for part in [*shapes[0], *shapes[1]]:
        if shapes[0].get(part) != shapes[1].get(part):
            raise ValueError(
                f"init_from={folder}: network {name!r} has {part} {shapes[0].get(part, 'missing')} there and "
                f"{shapes[1].get(part, 'missing')} here; make the model's sizes those of that run."
            )
