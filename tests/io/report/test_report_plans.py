"""The report's section of plans, from files that a pack may or may not have."""

import json

import numpy as np
import pytest

from jaxdiff.io.report import build_report
from jaxdiff.io.runs import load_run

PLANNER, OTHER = "p1-dql", "p2-edp"


def record(folder, pack, **changes):
    """plans.npz at the starts of the episodes in rollouts.npz."""
    rollouts = np.load(folder / "packs" / pack / "rollouts.npz")
    lanes, episodes = rollouts["mask"].shape[:2]
    obs = rollouts["obs"][:, :, ::10]  # [L, R, 12, 4]
    calls = np.array([0, 3, 7, 10])
    path = obs[:, :, None] + (10 - calls)[:, None, None] * np.ones_like(obs)[:, :, None]
    table = {"obs": obs, "path": path, "calls": calls, "value": np.zeros((lanes, episodes, 3)), **changes}
    np.savez(folder / "packs" / pack / "plans.npz", **{k: v for k, v in table.items() if v is not None})


def section(folder):
    """The section's markup; nothing where the page has none."""
    _, found, rest = build_report(folder).read_text().partition('<section id="plans">')
    return found and rest.partition("</section>")[0]


def test_each_planner_shows_its_best_setting(run_folder):
    assert not section(run_folder)
    record(run_folder, PLANNER)
    found = section(run_folder)
    assert found.count("<h3>") == 1 and "diffusion_ql q_weight=1, seed" in found
    assert [f"Plan and path of episode {e}" in found for e in (1, 2, 3, 4)] == [True, True, True, False]
    for k in (0, 3, 7, 10):
        assert f"The best plan after {k} of 10 network calls" in found
    assert f"jaxdiff plan {run_folder} --html=plans.html" in found
    record(run_folder, OTHER)
    assert section(run_folder).count("<h3>") == 2


def test_a_task_without_a_maze_shows_the_numbers(run_folder):
    (run_folder / "facts.json").unlink()
    record(run_folder, PLANNER)
    assert "Number 3 of the observation, planned and executed" in section(run_folder)


def test_goals_of_single_episodes_are_marked(run_folder):
    facts = json.loads((run_folder / "facts.json").read_text())
    (run_folder / "facts.json").write_text(json.dumps({**facts, "goal": None}))
    record(run_folder, PLANNER)
    assert 'class="goal"' not in section(run_folder)
    record(run_folder, PLANNER, goal=np.full((8, 3, 2), 2.0))
    assert section(run_folder).count('class="goal"') == 3 + 4


@pytest.mark.parametrize("what", ["damaged", "no rollouts", "not finite", "no path", "fewer lanes"])
def test_poorer_files_cost_only_the_section(run_folder, what):
    path = run_folder / "packs" / PLANNER / "plans.npz"
    changes = {"no path": {"path": None}, "not finite": {"obs": np.full((8, 3, 12, 4), np.nan)},
               "fewer lanes": {"obs": np.zeros((0, 3, 12, 4))}}  # fmt: skip
    record(run_folder, PLANNER, **changes.get(what, {}))
    if what == "damaged":
        path.write_bytes(b"PK cut short")
        assert any("plans.npz" in problem for pack in load_run(run_folder).packs for problem in pack.problems)
    elif what == "no rollouts":
        (path.parent / "rollouts.npz").unlink()
    assert not section(run_folder)
