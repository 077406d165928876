"""Lanes that start from another run's trained networks; `pretrained` says which and what comes along."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdiff import sweep, train
from jaxdiff.algorithms.normalise import running_moments
from jaxdiff.algorithms.trajectories import DATA
from jaxdiff.cli.loops import make_loop
from jaxdiff.cli.pretrained import POLICY, members_of, plans_of, saved_statistics
from jaxdiff.cli.restore import members_left, restore
from jaxdiff.cli.settings import make_settings
from jaxdiff.cli.task import Task, make_algorithm, make_env
from jaxdiff.envs import HostEnv
from jaxdiff.io import stamp
from jaxdiff.io.checkpoint import Checkpoints
from jaxdiff.io.folders import RunDir
from jaxdiff.types import PyTree, TrainState


def start_from(lanes: train.Lane, config: Mapping[str, Any], seeds: Sequence[int]) -> train.Lane:
    """The lanes with the networks of the run that the config starts from; themselves where it starts anew.

    Raises:
      ValueError: no network in common, or one of another shape.
    """
    if not plans_of(config):
        return lanes
    found = _read(config)
    only = next(iter(found.values()))
    source = sweep.stack([found.get(seed, only) for seed in seeds])
    state = lanes.state
    params, target = dict(state.params), dict(state.target_params)
    for name in _common(config, *(sweep.lane_of(tree, 0) for tree in (source["params"], params))):
        params[name] = jax.device_put(source["params"][name])
        target[name] = jax.device_put(source["target"][name])
    state = state.replace(params=params, target_params=target)  # type: ignore[attr-defined]
    units = {"obs": source["moments"], DATA: source["statistics"]}  # that the networks were trained in
    found_units = {name: jax.device_put(part) for name, part in units.items() if part is not None}
    if found_units:
        state = state.replace(opt_state={**state.opt_state, **found_units})
    return lanes.replace(state=state)  # type: ignore[attr-defined,no-any-return]


def check_networks(config: Mapping[str, Any], task: Task) -> None:
    """Refuses a run to start from whose networks do not fit, before anything is written or compiled.

    Raises:
      ValueError: as `start_from`, or running statistics of observations that only an online run goes on with.
    """
    plans = plans_of(config)
    if not plans:
        return
    there = _shapes(plans[0]["config"], _init_of(plans[0]))
    here = _shapes(config, make_loop(config, task.algorithm, task.env).init)
    _common(config, there.params, here.params)
    if running_moments(there) is not None and running_moments(here) is None:
        raise ValueError(
            f"init_from={config['init_from']} was trained on observations normalised by running statistics, which only "
            "runs that act go on with; set --config.online.num_envs."
        )


def _shapes(config: Mapping[str, Any], init: Callable[[Any, Any], train.Lane]) -> TrainState:
    """The state of a lane, without its numbers."""
    hparams = jax.tree.map(np.float32, make_settings(config)[1])
    state: TrainState = jax.eval_shape(init, hparams, np.int32(0)).state
    return state


def _common(config: Mapping[str, Any], there: PyTree, here: PyTree) -> list[str]:
    """Names of the networks that both have, of equal shapes."""
    folder = str(config["init_from"])
    common = [name for name in here if name in there]
    if not common:
        raise ValueError(
            f"init_from={folder} trained the networks {', '.join(there)}, and {config['algorithm']} has "
            f"{', '.join(here)}: none in common."
        )
    for name in common:
        _check_shapes(folder, name, there[name], here[name])
    return common


def _read(config: Mapping[str, Any]) -> dict[int, PyTree]:
    """seed -> {"params", "target", "moments", "statistics"} of the last checkpoints, on the host."""
    folder = str(config["init_from"])
    num_devices = int(stamp.read_stamp(folder)["device_count"])
    packs = {plan["id"]: _networks(folder, plan, num_devices) for plan in plans_of(config)}
    found = {}
    for seed, (plan, index) in members_of(config).items():
        networks, left = packs[plan["id"]]
        if index not in left:
            label = plan["members"][index]["label"]
            raise ValueError(f"init_from={folder}: a search stopped {label} there; name another by init_setting.")
        found[seed] = sweep.lane_of(networks, left.index(index))
    return found


def _networks(folder: str, plan: Mapping[str, Any], num_devices: int) -> tuple[PyTree, list[int]]:
    """(networks, targets and running statistics of a pack's lanes, whose they are); what acts is in both places."""
    init = _init_of(plan)
    with Checkpoints(RunDir(folder).pack(plan["id"]).checkpoints) as checkpoints:
        left = members_left(checkpoints, plan, "last")
        lanes, _ = restore(checkpoints, plan, "last", num_devices=num_devices, trained=init, acting=init, overrides={})
    params, target = dict(lanes.state.params), dict(lanes.state.target_params)
    if POLICY in params:
        acting = target if plan["config"]["model"].get("act_with_ema", False) else params
        params[POLICY] = target[POLICY] = acting[POLICY]
    opt_state = lanes.state.opt_state
    statistics = opt_state.get(DATA) if isinstance(opt_state, dict) else None
    moments = running_moments(lanes.state)
    return {"params": params, "target": target, "moments": moments, "statistics": statistics}, left


def _init_of(plan: Mapping[str, Any]) -> Callable[[Any, Any], train.Lane]:
    """The start of a lane of a pack."""
    config = plan["config"]
    env = make_env(config)
    init = make_loop(config, make_algorithm(config, env.spec, saved_statistics(plan)), env).init
    if isinstance(env, HostEnv):
        env.close()
    return init


def _check_shapes(folder: str, name: str, there: PyTree, here: PyTree) -> None:
    shapes = [
        {jax.tree_util.keystr(p, simple=True, separator="/"): leaf.shape
         for p, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (there, here)
    ]  # fmt: skip
    for part in [*shapes[0], *shapes[1]]:
        if shapes[0].get(part) != shapes[1].get(part):
            raise ValueError(
                f"init_from={folder}: network {name!r} has {part} {shapes[0].get(part, 'missing')} there and "
                f"{shapes[1].get(part, 'missing')} here; make the model's sizes those of that run."
            )
