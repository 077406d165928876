"""`jaxdiff plan DIR`: what the planner of a run folder plans, how its plans come out of noise, and what comes of them.

  jaxdiff plan runs/maze --html=plans.html
  jaxdiff plan runs/maze --member=3 --episodes=2 --set model.act.search.num_candidates=16 --html=plans.html
  jaxdiff plan diffuser --config.num_updates=2000 --html=plans.html

One member plans at the start of a few episodes and then acts in them; --html writes the pictures, without it a table is
printed. The member is the best setting's seed of median score, unless --member gives an id, an index into the run's
members or a setting's label. In the place of a folder a config is trained first, as `jaxdiff train` does, and takes its
flags. The episodes are the first ones of `jaxdiff eval` with the same --seed.
"""

from collections.abc import Sequence
from pathlib import Path
import shlex
from typing import Any

from absl import flags
import jax
import numpy as np

from jaxdiff import sweep
from jaxdiff.cli import config as configs
from jaxdiff.cli import machine
from jaxdiff.cli import run as training
from jaxdiff.cli.choose import Chosen, check_planner, choose_member, of_task
from jaxdiff.cli.evaluate import FIRST_INDEX
from jaxdiff.cli.programs import evaluation_key
from jaxdiff.cli.restore import Restored, parse_settings, read_plans, restore_pack
from jaxdiff.envs import HostEnv
from jaxdiff.evaluate import make_host_rollout, make_planning, make_rollout, normalised_scores
from jaxdiff.io import files, plans, stamp
from jaxdiff.io.folders import RunDir
from jaxdiff.io.report.plans import Plan
from jaxdiff.io.runs import load_run


