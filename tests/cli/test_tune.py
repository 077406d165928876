"""A search over static choices: what is told, asked and trained, stopped and failed, with a list for a sampler."""

import json
import math
from pathlib import Path
import sys

import numpy as np
import pytest

from jaxdiff.cli import dry_run, tune
from jaxdiff.cli import main as cli
from jaxdiff.cli.suggesting import from_optuna, num_points, point_of, same
from jaxdiff.cli.work import Outcome
from jaxdiff.io import files, metrics
from jaxdiff.io.folders import RunDir
from jaxdiff.io.report.results import collect
from jaxdiff.io.runs import load_run

SPACES = """

def sweep_few():
    yield {"algorithm": "bc", "hparams.lr": 1e-4, "seed": 0}


def sweep_seeds():
    for rate in (1e-4, 3e-2):
        for seed in (0, 1):
            yield {"algorithm": "bc", "hparams.lr": rate, "seed": seed}


def space_shape():
    return {"model.actor_hidden": [(4,), (5,)], "batch_size": [8, 16]}


def space_wrong():
    return {"model.actor_hiden": [(4,)]}


def space_text():
    return {"batch_size": [8, "16"]}


def space_tasks():
    return {"env": ["probe-bandit", "probe-one-step"]}


def space_scale():
    return {"hparams.lr": (1e-4, 1e-2, "lag")}
"""
WALK = [((4,), 8), ((4,), 8), ((5,), 8), ((5,), 16)]  # the second is none, since it was there


