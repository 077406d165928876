"""A study of several tasks with made-up scores: what tasks say together, against formulas written out, and the page."""

import json

import numpy as np
from page_reader import read_page
import pytest
from scipy import stats

from jaxdiff.io.report import aggregate, build_report, compare, summary
from jaxdiff.io.report.by_task import by_task
from jaxdiff.io.report.results import collect
from jaxdiff.io.runs import load_run

SCORES = {  # task -> setting -> a score per seed
    "ant": {"alpha": [10.0, 30.0, 20.0, 40.0], "beta": [5.0, 35.0, 15.0, 25.0]},
    "bee": {"alpha": [70.0, 90.0, 80.0], "beta": [60.0, 75.0, 85.0], "gamma": [99.0, 98.0, 97.0]},
}


def make_tasks(path, scores=SCORES, raw=(), planned=()):
    """A pack for each task and setting; tasks in `raw` have returns alone, those in `planned` have not begun."""
    points = []
    for task, settings in scores.items():
        for setting, values in settings.items():
            folder = path / "packs" / f"p{len(points)}"
            folder.mkdir(parents=True)
            overrides = {"env": task, "dataset": f"{task}-data", "algorithm": setting}
            label = f"{setting} env={task} dataset={task}-data"
            shared = {"label": label, "algorithm": setting}
            members = [
                {**shared, "id": f"{folder.name}-{seed}", "overrides": {**overrides, "seed": seed}, "seed": seed}
                for seed in range(len(values))
            ]
            points += [member["overrides"] for member in members]
            plan = {"id": folder.name, "lanes": "vmap", "config": overrides, "num_updates": 100, "members": members}
            data = {"name": f"{task}-data", "sha256": task * 20, "return_mean": 1.0, "reference_scores": None}
            (folder / "pack.json").write_text(json.dumps({**plan, "dataset": data, "facts": {}}))
            table = np.asarray(values, np.float32)[None, :, None] + np.array([-1.0, 1.0], np.float32)
            named = {"returns": table} if task in raw else {"returns": table, "scores": table}
            np.savez(folder / "eval.npz", step=np.array([100]), wall_seconds=np.array([1.0]), **named)
            (folder / "done.json").write_text(json.dumps({"num_updates": 100, "nonfinite": []}))
    points += [{"env": task, "dataset": f"{task}-data", "algorithm": "alpha"} for task in planned]
    config = {"algorithm": "alpha", "env": "ant", "dataset": "ant-data", "points": points}
    stamp = {"config": config, "study": "tasks", "env": "ant", "dataset": {"name": "ant-data", "sha256": "x"}}
    (path / "run.json").write_text(json.dumps({**stamp, "created": "2026-01-02T03:04:05+00:00"}))
    return path


def over(path):
    return aggregate.aggregate(by_task(load_run(path)))


def test_iqm_is_over_tasks_and_seeds_and_a_setting_that_misses_a_task_has_none(tmp_path):
    found = over(make_tasks(tmp_path))
    rows = {row.label: row for row in found.rows}
    pooled = {label: np.concatenate([SCORES[task][label] for task in SCORES]) for label in ("alpha", "beta")}
    for label, values in pooled.items():
        assert rows[label].last.iqm == pytest.approx(stats.trim_mean(values, 0.25))
        assert rows[label].last.mean == pytest.approx(values.mean())
    assert [row.label for row in found.rows] == ["alpha", "beta", "gamma"]
    assert rows["gamma"].last is None and rows["gamma"].missing == ("ant dataset=ant-data",)


def test_seeds_are_resampled_inside_their_task(tmp_path):
    """Tasks far apart whose seeds agree leave nothing to chance; were runs resampled across tasks, a lot would be."""
    equal = {"ant": {"alpha": [0.0] * 4}, "bee": {"alpha": [100.0] * 4}}
    [row] = over(make_tasks(tmp_path, equal)).rows
    assert row.last.iqm == 50.0 and row.last.interval == (50.0, 50.0)


def test_interval_is_that_of_a_bootstrap_written_out(tmp_path):
    row = next(row for row in over(make_tasks(tmp_path)).rows if row.label == "alpha")
    generator = np.random.default_rng(1)
    drawn = [generator.choice(SCORES[task]["alpha"], (4000, len(SCORES[task]["alpha"]))) for task in SCORES]
    middle = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    np.testing.assert_allclose(row.last.interval, np.percentile(middle, [2.5, 97.5]), atol=3.0)


def test_profile_is_the_mean_over_tasks_of_the_fraction_above(tmp_path):
    strata, taus = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 5.0])], np.array([0.0, 2.5, 3.0, 9.0])
    fraction, low, high = aggregate.profiles(strata, taus)
    wanted = [np.mean([np.mean([score > tau for score in scores]) for scores in strata]) for tau in taus]
    np.testing.assert_allclose(fraction, wanted)
    assert (low <= fraction).all() and (fraction <= high).all()
    # Both of two draws from the second task lie at 3 a quarter of the time, at 5 as often: the band's ends at tau = 3.
    assert high[2] - low[2] >= 0.5
    assert low[0] == high[0] == 1.0 and low[3] == high[3] == 0.0


