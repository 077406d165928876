"""Saved policies back in memory: a pack's checkpoint, acting as trained or by other settings."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import sweep, train
from jaxdiff.cli import config as configs
from jaxdiff.cli.loops import make_loop
from jaxdiff.cli.overrides import apply_overrides, from_json
from jaxdiff.cli.pretrained import TASK_GROUPS, saved_statistics
from jaxdiff.cli.settings import in_env, is_online, make_settings, setting
from jaxdiff.cli.task import Task, make_algorithm, make_env
from jaxdiff.envs import HostEnv
from jaxdiff.io.checkpoint import Checkpoints
from jaxdiff.io.folders import PackDir, RunDir
from jaxdiff.io.runs import read_plan
from jaxdiff.types import PyTree, Spec

Init = Callable[[Any, Any], train.Lane]  # (hparams, seed) -> a lane before its first update

CONFIG_KEYS = ("algorithm", "env", "model", "hparams")  # what acting needs of a pack's config
# What `eval --set` may change; mpe, vec, env_options: the task that a policy is tested in.
SETTABLE = {
    "model": "model.*",
    "hparams": "hparams.*",
    "mpe": "mpe.*",
    "vec": "vec.*",
    "shared_noise": "shared_noise",
    "env_options": "env_options",
}
INSTEAD = {"env": "use --env=NAME", "eval_episodes": "use --episodes=N", "seed": "use --seed=N"}


@dataclasses.dataclass(frozen=True)
class Restored:
    """Policies of a pack, ready to act."""

    task: Task
    config: dict[str, Any]  # as they act
    lanes: train.Lane  # [S L, ...] without padding: the members once for each of S sets of overrides
    step: int  # updates they have seen
    members: list[Mapping[str, Any]]  # whose lanes they are: all of pack.json's, but for those that were stopped


def read_plans(run: RunDir) -> list[dict[str, Any]]:
    """Every pack.json that is there.

    Raises:
      ValueError: none is.
    """
    folders: list[PackDir] = [run.pack(pack_id) for pack_id in run.list_packs()]
    plans = [read_plan(folder.pack_json, CONFIG_KEYS) for folder in folders if folder.pack_json.is_file()]
    if not plans:
        raise ValueError(f"{run.path} has no pack that ever started; there is no policy to roll out.")
    return plans


def restore_pack(
    run: RunDir,
    plan: Mapping[str, Any],
    known: Mapping[str, Any],
    *,
    env: str | None,
    episodes: int,
    checkpoint: str,
    overrides: Sequence[Mapping[str, Any]],
) -> Restored:
    """A pack's policies, once for each set of overrides; these may differ in hparams.* alone.

    Args:
      run: the run folder.
      plan: the pack's pack.json.
      known: the run's run.json.
      env: where they act; None: where they were trained.
      episodes: how many are rolled out side by side, which a simulator on the host must know.
      checkpoint: last, best or a step.
      overrides: S >= 1 of them: dotted keys, see `apply_settings`.

    Raises:
      ValueError: see `restore`, or an environment of other sizes.
      KeyError: an unknown environment.
    """
    as_trained = {**in_env(plan["config"], env), "eval_episodes": episodes}
    config = apply_settings(as_trained, overrides[0])
    check_task_options(plan["config"], config)
    place = make_env(config)
    described = known["dataset"] if plan["config"]["env"] == known["env"] else None
    trained_on = plan.get("dataset", described)  # its own where the study has several tasks
    if env is not None and trained_on is not None:
        _check_sizes(place.spec, trained_on)
    statistics = saved_statistics(plan)
    task = Task(make_algorithm(config, place.spec, statistics), place, None, None, statistics)
    # What an online lane has lived through is part of its checkpoint.
    lived_in = make_env(plan["config"]) if is_online(plan["config"]) else place
    check_same_sizes(lived_in.spec, place.spec)
    with Checkpoints(run.pack(plan["id"]).checkpoints) as checkpoints:
        left = members_left(checkpoints, plan, checkpoint)
        lanes, step = restore(
            checkpoints,
            plan,
            checkpoint,
            num_devices=int(known["device_count"]),
            trained=make_loop(as_trained, make_algorithm(as_trained, place.spec, statistics), lived_in).init,
            acting=make_loop(as_trained, task.algorithm, lived_in).init,
            overrides={key: value for key, value in overrides[0].items() if not key.startswith("hparams.")},
        )
    members = [plan["members"][i] for i in left]
    lanes = jax.tree.map(lambda leaf: leaf[: len(members)], lanes)
    acting = [_with_hparams(lanes, members, chosen) for chosen in overrides]
    return Restored(task, config, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *acting), step, members)


def _with_hparams(lanes: train.Lane, members: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any]) -> train.Lane:
    """Lanes whose hyperparameters are as saved, where a search may have moved them, but for those overridden."""
    wanted = jax.device_put(_stacked_hparams([apply_settings(member["config"], overrides) for member in members]))
    names = [key.partition(".")[2] for key in overrides if key.startswith("hparams.")]
    new = {name: getattr(wanted, name) for name in names if hasattr(wanted, name)}
    state = lanes.state
    return lanes.replace(state=state.replace(hparams=state.hparams.replace(**new)))  # type: ignore[attr-defined, no-any-return]


def _check_sizes(spec: Spec, dataset: Mapping[str, Any]) -> None:
    there, here = (dataset["obs_dim"], dataset["action_dim"]), (spec.obs_dim, spec.action_dim)
    if there != here:
        raise ValueError(
            f"the policies were trained on observations of {there[0]} and actions of {there[1]} numbers, "
            f"--env={spec.name} has {here[0]} and {here[1]}; choose one of the same sizes."
        )


def check_task_options(trained: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises ValueError where other options would change who is there, what is seen or what can be done."""
    there = apply_settings(in_env(trained, wanted["env"]), {})  # out of JSON, as `wanted` is
    if any(setting(wanted, key) != setting(there, key) for key in ("env_options", *TASK_GROUPS)):
        check_same_sizes(_spec_of(trained), _spec_of(wanted))


