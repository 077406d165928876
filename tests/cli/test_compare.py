"""Two run folders side by side, with made-up scores whose differences are known."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdiff import sweep
from jaxdiff.cli import compare as command
from jaxdiff.cli import main as cli
from jaxdiff.io.report import compare, compare_page
from jaxdiff.io.report.results import Results, collect
from jaxdiff.io.runs import load_run

Setting = tuple[dict[str, Any], Sequence[float]]  # overrides without the seed, one score per seed


def make_folder(
    path: Path, settings: Sequence[Setting], *, scores: bool = True, data: str = "d", done: bool = True, **config: Any
) -> Path:
    """A pack for each setting; its one evaluation has two episodes, one above and one below the seed's score."""
    config = {"algorithm": "alpha", "env": "hopper", "env_options": "", "dataset": "d", **config}
    path.mkdir()
    for number, (overrides, values) in enumerate(settings):
        folder = path / "packs" / f"p{number}"
        folder.mkdir(parents=True)
        merged = {**config, **{key: value for key, value in overrides.items() if "." not in key}}
        members = []
        for seed in range(len(values)):
            made = sweep.make_member({**merged, "seed": seed, "n": number}, {**overrides, "seed": seed})
            members.append({name: getattr(made, name) for name in ("id", "label", "algorithm", "overrides", "seed")})
        plan = {"id": folder.name, "lanes": "vmap", "config": merged, "num_updates": 100, "members": members}
        (folder / "pack.json").write_text(json.dumps(plan))
        table = np.asarray(values, np.float32)[None, :, None] + np.array([-1.0, 1.0], np.float32)
        named = {"returns": table, **({"scores": table} if scores else {})}
        np.savez(folder / "eval.npz", step=np.array([100]), wall_seconds=np.array([1.0]), **named)
        if done:
            (folder / "done.json").write_text(json.dumps({"num_updates": 100, "nonfinite": []}))
    stamp = {"config": config, "study": "s", "env": config["env"], "dataset": {"name": data, "sha256": data * 64}}
    (path / "run.json").write_text(json.dumps({**stamp, "created": "2026-01-02T03:04:05+00:00"}))
    return path


@pytest.fixture
def collected(tmp_path: Path):
    def make(name: str, settings: Sequence[Setting], **options: Any) -> Results:
        return collect(load_run(make_folder(tmp_path / name, settings, **options)))

    return make


def test_difference_is_that_of_the_iqms_of_settings_with_one_label(collected):
    a = collected("a", [({"lr": 1}, [1.0, 2.0, 4.0, 99.0]), ({"lr": 2}, [5.0, 5.0])])
    b = collected("b", [({"lr": 2}, [8.0, 8.0]), ({"lr": 1}, [-50.0, 7.0, 8.0, 9.0])])
    found = compare.compare(a, b)
    rows = {row.second: row for row in found.rows}
    assert found.is_matched and set(rows) == {"alpha lr=1", "alpha lr=2"}
    assert rows["alpha lr=1"].iqms == (3.0, 7.5)  # the outer two of four are dropped
    assert rows["alpha lr=1"].difference.value == pytest.approx(4.5)
    assert rows["alpha lr=2"].difference == (3.0, (3.0, 3.0))
    assert rows["alpha lr=2"].improvement == (1.0, (1.0, 1.0))
    assert rows["alpha lr=2"].verdict == "better"


def test_interval_is_the_bootstraps_own(collected):
    """Means of two draws from (0, 2) are 0, 1, 2 and of (10, 14) 10, 12, 14, the outer ones a quarter of the time.

    So both ends of the difference, 8 and 14, have 1/16 of the draws, which is more than the 2.5 % beyond an interval.
    """
    [row] = compare.compare(collected("a", [({}, [0.0, 2.0])]), collected("b", [({}, [10.0, 14.0])])).rows
    assert row.difference == (11.0, (8.0, 14.0))


def test_worse_open_and_one_seed_are_told_apart(collected):
    a = collected("a", [({"lr": 1}, [9.0, 9.0]), ({"lr": 2}, [1.0, 3.0]), ({"lr": 3}, [1.0])])
    b = collected("b", [({"lr": 1}, [4.0, 4.0]), ({"lr": 2}, [2.0, 4.0]), ({"lr": 3}, [9.0])])
    rows = {row.first: row for row in compare.compare(a, b).rows}
    assert [rows[f"alpha lr={i}"].verdict for i in (1, 2, 3)] == ["worse", "open", "open"]
    assert rows["alpha lr=3"].difference == (8.0, None)


def test_without_a_common_label_the_best_are_compared(collected):
    a = collected("a", [({"lr": 1}, [1.0, 1.0]), ({"lr": 2}, [6.0, 6.0])])
    b = collected("b", [({"lr": 3}, [8.0, 8.0]), ({"lr": 4}, [2.0, 2.0])])
    found = compare.compare(a, b)
    [row] = found.rows
    assert not found.is_matched and (row.first, row.second) == ("alpha lr=2", "alpha lr=3")
    assert row.difference.value == 2.0
    assert "best setting of each" in found.notes[0]


TASKS = [
    ({"env": "hopper", "dataset": "h", "lr": 1}, [1.0, 1.0]),
    ({"env": "walker", "dataset": "w", "lr": 1}, [5.0, 5.0]),
]
BETTER = [
    ({"env": "walker", "dataset": "w", "lr": 1}, [3.0, 3.0]),
    ({"env": "hopper", "dataset": "h", "lr": 1}, [7.0, 7.0]),
    ({"env": "ant", "dataset": "a", "lr": 1}, [0.0, 0.0]),
]


