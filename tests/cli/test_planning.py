"""`jaxdiff plan`: the plans of a member and what came of them; what a pack records of them; what cannot be planned."""

import dataclasses
import re
import types

import numpy as np
from page_reader import read_page
import pytest
import toy_planner

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.cli import choose, planning
from jaxdiff.cli import main as cli
from jaxdiff.cli import run as commands
from jaxdiff.io import files
from jaxdiff.io.report import build_report
from jaxdiff.io.runs import load_run

STUDY = """
from jaxdiff.cli.settings import base_config


def get_config(dataset):
    config = base_config("toy_planner")
    config.env, config.dataset = "pointmaze-umaze", dataset
    config.batch_size, config.num_updates, config.eval_interval, config.checkpoint_interval = 4, 4, 4, 4
    config.eval_episodes, config.record_episodes = 4, 2
    return config
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory, compiled_once):
    """(run folder, page): a config that was trained because it was planned with, and its plans."""
    folder = tmp_path_factory.mktemp("planner")
    rng = np.random.default_rng(0)
    obs, no = rng.uniform(1.0, 1.2, (40, 4)).astype(np.float32), np.zeros(40, bool)
    rows = {"observations": obs, "next_observations": obs, "actions": rng.uniform(-1, 1, (40, 2)), "terminals": no}
    np.savez(folder / "rows.npz", **rows, rewards=np.zeros(40, np.float32), timeouts=np.arange(40) % 10 == 9)
    (folder / "study.py").write_text(STUDY)
    module = types.SimpleNamespace(Config=toy_planner.Config, HParams=toy_planner.HParams, make=toy_planner.make)
    run, page = folder / "run", folder / "plans.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ALGORITHMS, "toy_planner", module)
        choose.planners.cache_clear()
        config = f"{folder / 'study.py'}:{folder / 'rows.npz'}"
        flags = ["--lanes=vmap", f"--workdir={run}", "--config.num_updates=3", "--episodes=3", f"--html={page}"]
        assert planning.main([config, *flags]) == 0
        yield run, page
    choose.planners.cache_clear()


def test_page_shows_stages_values_and_episodes(planned):
    folder, path = planned
    page = read_page(path.read_text())
    assert files.read_json(folder / "run.json")["command"][:2] == ["jaxdiff", "train"]
    assert [attrs["id"] for tag, attrs in page.elements if tag == "section"] == ["episodes"] + [
        f"episode-{e}" for e in (1, 2, 3)
    ]
    stages = [attrs["aria-label"] for tag, attrs in page.elements if tag == "svg" and "aria-label" in attrs]
    for calls in (0, 1, 3, 4, 6, 7, 9, 10):  # eight of eleven, evenly
        assert stages.count(f"The best plan after {calls} of 10 network calls") == 3
    players = [attrs for tag, attrs in page.elements if "data-frames" in attrs]
    assert [len(attrs["data-frames"].split(";")) for attrs in players] == [toy_planner.CALLS + 1] * 3
    assert all("hidden" in attrs for attrs in players)  # without JavaScript the stages say it
    assert "It was followed to the episode's end." in page.text
    assert f"--episodes=3 --html={path}" in page.text and "last: after 3 updates" in page.text
    assert page.text.count("All 3 values") == 3


def test_table_has_the_numbers_of_the_page(planned, capsys):
    folder, path = planned
    assert planning.main([str(folder), "--episodes=3", "--set", "model.act.replan_period=0"]) == 0
    printed = capsys.readouterr().out
    assert "--html=plans.html" in printed
    text = read_page(path.read_text()).text
    rows = re.findall(r"^ +(\d)  +(\S+)  +(\S+)  +(\S+)  (\S+) (\S+) (\S+)$", printed, re.MULTILINE)
    assert [row[0] for row in rows] == ["1", "2", "3"]
    for e, total, score, steps, *values in rows:
        assert f"Episode {e}: return {float(total):.4g}, normalised score {score}" in text
        assert steps == "300" and ", ".join(values) in text
        assert sorted(map(float, values), reverse=True) == list(map(float, values))


def test_what_is_recorded_is_what_the_recorded_episodes_began_with(planned):
    folder, _ = planned
    (pack,) = load_run(folder).packs
    assert pack.plans["obs"].shape == (1, 2, 6, 4) and pack.plans["path"].shape == (1, 2, 8, 6, 4)
    assert pack.plans["calls"].tolist() == [0, 1, 3, 4, 6, 7, 9, 10]
    np.testing.assert_allclose(pack.plans["obs"][:, :, 0], pack.rollouts["obs"][:, :, 0], rtol=1e-6)
    np.testing.assert_allclose(pack.plans["path"][:, :, -1], pack.plans["obs"], rtol=1e-6)
    assert (np.diff(pack.plans["value"], axis=-1) <= 0).all()


def test_report_has_the_plans_and_does_without_them(planned, tmp_path):
    folder, _ = planned
    page = read_page(build_report(folder).read_text())
    assert "plans" in {attrs.get("id") for tag, attrs in page.elements if tag == "section"}
    assert f"jaxdiff plan {folder} --html=plans.html" in page.text
    (plans,) = folder.glob("packs/*/plans.npz")
    plans.rename(tmp_path / "plans.npz")
    page = read_page(build_report(folder).read_text())
    (tmp_path / "plans.npz").rename(plans)
    assert "plans" not in {attrs.get("id") for tag, attrs in page.elements if tag == "section"}


def test_a_member_is_chosen_by_id_index_or_label_and_by_score(planned):
    run = load_run(planned[0])
    (pack,) = run.packs
    (first,) = pack.members
    members = [dataclasses.replace(first, id=name * 12, seed=k) for k, name in enumerate("abc")]
    scores = np.array([3.0, 1.0, 2.0])[None, :, None]  # the one in the middle is the third
    table = {"step": np.array([3]), "scores": scores, "returns": scores}
    run = dataclasses.replace(run, packs=(dataclasses.replace(pack, members=tuple(members), eval=table),))
    plans = [{"members": [dataclasses.asdict(member) for member in members]}]
    for wanted, member in (("b" * 12, 1), ("0", 0), ("1", 1), ("toy_planner", 2), (None, 2)):
        found = choose.choose_member(run, plans, wanted)
        assert (found.lane, found.member["id"]) == (member, members[member].id)
    with pytest.raises(KeyError, match=r"--member=7 is no id of .*, no index in 0 \.\. 2 and no label"):
        choose.choose_member(run, plans, "7")
    for member in plans[0]["members"]:
        member["algorithm"] = "diffusion_bc"
    for wanted in (None, "0", "toy_planner"):
        with pytest.raises(ValueError, match="diffusion_bc plans nothing; planners: decision_diffuser, diffuser"):
            choose.choose_member(run, plans, wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "plan takes a run folder, or a config to train first"),
        (["{run}", "--config.num_updates=2"], "unknown flag '--config.num_updates=2'; a run folder is trained"),
        (["{run}", "--html=/dev"], "--html=/dev is a folder"),
        (["{run}", "--episodes=0"], "episodes"),
        (["{run}", "--checkpoint=9"], "--checkpoint=9 is not in pack .*; allowed: last, best, 3"),
        (["{run}", "--set=model.horizn=2"], "did you mean 'model.horizon'"),
        (["{run}", "--env=brax-hoper"], "did you mean 'brax-hopper'"),
        (["no_such_config"], "config 'no_such_config' is neither a file nor a shipped config"),
    ],
)
def test_mistake_is_named(planned, arguments, message):
    folder, _ = planned
    with pytest.raises((KeyError, ValueError), match=message):
        planning.main([argument.format(run=folder) for argument in arguments])


def test_how_a_plan_is_followed_is_said():
    assert planning.followed({}).endswith("the same noise.")
    assert "to the episode's end" in planning.followed({"act": {"replan_period": 0}})
    assert "after every 2 steps, so the path need not stay" in planning.followed({"act": {"replan_period": 2}})


def test_an_algorithm_that_plans_nothing_is_refused_before_it_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "execute", lambda plan: pytest.fail("it trained"))
    flags = ["--lanes=vmap", f"--workdir={tmp_path}", f"--html={tmp_path / 'plans.html'}"]
    assert cli.main(["plan", "diffusion_ql", *flags]) == 2
    message = capsys.readouterr().err
    assert message.startswith("jaxdiff: error: diffusion_ql plans nothing; planners: decision_diffuser, diffuser")