def _spec_of(config: Mapping[str, Any]) -> Spec:
    env = make_env(config)
    if isinstance(env, HostEnv):
        env.close()
    return env.spec


def check_same_sizes(trained: Spec, wanted: Spec) -> None:
    """Raises ValueError unless a task has the agents, observations and actions of another."""
    there, here = ((spec.num_agents, spec.obs_dim, spec.action_dim) for spec in (trained, wanted))
    if there != here:
        told = [f"{agents or 'no'} agents, {obs} numbers seen and {done} done" for agents, obs, done in (there, here)]
        raise ValueError(
            f"the policies were trained in {trained.name} with {told[0]}, and {wanted.name} would have {told[1]}; who "
            "is there and what can be done cannot be changed after training."
        )


def parse_settings(pack_configs: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> dict[str, Any]:
    """Values of `--set KEY=VALUE ...`, typed by the settings of any of the packs.

    Raises:
      KeyError: no pack has the key; the nearest one is offered.
      ValueError: not of the form KEY=VALUE, of another type, or a key that acting does not read.
    """
    everything: dict[str, Any] = {}
    for config in pack_configs:
        everything = _merge(everything, config)
    pairs = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text!r} has no '='; write KEY=VALUE, for example hparams.act_temperature=0.5.")
        group = key.partition(".")[0]
        if group in everything and group not in SETTABLE:
            advice = INSTEAD.get(group, "only training reads it")
            raise ValueError(f"--set takes {', '.join(SETTABLE.values())}, got {key!r}: {advice}.")
        pairs.append((key, value))
    settable = {group: everything[group] for group in SETTABLE if group in everything}
    return configs.parse_overrides(from_json(settable), pairs)