def main(argv: list[str]) -> int:
    """Plans, acts, prints a table and writes the page. Returns the exit code.

    Raises:
      ValueError: not a run folder, nothing to restore, an algorithm that plans nothing, a setting out of range.
      KeyError: an unknown config, member, environment, key or flag.
      OSError: the page cannot be written.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("html", None, "page to write; without it a table is printed", flag_values=values)
    flags.DEFINE_string("member", None, "id, index or label; default: the best that plans", flag_values=values)
    flags.DEFINE_string("task", None, "of a study of several tasks: which one", flag_values=values)
    flags.DEFINE_integer("episodes", 4, "to plan for and to act in", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the episodes", 0, 2**31 - 1, flag_values=values)
    flags.DEFINE_string("env", None, "plan in this environment, default the run's own", flag_values=values)
    flags.DEFINE_string("checkpoint", "last", "last, best or a step", flag_values=values)
    flags.DEFINE_multi_string("set", [], "KEY=VALUE of model.* or hparams.*; repeat it", flag_values=values)
    rest = configs.parse_flags(argv, values, __doc__ or "", known_only=True)
    target = next((word for word in rest if not word.startswith("-")), None)
    if target is None:
        raise ValueError("plan takes a run folder, or a config to train first: jaxdiff plan DIR --html=plans.html")
    if values.html is not None:
        _check_page(Path(values.html))
    others = [word for word in rest if word is not target]
    folder = _as_folder(target, others) if Path(target).is_dir() else _train(target, others)
    if folder is None:
        return 0
    known = stamp.read_stamp(folder)
    packs = of_task(read_plans(RunDir(folder)), known, values.task)
    chosen = choose_member(load_run(folder), packs, values.member)
    overrides = parse_settings([chosen.plan["config"]], values.set)
    restored = restore_pack(
        RunDir(folder),
        chosen.plan,
        known,
        env=values.env,
        episodes=values.episodes,
        checkpoint=values.checkpoint,
        overrides=[overrides],
    )
    left = [member["id"] for member in restored.members]
    if chosen.member["id"] not in left:
        raise ValueError(f"a search stopped {chosen.member['label']} before this checkpoint; choose another --member.")
    episodes = plan_and_act(restored, left.index(chosen.member["id"]), values.episodes, values.seed)
    command = shlex.join(["jaxdiff", "plan", *argv])
    print(table(restored, chosen, episodes))
    if values.html is None:
        print("\nThe pictures: the same command with --html=plans.html")
        return 0
    planned = plans.Planned(
        title=f"{restored.task.spec.name}: {chosen.member['label']}",
        facts=_facts(folder, known, restored, chosen, episodes, values),
        command=command,
        followed=followed(restored.config["model"]),
        scene=getattr(restored.task.env, "facts", {}),
        episodes=episodes,
    )
    plans.write(planned, values.html)
    print(f"\nwritten to {values.html}")
    return 0


def _check_page(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"--html={path} is a folder; give the name of a file to write.")
    files.check_writable(path.parent, "choose another file with --html")


def _as_folder(target: str, others: Sequence[str]) -> Path:
    """The folder as it is; it takes no training flags."""
    if others:
        raise ValueError(f"unknown flag {others[0]!r}; a run folder is trained, so --config.* and such have no use.")
    stamp.read_stamp(target)
    machine.use_all_cores("vmap")
    machine.use_compilation_cache()
    return Path(target)


def _train(config: str, others: Sequence[str]) -> Path | None:
    """Trains a config as `jaxdiff train` does; None where --dry_run printed what that would take."""
    made = training.plan_of("train", [f"--config={config}", *others])
    if made is None:
        return None
    check_planner(made.packs[0].members[0].algorithm)
    training.execute(made)
    return made.workdir


def plan_and_act(restored: Restored, index: int, episodes: int, seed: int) -> list[plans.Episode]:
    """The plans of one member at the starts of episodes, and these episodes; the plans are those acted on first."""
    task, lane = restored.task, sweep.lane_of(restored.lanes, index)
    key = evaluation_key(lane, np.uint32(FIRST_INDEX + seed))
    obs, found = make_planning(task.algorithm, task.env, episodes, num_planned=episodes)(key, lane.state)
    if isinstance(task.env, HostEnv):
        done = make_host_rollout(task.algorithm, task.env, episodes, num_recorded=episodes)(key, lane.state)
        task.env.close()
    else:
        done = jax.jit(make_rollout(task.algorithm, task.env, episodes, num_recorded=episodes))(key, lane.state)
    obs, found, done = jax.tree.map(lambda x: np.asarray(x, np.float64), (obs, found, done))
    scores = normalised_scores(done.returns, task.spec)
    answers = []
    for e in range(episodes):
        plan = Plan(
            candidates=found.obs[e],
            values=found.value[e],
            stages=found.path[:, e],
            calls=tuple(range(found.path.shape[0])),
            executed=done.recorded.obs[e][done.recorded.mask[e] > 0],
            goal=obs[e, -task.spec.goal_dim :] if task.spec.goal_dim else None,
        )
        score = None if scores is None else float(scores[e])
        answers.append(plans.Episode(plan, float(done.returns[e]), int(done.lengths[e]), score))
    return answers


def table(restored: Restored, chosen: Chosen, episodes: Sequence[plans.Episode]) -> str:
    """One line per episode: what it was worth, and the values of the plans it chose from."""
    lines = [f"{restored.task.spec.name}: {_name(chosen)}, checkpoint after {restored.step:,} updates", ""]
    lines.append("episode    return     score   steps  values of its plans, best first")
    for e, episode in enumerate(episodes, 1):
        score = "-" if episode.score is None else f"{episode.score:.1f}"
        values = episode.plan.values
        shown = " ".join(f"{value:.4g}" for value in values[:8]) + (" .." if len(values) > 8 else "")
        shown = shown if values.any() else "-"
        lines.append(f"{e:7d}  {episode.total:8.2f}  {score:>8}  {episode.length:6,}  {shown}")
    return "\n".join(lines)


def _name(chosen: Chosen) -> str:
    return f"{chosen.member['label']}, seed {chosen.member['seed']}"


def followed(model: dict[str, Any]) -> str:
    """How what was executed hangs together with the plans that are drawn."""
    drawn = (
        "The plan drawn for an episode is the one it began with: it is made from the same start and the same noise. "
    )
    period = model.get("act", {}).get("replan_period")
    if period is None:
        return drawn.rstrip()
    if period == 0:
        return drawn + "It was followed to the episode's end."
    every = "every step" if period == 1 else f"every {period} steps"
    return drawn + f"A new plan was made after {every}, so the path need not stay on it."


def _facts(
    folder: Path,
    known: dict[str, Any],
    restored: Restored,
    chosen: Chosen,
    episodes: Sequence[plans.Episode],
    asked: Any,
) -> dict[str, Any]:
    """What was done, for the page."""
    plan = episodes[0].plan
    member = chosen.member
    size = f"{plan.best.shape[0]} steps, {len(plan.values)} to choose from, {plan.calls[-1]} network calls each"
    return {
        "Run": str(folder),
        "Trained by": shlex.join(known["command"]),
        "Member": f"{_name(chosen)}, {member['id']}",
        "Checkpoint": f"{asked.checkpoint}: after {restored.step:,} updates",
        "Environment": restored.task.spec.name,
        "Episodes": f"{len(episodes)}, seed {asked.seed}",
        "Plans": size,
        "Acting with": ", ".join(asked.set) or None,
    }
