"""A study of two tasks in one run folder: trained, resumed, widened, reported, evaluated; data that changed."""

from collections.abc import Callable
import csv
import json
from pathlib import Path
import shutil

import numpy as np
from page_reader import read_page
import pytest

from jaxdiff.cli import choose
from jaxdiff.cli import main as cli
from jaxdiff.cli.restore import read_plans
from jaxdiff.io import files
from jaxdiff.io.folders import RunDir
from jaxdiff.io.runs import load_run
from jaxdiff.io.stamp import read_stamp
from jaxdiff.io.standing import read_standing

CONFIG = """
from jaxdiff import points
from jaxdiff.cli.settings import base_config

SEEDS = 2


def get_config(bandit):
    config = base_config("diffusion_bc")
    config.env, config.dataset = "probe-bandit", bandit
    config.model.policy.hidden, config.model.policy.time_dim = (4,), 4
    config.model.policy.num_levels = config.model.policy.num_steps = 1
    config.batch_size, config.num_updates, config.chunk = 8, 4, 2
    config.eval_interval, config.checkpoint_interval, config.eval_episodes, config.record_episodes = 2, 4, 4, 1
    return config


def sweep_tasks():
    yield {"env": "probe-bandit", "dataset": "BANDIT", "hparams.lr": 1e-3}
    yield {"env": "probe-action", "dataset": "ACTION", "hparams.lr": 3e-3}


def sweep_seed():
    return points.seeds(SEEDS)


def sweep_more():
    return points.seeds(2 * SEEDS)
"""
TASKS = ["probe-bandit", "probe-action"]