def test_several_tasks_are_compared_one_by_one_and_together(collected):
    found = compare.compare(collected("a", TASKS), collected("b", BETTER))
    rows = {row.task: row for row in found.rows}
    assert set(rows) == {"hopper dataset=h", "walker dataset=w", "all tasks (2)"}
    assert rows["hopper dataset=h"].difference.value == 6.0
    assert rows["walker dataset=w"].difference.value == -2.0
    assert rows["all tasks (2)"].difference == (2.0, (2.0, 2.0))
    assert rows["all tasks (2)"].improvement == (0.5, (0.5, 0.5))
    assert any("left out: tasks ant dataset=a" in note for note in found.notes)


def test_returns_of_several_tasks_have_no_common_unit(collected):
    rows = compare.compare(collected("a", TASKS, scores=False), collected("b", BETTER, scores=False)).rows
    assert rows[-1].difference is None and rows[-1].improvement.value == 0.5
    assert rows[-1].verdict == "open"


def test_probability_over_tasks_is_the_mean_of_each_tasks_own():
    x, y = np.array([1.0, 2.0, 3.0]), np.array([2.0, 5.0])
    u, v = np.array([4.0, 4.0]), np.array([4.0, 3.0, 9.0])
    found = compare.improvement_over_tasks([(x, y), (u, v)])
    of_first = np.mean([(b > a) + 0.5 * (b == a) for a in x for b in y])
    of_second = np.mean([(b > a) + 0.5 * (b == a) for a in u for b in v])
    assert found.value == pytest.approx((of_first + of_second) / 2)
    assert found.interval.low <= found.value <= found.interval.high


def test_names_lose_what_names_the_task_as_labels_write_it(collected):
    overrides = {"env": "hopper", "vec.weight": 0.001, "mpe.sizes": [1, 2], "dataset": "h", "hparams.lr": 3e-4, "b": 2}
    found = compare.arrange(collected("a", [(overrides, [1.0])]))
    assert list(found.settings) == ["alpha lr=0.0003 b=2"]
    assert list(found.configs) == ["hopper weight=0.001 sizes=1x2 dataset=h"]


def test_a_dataset_swept_on_one_task_stays_a_setting(collected):
    found = compare.arrange(collected("a", [({"dataset": "x"}, [1.0]), ({"dataset": "y"}, [2.0])]))
    assert set(found.settings) == {"alpha dataset=x", "alpha dataset=y"}


def test_score_against_return_is_refused(collected):
    with pytest.raises(ValueError, match="reports a normalised score and .* a return: .* no common unit"):
        compare.compare(collected("a", [({}, [1.0])]), collected("b", [({}, [1.0])], scores=False))


def test_different_tasks_are_refused_by_their_names(collected):
    with pytest.raises(ValueError, match="is of hopper and .* of walker: numbers of different tasks"):
        compare.compare(collected("a", [({}, [1.0])]), collected("b", [({}, [1.0])], env="walker"))


def test_one_name_with_other_options_is_refused_with_the_option(collected):
    a, b = collected("a", [({}, [1.0])]), collected("b", [({}, [1.0])], env_options="size=9")
    with pytest.raises(ValueError, match="not the same task in both folders: env_options is '' in .* and 'size=9' in"):
        compare.compare(a, b)


def test_a_folder_without_evaluation_is_refused(collected):
    empty = collected("a", [])
    with pytest.raises(ValueError, match="has no evaluation yet"):
        compare.compare(empty, collected("b", [({}, [1.0])]))


def test_what_makes_a_comparison_doubtful_is_said(collected):
    a = collected("a", [({"lr": 1}, [1.0, 1.0]), ({"lr": 2}, [1.0, 1.0])])
    b = collected("b", [({"lr": 1}, [1.0, 1.0])], data="e", done=False)
    found = compare.compare(a, b)
    assert found.rows[0].notes == ("unfinished",)
    assert any("/a without a namesake in" in note and note.endswith(": 1.") for note in found.notes)
    assert any("different data: d (dddddddddd) and e (eeeeeeeeee)" in note for note in found.notes)


def test_text_has_the_numbers(collected):
    a = collected("a", [({"lr": 1}, [10.0, 10.0])])
    text = compare_page.as_text(compare.compare(a, collected("b", [({"lr": 1}, [12.5, 12.5])])))
    assert "task:   hopper" in text
    [line] = [line for line in text.splitlines() if line.startswith("alpha")]
    cells = "alpha lr=1 2, 2 10.0 12.5 +2.5 2.5 to 2.5 1.00 (1.00 to 1.00) better"
    assert line.split() == cells.split()
    assert "second is better in 1, worse in 0, and in 0" in text


def test_command_writes_an_offline_page_and_prints_every_comparison(tmp_path, capsys):
    folders = [make_folder(tmp_path / name, [({"lr": i}, [i, i + 1.0])]) for i, name in enumerate("abc")]
    assert cli.main(["compare", *map(str, folders)]) == 0
    printed = capsys.readouterr().out
    page = (folders[0] / "compare.html").read_text()
    assert printed.count("first:") == 2 and str(folders[0] / "compare.html") in printed
    assert page.count("<section") == 2 and page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    other = tmp_path / "other.html"
    assert cli.main(["compare", str(folders[0]), str(folders[1]), f"--out={other}"]) == 0
    assert other.is_file()


def test_labels_are_escaped_on_the_page(collected):
    hostile = [({"lr": "<script>alert(1)</script>"}, [1.0, 2.0])]
    page = compare_page.as_page([compare.compare(collected("a", hostile), collected("b", hostile))])
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_fewer_than_two_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two run folders or more, got 1"):
        command.main([str(tmp_path)])
