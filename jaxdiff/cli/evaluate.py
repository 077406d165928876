"""`jaxdiff eval DIR`: roll out the saved policies of a run folder, as trained or with other acting-time settings.

  jaxdiff eval runs/demo --episodes=64
  jaxdiff eval runs/demo --set model.policy.num_steps=8 --set hparams.selection_temperature=0.1
  jaxdiff eval runs/demo --checkpoint=best --env=pointmaze-medium
  jaxdiff eval runs/demo --sweep=model.num_candidates=1,4,16,64 --sweep=hparams.act_temperature=0,0.5,1
  jaxdiff eval runs/tag --episodes=1000 --sweep=mpe.speed_scale=0.5,0.75,1,1.25,1.5

No dataset is needed. Each pack runs as it was trained (its lane mode), on episodes that training has never seen, so the
checkpoint that was best by luck gains nothing from it. The numbers go to DIR/evals/<id>.json, with what repeats them;
the same request writes the same file. --sweep rolls out the product of its values, from the same weights: points that
differ in hparams.* alone are rolled out side by side in one program.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

from absl import flags
import jax
import numpy as np

from jaxdiff import adaptive, sweep
from jaxdiff.cli import config as configs
from jaxdiff.cli import places
from jaxdiff.cli.advice import warn
from jaxdiff.cli.choose import of_task
from jaxdiff.cli.machine import use_all_cores, use_compilation_cache
from jaxdiff.cli.programs import make_evaluation
from jaxdiff.cli.restore import (
    SETTABLE,
    apply_settings,
    check_task_options,
    parse_settings,
    read_plans,
    restore_pack,
)
from jaxdiff.cli.scores import PackScores, by_env, settings, summary, sweep_points, table
from jaxdiff.cli.settings import in_env
from jaxdiff.cli.task import make_algorithm, make_env
from jaxdiff.envs import HostEnv
from jaxdiff.evaluate import normalised_scores
from jaxdiff.io import files, stamp
from jaxdiff.io.folders import RunDir
from jaxdiff.types import PyTree

FIRST_INDEX = 2**31  # of evaluation keys: training's are numbered by update, which stays below


@dataclasses.dataclass(frozen=True)
class Request:
    """What to roll out."""

    run: RunDir
    episodes: int
    seed: int  # of the episodes
    env: str | None  # None: the one of the run
    checkpoint: str  # last, best or a step
    overrides: dict[str, Any]  # dotted key -> value, of --set
    task: str | None = None  # of a study of several: the only one to roll out

    def id(self) -> str:
        """The same for the same request."""
        fields = {"episodes": self.episodes, "seed": self.seed, "env": self.env, "overrides": self.overrides}
        fields |= {} if self.task is None else {"task": self.task}
        return sweep.content_hash({**fields, "checkpoint": self.checkpoint})


def main(argv: list[str]) -> int:
    """Evaluates, prints a table and writes the numbers. Returns the exit code.

    Raises:
      ValueError: not a run folder, nothing to restore, a setting out of range or one that changes the parameters.
      KeyError: an unknown key of --set, environment or flag.
    """
    flag_values = flags.FlagValues()
    flags.DEFINE_integer("episodes", 64, "episodes per member", lower_bound=1, flag_values=flag_values)
    flags.DEFINE_integer("seed", 0, "of the episodes", 0, 2**31 - 1, flag_values=flag_values)
    flags.DEFINE_string("env", None, "score on this environment, default the run's own", flag_values=flag_values)
    flags.DEFINE_string("checkpoint", "last", "last, best or a step", flag_values=flag_values)
    flags.DEFINE_string("task", None, "of a study of several tasks: the only one to roll out", flag_values=flag_values)
    settable = ", ".join(SETTABLE.values())
    flags.DEFINE_multi_string("set", [], f"KEY=VALUE of {settable}; repeat it", flag_values=flag_values)
    flags.DEFINE_multi_string("sweep", [], "KEY=VALUE,VALUE,.. of such keys; repeat it", flag_values=flag_values)
    flags.DEFINE_string("out", None, "file to write, default DIR/evals/<id>.json", flag_values=flag_values)
    folders = configs.parse_flags(argv, flag_values, __doc__ or "")
    if len(folders) != 1:
        raise ValueError(f"eval takes one run folder, got {len(folders)}: jaxdiff eval DIR")
    run = RunDir(places.to_act(folders[0]).folder)
    known = stamp.read_stamp(run.path)
    plans = of_task(read_plans(run), known, flag_values.task)
    points = sweep_points(flag_values.sweep)
    if len(points) > 1 and flag_values.out:
        raise ValueError(f"--out={flag_values.out} names one file and --sweep makes {len(points)}; leave --out away.")
    configs_of_packs = [plan["config"] for plan in plans]
    chosen = (flag_values.episodes, flag_values.seed, flag_values.env, flag_values.checkpoint)
    wanted = [parse_settings(configs_of_packs, [*flag_values.set, *point]) for point in points]
    requests = [Request(run, *chosen, overrides, flag_values.task) for overrides in wanted]
    written_to = Path(flag_values.out).parent if flag_values.out else run.path / "evals"
    files.check_writable(written_to, "choose another file with --out")
    if flag_values.out and Path(flag_values.out).is_dir():
        raise ValueError(f"--out={flag_values.out} is a folder; give the name of a file to write.")
    use_all_cores("shard" if {"shard", "pmap"} & {plan["lanes"] for plan in plans} else "vmap")
    use_compilation_cache()
    _check_points(requests, plans)
    found: list[list[PackScores]] = [[] for _ in requests]
    for plan in plans:
        for together in same_program(requests):
            chosen_requests = [requests[i] for i in together]
            for i, scores in zip(together, evaluate_pack(chosen_requests, plan, known), strict=True):
                found[i].append(scores)
    for request, packs in zip(requests, found, strict=True):
        path = Path(flag_values.out) if flag_values.out else run.path / "evals" / f"{request.id()}.json"
        files.write_json_atomic(path, _record(["jaxdiff", "eval", *argv], request, known, packs))
        print("\n\n".join(table(of_env, request.overrides) for of_env in by_env(packs)))
        print(f"\nwritten to {path}\n")
    if len(points) > 1:
        print(summary(points, found))
    return 0


def _check_points(requests: Sequence[Request], plans: Sequence[Mapping[str, Any]]) -> None:
    """Builds every point's algorithms, so that the last point's mistake is known before the first is rolled out.

    Raises:
      ValueError, KeyError: a setting out of range or an unknown name; options of a task that has other sizes.
    """
    for plan in plans:
        env = make_env(plan["config"])
        if isinstance(env, HostEnv):
            env.close()
        for request in requests:
            make_algorithm(apply_settings(plan["config"], request.overrides), env.spec, None)
            check_task_options(plan["config"], apply_settings(in_env(plan["config"], request.env), request.overrides))


def same_program(requests: Sequence[Request]) -> list[list[int]]:
    """Indices of the requests that one compiled program can answer: they differ in hparams.* alone."""
    groups: dict[str, list[int]] = {}
    for i, request in enumerate(requests):
        static = {key: value for key, value in request.overrides.items() if not key.startswith("hparams.")}
        groups.setdefault(sweep.content_hash(static), []).append(i)
    return list(groups.values())


def evaluate_pack(requests: Sequence[Request], plan: Mapping[str, Any], known: Mapping[str, Any]) -> list[PackScores]:
    """Restores a pack's policies and rolls them out once for each request, all side by side.

    Args:
      requests: what to roll out, see `same_program`.
      plan: the pack's pack.json.
      known: the run's run.json.
    """
    first = requests[0]
    restored = restore_pack(
        first.run,
        plan,
        known,
        env=first.env,
        episodes=first.episodes,
        checkpoint=first.checkpoint,
        overrides=[request.overrides for request in requests],
    )
    lanes, env, count = restored.lanes, restored.task.env, len(restored.members)
    warn(lanes, [apply_settings(m["config"], request.overrides) for request in requests for m in restored.members])
    evaluation = make_evaluation(restored.task, {**restored.config, "record_episodes": 0}, plan["lanes"])
    found = evaluation(_spread(lanes, count * len(requests), plan["lanes"]), FIRST_INDEX + first.seed)
    if isinstance(env, HostEnv):
        env.close()
    fields = ("id", "label", "algorithm", "overrides", "seed")
    members = [{name: member[name] for name in fields} for member in restored.members]
    answers = []
    for i in range(len(requests)):
        mine = slice(i * count, (i + 1) * count)
        returns, lengths, alive = (np.asarray(x)[mine] for x in (found.returns, found.lengths, lanes.alive))
        rows = [{**member, "alive": bool(ok)} for member, ok in zip(members, alive, strict=True)]
        scores = normalised_scores(returns, env.spec)
        answers.append(PackScores(plan["id"], restored.step, env.spec.name, rows, returns, lengths, scores))
    return answers


def _spread(lanes: PyTree, count: int, mode: str) -> PyTree:
    """The members' lanes, padded for this machine's devices and placed on them."""
    index = np.minimum(np.arange(sweep.lane_count(count, mode, jax.device_count())), count - 1)
    return sweep.place(adaptive.compact(lanes, index), mode)


def _record(
    command: list[str], request: Request, known: Mapping[str, Any], packs: Sequence[PackScores]
) -> dict[str, Any]:
    """All numbers, and all that is needed to get them again."""
    here = stamp.stamp(command, {}, known["study"], known["dataset"], ", ".join(dict.fromkeys(p.env for p in packs)))
    asked = {field.name: getattr(request, field.name) for field in dataclasses.fields(request) if field.name != "run"}
    if request.task is None:
        del asked["task"]
    return {
        "run": str(request.run.path),
        "run_created": known["created"],
        "request": asked,
        **{key: value for key, value in here.items() if key not in ("config", "dataset")},
        "settings": settings(packs),
        "packs": [
            {
                "id": pack.id,
                "step": pack.step,
                "members": pack.members,
                "returns": pack.returns,
                "lengths": pack.lengths,
                "scores": pack.scores,
            }
            for pack in packs
        ],
    }