@pytest.fixture(scope="module")
def line(study: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path, _, data = study[0].removeprefix("--config=").partition(":")
    copy = tmp_path_factory.mktemp("tuned") / "study.py"
    copy.write_text(Path(path).read_text() + SPACES)
    return ["tune", f"--config={copy}:{data}", "--sweep=seeds", "--lanes=vmap"]


class Walk:
    """A sampler without ideas: points in a fixed order; remembers what it was told."""

    def __init__(self):
        self.known = []

    def __call__(self, space, known, seed):
        self.known.append(list(known))
        hidden, batch_size = WALK[min([0, 1, 3][len(known)] + seed % tune.TRIES, 3)]
        return {"model.actor_hidden": hidden, "batch_size": batch_size}


class Trainer:
    """Writes what training leaves of a pack. A member's score is 100 width + batch_size + 1000 lr + seed."""

    def __init__(self):
        self.trained, self.stop_at, self.broken = [], -1, ()

    def __call__(self, plan, packs, tasks, stop):
        del tasks, stop
        outcome = Outcome()
        for pack in packs:
            folder, config = RunDir(plan.workdir).pack(pack.id), pack.members[0].config
            shape = (config["model"]["actor_hidden"][0], config["batch_size"])
            if folder.is_done():
                continue
            if len(self.trained) == self.stop_at:
                self.stop_at = -1
                return Outcome(is_stopped=True)
            if shape in self.broken:
                outcome.failed[pack.id] = MemoryError("too wide")
                continue
            self.trained.append(shape)
            fields = ("id", "label", "algorithm", "overrides", "seed")
            members = [{name: getattr(member, name) for name in fields} for member in pack.members]
            files.write_json_atomic(
                folder.pack_json,
                {"id": pack.id, "lanes": "map", "config": config, "members": members, "num_updates": 4},
            )
            scores = [100 * shape[0] + shape[1] + 1000 * m.config["hparams"]["lr"] + m.seed for m in pack.members]
            table = metrics.MetricTable()
            table.append(4, 1.0, {"returns": np.tile(np.asarray(scores)[:, None], (1, 3))})
            table.save(folder.eval)
            files.write_json_atomic(folder.done, {"num_updates": 4, "wall_seconds": 1.0})
        return outcome


@pytest.fixture
def walk(monkeypatch):
    found = Walk()
    monkeypatch.setattr(tune, "from_optuna", found)
    return found


@pytest.fixture
def trainer(monkeypatch):
    found = Trainer()
    monkeypatch.setattr(tune, "run_packs", found)
    return found


def command(line: list[str], folder: Path, trials: int = 3) -> list[str]:
    return [*line, "--space=shape", f"--trials={trials}", f"--workdir={folder}"]


def best(hidden: int, batch_size: int) -> float:
    """The score of a trial: at the higher learning rate, the mean over two seeds."""
    return 100 * hidden + batch_size + 30 + 0.5


def test_a_trial_is_a_point_with_the_whole_study_and_the_sampler_is_told_its_best_setting(
    line, walk, trainer, tmp_path, capsys
):
    assert cli.main(command(line, tmp_path / "run")) == 0
    assert trainer.trained == [(4, 8), (5, 8), (5, 16)]
    results = collect(load_run(tmp_path / "run"))
    assert [len(setting.members) for setting in results.settings] == [2] * 6
    assert [len(known) for known in walk.known] == [0, 1, 1, 2]  # asked again for what was there
    values, scores = zip(*walk.known[-1], strict=True)
    assert values == tuple({"model.actor_hidden": h, "batch_size": b} for h, b in (((4,), 8), ((5,), 8)))
    np.testing.assert_allclose(scores, [best(4, 8), best(5, 8)], rtol=1e-6)
    assert "trial 3 of 3: 546.5 with bc actor_hidden=5 batch_size=16 lr=0.03; best 546.5" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_trained_trial_is_found_by_report_and_score(line, walk, tmp_path, capsys):
    folder, means = tmp_path / "run", {}
    assert cli.main(command(line, folder, trials=1)) == 0
    (pack,) = load_run(folder).packs
    assert pack.status == "finished"
    for lane, member in enumerate(pack.members):
        returns = pack.eval.get("scores", pack.eval["returns"])[-1, lane]
        means.setdefault(member.overrides["hparams.lr"], []).append(np.mean(returns, dtype=np.float64))
    assert [len(found) for found in means.values()] == [2, 2]
    assert f"trial 1 of 1: {max(np.mean(found) for found in means.values()):.4g} with bc" in capsys.readouterr().out


@pytest.mark.parametrize("stop_at", [0, 1, 2])
def test_a_search_that_was_stopped_goes_on_with_the_trial_it_was_at(line, walk, trainer, tmp_path, stop_at):
    trainer.stop_at = stop_at
    assert cli.main(command(line, tmp_path / "run")) == 75
    assert len(files.read_json(tmp_path / "run" / "trials.json")) == stop_at + 1
    assert cli.main(command(line, tmp_path / "run")) == 0
    assert trainer.trained == [(4, 8), (5, 8), (5, 16)]
    np.testing.assert_allclose([score for _, score in walk.known[-1]][:1], [best(4, 8)], rtol=1e-6)


def test_more_trials_and_more_seeds_train_what_is_missing(line, walk, trainer, tmp_path):
    folder = tmp_path / "run"
    first = [word.replace("--sweep=seeds", "--sweep=few") for word in line]
    path = Path(line[1].removeprefix("--config=").partition(":")[0])
    if "sweep_few" not in path.read_text():
        path.write_text(path.read_text() + "\n\ndef sweep_few():\n    return list(sweep_seeds())[:1]\n")
    assert cli.main(command(first, folder, trials=2)) == 0
    assert cli.main(command(line, folder, trials=3)) == 0
    assert len(trainer.trained) == 2 + 2 + 1  # the new members of two trials, and a trial
    assert [len(setting.members) for setting in collect(load_run(folder)).settings] == [2] * 6


def test_a_sampler_that_repeats_itself_gets_what_is_left_and_an_empty_space_ends_the_search(
    line, trainer, tmp_path, monkeypatch
):
    monkeypatch.setattr(tune, "from_optuna", lambda *_: {"model.actor_hidden": (4,), "batch_size": 16})
    assert cli.main(command(line, tmp_path / "run", trials=20)) == 0
    assert sorted(trainer.trained) == [(4, 8), (4, 16), (5, 8), (5, 16)]


def test_a_failed_trial_is_the_worst_and_is_tried_again_by_the_same_command(line, walk, trainer, tmp_path, capsys):
    trainer.broken = ((5, 8),)
    assert cli.main(command(line, tmp_path / "run")) == 1
    assert walk.known[-1][1][1] == -math.inf
    assert "trial 2 of 3: failed; best 438.5 with" in capsys.readouterr().out
    trainer.broken = ()
    assert cli.main(command(line, tmp_path / "run")) == 0
    assert sorted(trainer.trained) == [(4, 8), (5, 8), (5, 16)]


def test_a_dry_run_says_what_is_next_and_writes_nothing(line, walk, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "describe", lambda plan: f"{len(plan.packs)} pack of {len(plan.points)}")
    assert cli.main([*command(line, tmp_path / "run"), "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert f"space 'shape': 2 keys, 4 points; 0 of 3 trials are in {tmp_path / 'run'}; 4 members each" in shown
    assert shown.endswith("1 pack of 4\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--space=shap"], "unknown --space='shap' in study.py; did you mean 'shape'"),
        ([], "unknown --space='' in study.py; known: scale, shape, tasks, text, wrong"),
        (["--space=wrong"], "unknown config key 'model.actor_hiden'; did you mean 'model.actor_hidden'"),
        (["--space=text"], "'batch_size' wants int, got '16' (str). It is in point 2 of sweep text"),
        (["--space=tasks"], "'env' has several values; give one"),
        (["--space=scale"], "the space of 'hparams.lr' is (0.0001, 0.01, 'lag')"),
        (["--space=shape", "--prepare"], "no --prepare, no URL"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(line, walk, tmp_path, capsys, flags, message):
    assert cli.main([*line, *flags, f"--workdir={tmp_path / 'run'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_optuna_the_line_that_installs_it_is_printed(line, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert cli.main([*line, "--space=shape", f"--workdir={tmp_path / 'run'}"]) == 2
    assert 'pip install "jaxdiff[optuna]"' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_choice_that_is_a_dict_sets_its_own_keys():
    values = {"method": {"algorithm": "bc", "model.policy.hidden": (4,)}, "batch_size": 8}
    assert point_of(values) == {"algorithm": "bc", "model.policy.hidden": (4,), "batch_size": 8}
    assert same(values, json.loads(json.dumps(values)))
    assert num_points({"a": [1, 2], "b": range(3)}) == 6
    assert num_points({"a": [1, 2], "b": (0.0, 1.0, "linear")}) == math.inf


SPACE = {"width": [(32,), (64,), (128,), (256,)], "kind": ["x", "y", None], "rate": (1e-4, 1e-2, "log"), "n": range(9)}


def test_optuna_repeats_itself_and_goes_where_scores_are_high():
    pytest.importorskip("optuna")
    known = []
    for i in range(40):
        values = from_optuna(SPACE, known, i)
        assert values == from_optuna(SPACE, json.loads(json.dumps(known)), i)
        assert all(values[key] in SPACE[key] for key in ("width", "kind", "n"))
        assert 1e-4 <= values["rate"] <= 1e-2
        known.append(
            (values, -math.inf if values["kind"] is None else float(values["n"] + 4 * (values["width"][0] > 64)))
        )
    late, early = ([score for _, score in part] for part in (known[20:], known[:10]))
    assert np.median(late) > np.median(early)
    assert -math.inf in [score for _, score in known]


def test_optuna_leaves_out_what_the_space_has_not_any_more():
    pytest.importorskip("optuna")
    stale = [({"width": [512], "kind": "x", "rate": 1e-3, "n": 1}, 1.0), ({"kind": "x"}, 2.0)]
    assert from_optuna(SPACE, stale, 3) == from_optuna(SPACE, [], 3)
