"""Which run a config starts from, `--config.init_from=DIR`, and what it takes over of its settings.

A member starts from the member of that run with its own seed, or from the only one there is. Every network that both
have by name is taken over, the policy in the version that acts (its average, where that is what acts); all else starts
as usual. The shape of the policy, its history and chunks, the normalisation of observations and the task come along,
unless the command line sets them.
"""

from collections.abc import Mapping, Sequence
import copy
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from jaxdiff.cli.overrides import from_json
from jaxdiff.cli.settings import OLDER_RUNS, setting
from jaxdiff.io import stamp
from jaxdiff.io.folders import RunDir
from jaxdiff.io.runs import read_plan

TASK = ("env", "maze", "env_options", "env_backend", "normalise_obs", "history", "action_chunk")
TASK_GROUPS = ("mpe", "vec")  # of settings of a task of that kind
POLICY = "policy"  # the network that acts, and the group of settings that shapes it


def plans_of_run(folder: str, label: str) -> list[dict[str, Any]]:
    """The packs of a run that hold the setting of that label, or its only setting.

    Raises:
      ValueError: not a run folder, nothing trained in it, no such setting, or several to choose from.
    """
    stamp.read_stamp(folder)
    run = RunDir(folder)
    plans = [read_plan(run.pack(pack).pack_json) for pack in run.list_packs()
             if run.pack(pack).pack_json.is_file()]  # fmt: skip
    labels = list(dict.fromkeys(member["label"] for plan in plans for member in plan["members"]))
    if not labels:
        raise ValueError(f"init_from={folder} has no pack that ever started; train it first.")
    if label and label not in labels or not label and len(labels) > 1:
        given = f"init_setting={label!r} is not in it" if label else "it has several settings"
        raise ValueError(f"init_from={folder}: {given}; choose with --config.init_setting=LABEL: {', '.join(labels)}.")
    wanted = label or labels[0]
    return [plan for plan in plans if any(member["label"] == wanted for member in plan["members"])]


def plans_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The packs a config starts from; none where it starts anew."""
    folder = setting(config, "init_from")
    return plans_of_run(folder, setting(config, "init_setting")) if folder else []


def inherit(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """The config with the task and the policy's shape of the run it starts from, but for what was set explicitly.

    Raises:
      ValueError: see `plans_of_run`.
    """
    plans = plans_of(config)
    if not plans:
        return config
    there, merged = from_json(plans[0]["config"]), copy.deepcopy(config)
    with merged.unlocked():
        for key in TASK:
            # A maze and options belong to their env.
            own = key in overrides or key in ("maze", "env_options") and "env" in overrides
            if not own and (key in there or key in OLDER_RUNS):
                merged[key] = setting(there, key)
        for group in TASK_GROUPS:
            for key, value in setting(there, group).items():
                if f"{group}.{key}" not in overrides and key in merged[group]:
                    merged[group][key] = value
        if POLICY in merged.model and POLICY in there.model:
            for key, value in there.model[POLICY].items():
                if f"model.{POLICY}.{key}" not in overrides and key in merged.model[POLICY]:
                    merged.model[POLICY][key] = value
    return merged.lock()


def members_of(config: Mapping[str, Any]) -> dict[int, tuple[dict[str, Any], int]]:
    """seed -> (pack, index in it) of the members that a config starts from; none where it starts anew."""
    label = setting(config, "init_setting")
    return {
        int(member["seed"]): (plan, index)
        for plan in plans_of(config)
        for index, member in enumerate(plan["members"])
        if not label or member["label"] == label
    }


def check_seeds(config: Mapping[str, Any], seeds: Sequence[int]) -> None:
    """Raises ValueError unless every seed has a member to start from: its own, or the only one."""
    known = members_of(config)
    if len(known) > 1 and not set(seeds) <= set(known):
        raise ValueError(
            f"init_from={config['init_from']} has seeds {sorted(known)}, and this study wants {sorted(set(seeds))}; "
            "use seeds that are there, or a run of a single member, from which all seeds start."
        )


def statistics(config: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and deviation of the observations that the networks to start from were trained with.

    Raises:
      ValueError: the config wants other units than those networks know.
    """
    plans = plans_of(config)
    if plans and bool(plans[0]["config"]["normalise_obs"]) != bool(config["normalise_obs"]):
        raise ValueError(
            f"config.normalise_obs={config['normalise_obs']}, and the networks of init_from={config['init_from']} were "
            f"trained with {plans[0]['config']['normalise_obs']}; leave --config.normalise_obs away."
        )
    return saved_statistics(plans[0]) if plans else None


def saved_statistics(plan: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and deviation of the observations that a pack was trained on; None where it took them as they are."""
    saved = plan["obs_statistics"]
    return None if saved is None else (np.asarray(saved[0], np.float32), np.asarray(saved[1], np.float32))
