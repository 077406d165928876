"""The study of shifted tasks reads the records of `jaxdiff eval` and puts each setting under its values."""

import json

from experiments.studies import shifts


def write(run, name, overrides, **changes):
    request = {"episodes": 10, "seed": 0, "env": None, "checkpoint": "last", "overrides": overrides}
    score = {"mean": 0.0, "iqm": changes.pop("iqm", 1.0), "interval": [0.5, 1.5]}
    settings = [{"label": "bc", "score": changes.pop("score", score), "return": {**score, "iqm": -7.0}}]
    (run / "evals").mkdir(exist_ok=True)
    (run / "evals" / f"{name}.json").write_text(json.dumps({"request": {**request, **changes}, "settings": settings}))


def test_points_come_in_the_order_of_values_and_only_from_fitting_records(tmp_path):
    key = "mpe.speed_scale"
    write(tmp_path, "a", {key: 1.5}, iqm=3.0)
    write(tmp_path, "b", {key: 0.5}, iqm=2.0)
    write(tmp_path, "c", {key: 1.0, "mpe.sensitivity_scale": 2.0}, iqm=9.0)
    write(tmp_path, "d", {key: 1.0}, iqm=9.0, episodes=11)
    write(tmp_path, "e", {key: 1.0}, iqm=9.0, checkpoint="best")
    found = shifts.lines(tmp_path, key, [0.5, 1.0, 1.5], 10)
    assert found == {"bc": [shifts.Point(0.5, 2.0, (0.5, 1.5)), shifts.Point(1.5, 3.0, (0.5, 1.5))]}
    assert shifts.table(found, [0.5, 1.0, 1.5], key).splitlines()[-1] == "| `bc` | 2.0 |  | 3.0 |"


def test_a_task_without_reference_scores_gives_its_returns(tmp_path):
    write(tmp_path, "a", {"vec.v": 10.0}, score=None)
    assert shifts.lines(tmp_path, "vec.v", [10.0], 10)["bc"][0].score == -7.0


def test_a_figure_is_drawn(tmp_path):
    shifts.draw({"bc": [shifts.Point(0.5, 2.0, None), shifts.Point(1.0, 3.0, (2.0, 4.0))]}, "k", tmp_path / "f.svg")
    assert (tmp_path / "f.svg").read_text().count("<path") > 5
