"""The page of a study with hundreds of members: what it draws, what it says it leaves out, how heavy it is."""

import json
import re
import shlex

from absl import flags
import numpy as np
from page_reader import read_page
import pytest
from study_folder import make_study, truth

from jaxdiff.cli import config as configs
from jaxdiff.cli.study import resolve
from jaxdiff.io.report import best, build_report, good, knobs, looks, metrics, parallel, results, sensitivity, summary
from jaxdiff.io.runs import load_run

SETTINGS, SEEDS = 48, 5


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """48 settings by 5 seeds of two algorithms, 16 metrics; the last two settings go non-finite."""
    path = tmp_path_factory.mktemp("large") / "run"
    shape = {"settings": SETTINGS, "seeds": SEEDS, "lanes": 16, "evaluations": 20, "metrics": 16, "failed": 2}
    return make_study(path, **shape, algorithms=("alpha", "beta"))


@pytest.fixture(scope="module")
def found(study):
    return results.collect(load_run(study))


@pytest.fixture(scope="module")
def page(study):
    return read_page(build_report(study).read_text())


def test_page_of_a_large_study_is_light_and_names_every_setting(study, page, found):
    assert build_report(study).stat().st_size < 900_000
    text = re.sub(r"\s+", " ", page.text)
    for setting in found.settings:
        assert setting.label in text
    anchors = {attrs["id"] for tag, attrs in page.elements if tag == "section"}
    assert anchors == {"final", "curves", "good", "sensitivity", "improvement", "training", "cost", "repeat"}


def test_what_is_left_out_is_said(page):
    text = re.sub(r"\s+", " ", page.text)
    assert text.count(f"8 of {SETTINGS} settings are drawn: the best 8.") == 2  # curves and metrics
    assert f"The other {SETTINGS - 20} of {SETTINGS} settings" in text
    assert "4 more of 16 metrics: q_mean, q_std, target_q, td_error" in text
    assert "5 of 46 finished settings are drawn: the best 5." in text
    assert "Only the best 12 settings are shown." in text


def test_legend_has_a_button_for_the_rest_and_not_one_for_each(page):
    buttons = [attrs for tag, attrs in page.elements if tag == "button" and "data-toggle" in attrs]
    assert len(buttons) == looks.NUM_COLOURS + 1
    assert {button["class"] for button in buttons} == {f"c{i}" for i in range(8)} | {"other"}
    rest = [attrs for _, attrs in page.elements if attrs.get("data-series") == str(looks.REST)]
    strands = [attrs for attrs in rest if "strand" in attrs["class"]]
    assert len(strands) == SETTINGS - 2 - looks.NUM_COLOURS  # two settings have no score
    assert len(rest) - len(strands) >= 2 + 16  # the bands of curves, wide and narrow, and of the metrics


def test_better_lines_are_stronger(found):
    drawn = parallel.drawing(found, looks.assign_looks(found))
    weights = [float(w) for w in re.findall(r'class="strand series faded" stroke-opacity="([\d.]+)"', drawn)]
    assert weights == sorted(weights) and weights[0] < 0.1 < weights[-1]  # drawn from the worst to the best


def test_keys_that_matter_stand_next_to_the_score(found):
    chosen = parallel.chosen(found)
    assert {key for key, _ in chosen[-2:]} == {"hparams.lr", "hparams.q_weight"}
    assert all(0 <= share <= 1 for _, share in chosen)
    assert sum(share for _, share in chosen[:-2]) < chosen[-1][1]


def test_the_best_setting_is_near_the_known_optimum(found):
    assert truth(found.best.overrides) > max(truth(s.overrides) for s in found.settings) - 8


def test_sampled_keys_are_scatters_and_their_means_are_those_of_the_files(found):
    assert sensitivity.is_sampled(found)
    key = "model.policy.sampler"
    charts = sensitivity.panels(found, looks.assign_looks(found))
    drawn = next(chart for chart in charts if key in chart)
    scored = [setting for setting in found.settings if setting.last is not None]
    for value in ("ddpm", "ddim", "dpmpp"):
        scores = [setting.last.iqm for setting in scored if setting.overrides[key] == value]
        assert f"{len(scores)} settings: mean IQM {np.mean(scores):.1f}" in drawn


def test_bins_of_a_sampled_key_hold_equally_many_and_rise():
    values = list(np.random.default_rng(0).normal(size=100))
    groups = knobs.bins(knobs.Axis.of(sorted(values)), values)
    assert sorted(set(groups)) == list(range(10))
    assert set(np.bincount(groups)) == {10}
    assert [group for _, group in sorted(zip(values, groups, strict=True))] == sorted(groups)
    assert knobs.bins(knobs.Axis.of([1, 4, 16]), [16, 1, 4, 4]) == [2, 0, 1, 1]


def test_a_grid_of_many_values_of_one_key_keeps_its_line(tmp_path):
    folder = make_study(tmp_path / "run", settings=20, seeds=2, evaluations=3, metrics=2)
    for path in folder.glob("packs/*/pack.json"):
        plan = json.loads(path.read_text())
        for member in plan["members"]:
            member["overrides"] = {"hparams.lr": member["overrides"]["hparams.lr"], "seed": member["seed"]}
        path.write_text(json.dumps(plan))
    found = results.collect(load_run(folder))
    assert len(knobs.swept_keys(found)["hparams.lr"]) > knobs.MAX_VALUES
    assert not sensitivity.is_sampled(found)