def test_improvement_is_the_mean_over_tasks_of_pairs_won(tmp_path):
    chance = over(make_tasks(tmp_path)).improvements["alpha", "beta"]
    won = [np.mean([(x > y) + 0.5 * (x == y) for x in SCORES[t]["alpha"] for y in SCORES[t]["beta"]]) for t in SCORES]
    assert chance.value == pytest.approx(np.mean(won))
    assert chance.interval.low < chance.value < chance.interval.high


def test_of_many_settings_the_best_is_compared_with_the_others(tmp_path):
    many = {task: {f"s{i}": [float(i), i + 1.0] for i in range(8)} for task in ("ant", "bee")}
    pairs = list(over(make_tasks(tmp_path, many)).improvements)
    assert pairs == [("s7", f"s{i}") for i in range(6, -1, -1)]


def test_returns_and_tasks_that_wait_are_not_put_together_and_that_is_said(tmp_path):
    scores = {**SCORES, "cat": {"alpha": [1e6, 2e6]}}
    folder = make_tasks(tmp_path, scores, raw=("cat",), planned=("dog",))
    found = over(folder)
    assert found.tasks == ("ant dataset=ant-data", "bee dataset=bee-data")
    build_report(folder)
    report = json.loads((folder / "report.json").read_text())
    assert "cat dataset=cat-data, its returns have no reference scores" in " ".join(report["answer"])
    assert "dog dataset=dog-data, no evaluation yet" in " ".join(report["answer"])
    assert "gamma (missing on ant dataset=ant-data)" in " ".join(report["answer"])
    cat = report["tasks"][2]
    assert cat["quantity"] == "return" and cat["settings"][0]["last_mean"] == pytest.approx(1.5e6)
    assert "Not put together with others: cat" in summary(load_run(folder))


def test_one_normalised_task_is_not_put_together_with_itself(tmp_path):
    folder = make_tasks(tmp_path, raw=("ant",))
    page = read_page(build_report(folder).read_text())
    assert "Nothing is put together: only bee dataset=bee-data has normalised scores" in page.text
    report = json.loads((folder / "report.json").read_text())
    assert all(row["last_iqm"] is None for row in report["aggregate"]["settings"])


def test_page_is_offline_and_has_every_task_and_setting_escaped(tmp_path):
    hostile = {"<script>alert(1)</script>": SCORES["ant"], "bee": SCORES["bee"]}
    folder = make_tasks(tmp_path, hostile)
    page = build_report(folder).read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    text = read_page(page).text
    assert all(word in text for word in ("All tasks together", "Performance profiles", "alpha", "gamma", "missing on"))


def test_data_of_two_contents_on_one_task_are_told(tmp_path):
    folder = make_tasks(tmp_path)
    path = max((folder / "packs").glob("*/pack.json"))
    plan = json.loads(path.read_text())
    path.write_text(json.dumps({**plan, "dataset": {**plan["dataset"], "sha256": "other"}}))
    assert "On bee dataset=bee-data packs learned from different data" in summary(load_run(folder))


def test_a_task_shows_its_own_data_and_the_first_one_those_of_run_json_where_it_says_nothing(tmp_path):
    folder = make_tasks(tmp_path)
    for path in (folder / "packs").glob("*/pack.json"):
        plan = json.loads(path.read_text())
        if plan["config"]["env"] == "ant" or plan["config"]["algorithm"] == "beta":
            del plan["dataset"]
            path.write_text(json.dumps(plan))
    ant, bee = by_task(load_run(folder)).values()
    assert ant.run.stamp["dataset"]["sha256"] == "x" and bee.run.stamp["dataset"]["name"] == "bee-data"
    assert ant.run.stamp["env"] == "ant" and bee.run.stamp["env"] == "bee"


def test_folders_of_several_tasks_are_compared_task_by_task_and_together(tmp_path):
    better = {task: {name: [score + 20 for score in values] for name, values in rows.items()}
              for task, rows in SCORES.items()}  # fmt: skip
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    folders = [make_tasks(tmp_path / "a"), make_tasks(tmp_path / "b", better)]
    found = compare.compare(*(collect(load_run(folder)) for folder in folders))
    rows = {(row.first.split()[0], row.task): row for row in found.rows}
    assert rows["alpha", "all tasks (2)"].difference.value == pytest.approx(20.0)
    assert rows["alpha", "ant dataset=ant-data"].difference.value == pytest.approx(20.0)
    assert ("gamma", "all tasks (2)") not in rows