@pytest.fixture(scope="module")
def action_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Actions of probe-action, drawn evenly."""
    path = tmp_path_factory.mktemp("data") / "action.npz"
    action = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    obs, no, yes = np.zeros((32, 1), np.float32), np.zeros(32, bool), np.ones(32, bool)
    np.savez(path, observations=obs, next_observations=obs, actions=action, rewards=action[:, 0], terminals=yes,
             timeouts=no)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def command(
    tmp_path_factory: pytest.TempPathFactory, bandit_data: Path, action_data: Path, compiled_once: None
) -> Callable[..., int]:
    """`jaxdiff sweep` of the study into a folder."""
    path = tmp_path_factory.mktemp("config") / "several.py"
    path.write_text(CONFIG.replace("BANDIT", str(bandit_data)).replace("ACTION", str(action_data)))

    def sweep(folder: Path, studies: str = "tasks,seed", *more: str) -> int:
        flags = [f"--config={path}:{bandit_data}", f"--sweep={studies}", "--lanes=map", f"--workdir={folder}"]
        return cli.main(["sweep", *flags, *more])

    return sweep


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., int]) -> Path:
    """Two tasks, one setting whose learning rate goes with the task, two seeds. Tests may add files."""
    folder = tmp_path_factory.mktemp("runs") / "several"
    assert command(folder) == 0
    return folder


def names(folder: Path) -> list[str]:
    return [entry["task"] for entry in json.loads((folder / "report.json").read_text())["tasks"]]


def test_a_task_is_a_pack_of_its_own_with_its_own_data(trained, bandit_data, action_data):
    packs = {pack.config["env"]: pack for pack in load_run(trained).packs}
    assert set(packs) == set(TASKS)
    assert packs["probe-bandit"].dataset["path"] == str(bandit_data)
    assert packs["probe-action"].dataset["path"] == str(action_data)
    assert all(pack.status == "finished" and len(pack.members) == 2 for pack in packs.values())


def test_report_has_a_table_per_task_and_one_over_both(trained):
    report = json.loads((trained / "report.json").read_text())
    assert [name.split()[0] for name in names(trained)] == TASKS
    [row] = report["aggregate"]["settings"]
    assert row["label"] == "diffusion_bc" and row["missing"] == [] and row["runs"] == 4
    own = [entry["settings"][0] for entry in report["tasks"]]
    scores = [score for entry in own for score in entry["last_scores"].values()]
    assert row["last_iqm"] == pytest.approx(np.mean(np.sort(scores)[1:3]))
    rows = list(csv.DictReader((trained / "report.csv").read_text().splitlines()))
    assert [line["task"] for line in rows] == [*names(trained), "all tasks (2)"]


def test_page_names_every_task_and_what_was_set_for_it(trained):
    page = read_page((trained / "report.html").read_text())
    heads = [attrs["id"] for kind, attrs in page.elements if kind == "h2" and attrs.get("class") == "task"]
    assert heads == ["task-1", "task-2"] and all(name in page.text for name in names(trained))
    assert "Set for this task: diffusion_bc lr=0.001." in page.text and "lr=0.003." in page.text
    anchors = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(anchors) == len(set(anchors)) and {"across", "profiles", "task-1-final", "task-2-final"} <= set(anchors)


def test_status_and_terminal_rank_inside_a_task(trained, capsys):
    assert [found.packs[0].task.split()[0] for found in read_standing(trained).by_task()] == TASKS
    assert cli.main(["status", str(trained)]) == 0
    told = capsys.readouterr().out
    assert all(f"best of 1 settings on {name}," in told for name in names(trained))
    assert cli.main(["report", str(trained), "--export=csv,latex"]) == 0
    assert "all tasks (2)" in capsys.readouterr().out
    rows = list(csv.DictReader((trained / "members.csv").read_text().splitlines()))
    assert {row["task"] for row in rows} == set(names(trained))
    assert (trained / "settings.tex").read_text().count(r"\multicolumn") == 3


def test_a_wider_study_keeps_its_packs_and_trains_the_new_seeds(trained, command, tmp_path):
    folder = tmp_path / "wider"
    shutil.copytree(trained, folder)
    before = {pack.id: [member.id for member in pack.members] for pack in load_run(folder).packs}
    assert command(folder, "tasks,more") == 0
    after = {pack.id: [member.id for member in pack.members] for pack in load_run(folder).packs}
    assert before.items() <= after.items() and len(after) == 4
    report = json.loads((folder / "report.json").read_text())
    assert report["aggregate"]["settings"][0]["runs"] == 8 and names(folder) == names(trained)


def test_a_study_that_was_killed_goes_on_where_it_was(trained, command, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(trained, folder)
    run = RunDir(folder)
    configs = {name: files.read_json(run.pack(name).pack_json)["config"] for name in run.list_packs()}
    [lost] = [name for name, config in configs.items() if config["env"] == TASKS[1]]
    shutil.rmtree(run.pack(lost).path)
    assert command(folder) == 0
    again, there = (dict(np.load(RunDir(at).pack(lost).eval)) for at in (folder, trained))
    np.testing.assert_array_equal(again["returns"], there["returns"])


def test_eval_rolls_every_task_out_in_its_own_environment(trained, capsys):
    assert cli.main(["eval", str(trained), "--episodes=2"]) == 0
    told = capsys.readouterr().out
    assert all(f"{env}: 2 episodes" in told for env in TASKS)
    assert cli.main(["eval", str(trained), "--task=ant"]) != 0
    assert "--task=ant is not one task of this study; it has: probe-bandit" in capsys.readouterr().err
    plans, known = read_plans(RunDir(trained)), read_stamp(trained)
    [own] = choose.of_task(plans, known, "probe-action")
    assert own["config"]["env"] == "probe-action" and choose.of_task(plans, known, None) == plans


def test_plan_asks_which_task_is_meant(trained, monkeypatch):
    monkeypatch.setattr(choose, "planners", lambda: ("diffusion_bc",))
    plans, run = read_plans(RunDir(trained)), load_run(trained)
    with pytest.raises(ValueError, match="several tasks, .* choose with --task=NAME or --member=ID: probe-bandit"):
        choose.choose_member(run, plans, None)
    [own] = of_task = choose.of_task(plans, run.stamp, "probe-action")
    assert choose.choose_member(run, of_task, None).plan is own


def test_data_of_any_task_that_changed_are_refused(trained, command, tmp_path, action_data):
    folder = tmp_path / "changed"
    shutil.copytree(trained, folder)
    for path in (folder / "packs").glob("*/pack.json"):
        plan = json.loads(path.read_text())
        if plan["config"]["env"] == TASKS[1]:
            path.write_text(json.dumps({**plan, "dataset": {**plan["dataset"], "sha256": "0" * 64}}))
            (path.parent / "done.json").unlink()
    command(folder)
    [failed] = [pack for pack in read_standing(folder).packs if pack.state == "failed"]
    assert f"dataset {action_data} has changed since" in failed.error