def test_settings_that_failed_with_all_seeds_count_as_the_worst_score(found):
    pool = good.searched(found.settings)
    scored = [setting.last.scores for setting in found.settings if setting.last is not None]
    assert len(pool) == SETTINGS and len(scored) == SETTINGS - 2
    worst = min(scores.min() for scores in scored)
    for scores in pool[-2:]:
        np.testing.assert_array_equal(scores, np.full(SEEDS, worst))


def test_thinned_metrics_are_means_over_healthy_seeds_of_a_setting():
    steps = np.arange(10, 70, 10)
    values = np.array([[1.0, 3.0, 9.0], [2.0, np.nan, 9.0], [5.0, 5.0, 9.0], [7.0, 9.0, np.inf]] + [[np.nan] * 3] * 2)
    belongs = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    at, means = metrics.thinned(steps, values, belongs, 3)
    np.testing.assert_array_equal(at, [20, 40, 60])
    np.testing.assert_allclose(means, [[2.0, 9.0], [6.5, 9.0], [np.nan, np.nan]])


def test_cost_is_added_up(page, study):
    packs = len(list((study / "packs").iterdir()))
    text = re.sub(r"\s+", " ", page.text)
    members = SETTINGS * SEEDS
    assert f"{packs} packs, {members} members, {packs} h 00 min of pack wall clock in all" in text
    assert f"{20_000 * members / (3600 * packs):,.0f} member-updates/s" in text
    assert f"With 2 devices to a pack: {2 * packs:.1f} device-hours." in text


def test_terminal_table_of_a_large_study_is_short(study, found):
    lines = summary(load_run(study)).splitlines()
    assert sum(line.lstrip()[:1].isdigit() for line in lines[1:22]) == 20
    assert f"the other {SETTINGS - 20} of {SETTINGS} settings are in report.csv" in "\n".join(lines)


def best_of(command, config, overrides):
    """The command for a setting with two seeds."""
    member = {"id": "m", "label": "x", "algorithm": config.get("algorithm", "beta")}
    seeds = [
        results.MemberResult(
            results.Member(**member, overrides={**overrides, "seed": seed}, seed=seed),
            "p", "finished", None, 9, np.array([9]), np.array([float(seed)]), imitates=False,
        )
        for seed in (3, 4, 5)
    ]  # fmt: skip
    setting = results.Setting("x", member["algorithm"], overrides, tuple(seeds))
    return best.command({"command": command, "config": config}, setting), best.study(setting)


def test_command_of_the_best_setting_makes_its_config():
    point = {
        "hparams.lr": 0.00123,
        "model.policy.hidden": [32, 16],
        "model.policy.sampler": "ddim",
        "normalise_obs": False,
        "batch_size": 64,
    }
    given = ["jaxdiff", "sweep", "--config", "pointmaze", "--sweep=demo", "--config.hparams.lr=1", "--workdir=a b",
             "--config.num_updates=2000", "--lanes=map"]  # fmt: skip
    base = configs.load("pointmaze", [("num_updates", "2000")])
    command, _ = best_of(given, base.to_dict(), point)
    assert command[:2] == ["jaxdiff", "train"]
    values = flags.FlagValues()
    configs.define_flags(values)
    parsed = configs.parse(shlex.split(shlex.join(command))[2:], values)
    assert not parsed.sweep and parsed.workdir is None
    assert parsed.config.to_dict() == resolve(base, {**point, "seed": 4})  # 4 is the seed of median score


def test_a_setting_with_another_algorithm_is_given_as_a_study():
    overrides = {"algorithm": "beta", "hparams.lr": 0.1}
    command, text = best_of(["jaxdiff", "sweep", "--config=a"], {"algorithm": "alpha"}, overrides)
    assert command is None
    names: dict = {}
    exec(text, names)
    assert list(names["sweep_best"]()) == [{**overrides, "seed": seed} for seed in (3, 4, 5)]
    assert best_of(["rerun", "runs/a"], {"algorithm": "beta"}, overrides)[0] is None


@pytest.mark.parametrize("what", ["nothing evaluated", "nothing finished", "half started", "one seed"])
def test_a_large_study_on_its_way_gives_a_page(tmp_path, what):
    seeds = 1 if what == "one seed" else 2
    folder = make_study(tmp_path / "run", settings=40, seeds=seeds, lanes=20, evaluations=3, metrics=3)
    packs = sorted((folder / "packs").iterdir())
    for index, pack in enumerate(packs):
        if what != "one seed" and (what != "half started" or index % 2):
            (pack / "done.json").unlink()
        if what == "nothing evaluated" or (what == "half started" and index % 2):
            (pack / "eval.npz").unlink()
            (pack / "train.npz").unlink()
    text = re.sub(r"\s+", " ", read_page(build_report(folder).read_text()).text)
    expected = {
        "nothing evaluated": "There is no answer yet",
        "nothing finished": "Which settings are good",
        "half started": "Tuning budget",
        "one seed": "Tuning budget",
    }
    assert expected[what] in text
    assert ("Tuning budget" in text) == (what in ("half started", "one seed"))
    assert ("one seed of each gives no band" in text) == (what == "one seed")
    if what != "one seed":
        assert "and 6 more" in text  # of the 10 settings of an unfinished pack, 4 are named