def apply_settings(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The config with those overrides whose keys it has: packs of other algorithms have other keys.

    Raises:
      ValueError: a value of the wrong type.
    """
    mine = {key: value for key, value in overrides.items() if _has(config, key)}
    applied: dict[str, Any] = apply_overrides(from_json(config), mine).to_dict()
    return applied


def restore(
    checkpoints: Checkpoints,
    plan: Mapping[str, Any],
    wanted: str,
    *,
    num_devices: int,
    trained: Init,
    acting: Init,
    overrides: Mapping[str, Any],
) -> tuple[train.Lane, int]:
    """The lanes of a checkpoint, with the hyperparameters to act by.

    Args:
      checkpoints: of the pack.
      plan: the pack's pack.json.
      wanted: last, best, or a step.
      num_devices: where the pack was trained: older checkpoints of sharded lanes are padded to a multiple of it.
      trained: the start of a lane as it was trained, see `Loop`.
      acting: the start of a lane of the algorithm that will act.
      overrides: dotted keys with which it will act; those of hparams.* replace the numbers in the state.

    Returns:
      (lanes with the padding they were trained with, those of `members_left` in this order; step).

    Raises:
      ValueError: there is no such checkpoint, or `acting` wants other parameters than `trained` had.
    """
    members = [plan["members"][i] for i in members_left(checkpoints, plan, wanted)]
    step = _step_of(wanted, checkpoints, plan["id"])
    padded = sweep.lane_count(len(members), plan["lanes"], num_devices)
    count = checkpoints.metadata(step).get("num_lanes", padded)
    filled = [*members, *[members[-1]] * (count - len(members))]
    like = _lane_shapes(trained, [member["config"] for member in filled])
    changed = [apply_settings(member["config"], overrides) for member in filled]
    _check_same_parameters(like, _lane_shapes(acting, changed), overrides)
    return _with_hparams(checkpoints.restore(like, step), filled, overrides), step


def members_left(checkpoints: Checkpoints, plan: Mapping[str, Any], wanted: str) -> list[int]:
    """Indices of the members that a checkpoint has lanes of: all, but for those that a search had stopped by then.

    Raises:
      ValueError: there is no such checkpoint.
    """
    metadata = checkpoints.metadata(_step_of(wanted, checkpoints, plan["id"]))
    return list(metadata.get("active", range(len(plan["members"]))))


def _stacked_hparams(member_configs: Sequence[Mapping[str, Any]]) -> Any:
    return sweep.stack([jax.tree.map(np.float32, make_settings(config)[1]) for config in member_configs])


def _lane_shapes(init: Init, member_configs: Sequence[Mapping[str, Any]]) -> Any:
    hparams, seeds = _stacked_hparams(member_configs), np.zeros(len(member_configs), np.int32)
    return jax.eval_shape(jax.vmap(init), hparams, seeds)


def _check_same_parameters(trained: PyTree, wanted: PyTree, overrides: Mapping[str, Any]) -> None:
    there, here = _shapes(trained), _shapes(wanted)
    for name in [*there, *here]:
        if there.get(name) != here.get(name):
            given = " ".join(f"--set {key}={value}" for key, value in overrides.items())
            raise ValueError(
                f"{given} changes the saved parameters: {name} was trained as {there.get(name, 'nothing')} and would "
                f"be {here.get(name, 'nothing')}; such a setting needs training with `jaxdiff train`."
            )


def _shapes(lanes: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(lanes)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape[1:] for path, leaf in leaves}


def _step_of(wanted: str, checkpoints: Checkpoints, pack_id: str) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise ValueError(f"pack {pack_id} has no whole checkpoint; let the run go on until its first one.")
    if wanted == "last":
        return steps[-1]
    if wanted == "best":
        best = checkpoints.best_step()
        return steps[-1] if best is None else best
    if not wanted.isdecimal() or int(wanted) not in steps:
        known = ", ".join(map(str, steps))
        raise ValueError(f"--checkpoint={wanted} is not in pack {pack_id}; allowed: last, best, {known}.")
    return int(wanted)


def _has(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return False
        config = config[part]
    return True


def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for key, value in second.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
