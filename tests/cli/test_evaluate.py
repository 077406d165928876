"""`jaxdiff eval DIR`: saved policies act again, as trained or otherwise; what cannot be done is said."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import train
from jaxdiff.algorithms import diffusion_bc
from jaxdiff.cli import evaluate
from jaxdiff.cli.restore import apply_settings, parse_settings, restore
from jaxdiff.io import files
from jaxdiff.io.checkpoint import Checkpoints
from jaxdiff.io.runs import load_run
from jaxdiff.types import Algorithm, TrainState

pytestmark = pytest.mark.usefixtures("traced_once")

PLAIN = ("--episodes=16", "--seed=3")


def run_eval(folder: Path, *flags: str) -> dict:
    """What the command writes."""
    before = set(folder.glob("evals/*.json"))
    assert evaluate.main([str(folder), *flags]) == 0
    written = set(folder.glob("evals/*.json")) - before
    return files.read_json(written.pop() if written else max(before, key=lambda path: path.stat().st_mtime))


def returns_of(record: dict) -> dict[str, list[float]]:
    """Member -> returns."""
    pairs = [pair for pack in record["packs"] for pair in zip(pack["members"], pack["returns"], strict=True)]
    return {f"{member['algorithm']} {member['seed']}": values for member, values in pairs}


@pytest.mark.parametrize(("checkpoint", "row"), [("last", 1), ("2", 0)])
def test_restored_policies_act_as_they_did_in_training(trained, monkeypatch, checkpoint, row):
    """With the keys of training's own evaluation the episodes are those in eval.npz, bit for bit."""
    run = load_run(trained)
    monkeypatch.setattr(evaluate, "FIRST_INDEX", int(run.packs[0].eval["step"][row]))
    record = run_eval(trained, "--episodes=16", f"--checkpoint={checkpoint}")
    for pack, found in zip(run.packs, record["packs"], strict=True):
        assert found["step"] == pack.eval["step"][row]
        np.testing.assert_array_equal(np.float32(found["returns"]), pack.eval["returns"][row])
        np.testing.assert_array_equal(np.float32(found["scores"]), pack.eval["scores"][row])


@pytest.fixture(scope="module")
def plain(trained) -> dict:
    """The record of sixteen episodes by policies that act as they were trained."""
    return run_eval(trained, *PLAIN)


def test_record_repeats_itself_and_its_table_follows_from_the_episodes(trained, plain, capsys):
    assert returns_of(run_eval(trained, *PLAIN)) == returns_of(plain)
    text = capsys.readouterr().out
    assert plain["request"] == {
        "episodes": 16, "seed": 3, "env": None, "checkpoint": "last", "overrides": {},
    }  # fmt: skip
    assert plain["command"] == ["jaxdiff", "eval", str(trained), "--episodes=16", "--seed=3"]
    assert {"versions", "device_kind", "git_commit", "created", "run"} <= plain.keys()
    returns = returns_of(plain)
    settings = {row["label"]: row for row in plain["settings"]}
    pair = [np.mean(returns[f"diffusion_ql {seed}"]) for seed in (0, 1)]
    assert settings["diffusion_ql q_weight=1"]["return"]["mean"] == pytest.approx(np.mean(pair), rel=1e-6)
    # probe-bandit: 0 for a uniform action, which earns 2.375, 100 for the best corner, which pays 5
    score = 100 * (np.mean(returns["diffusion_bc 0"]) - 2.375) / (5 - 2.375)
    assert settings["diffusion_bc"]["score"] == {"mean": pytest.approx(score, rel=1e-5), "iqm": pytest.approx(
        score, rel=1e-5), "interval": None}  # fmt: skip
    assert f"{score:.1f}" in next(line for line in text.splitlines() if line.startswith("diffusion_bc"))
    assert "probe-bandit: 16 episodes per member, checkpoint after 4 updates" in text


def test_set_changes_how_policies_act_and_only_theirs(trained, plain, capsys):
    before = returns_of(plain)
    same = run_eval(trained, *PLAIN, "--set", "hparams.act_temperature=1", "--set=model.num_candidates=2")
    assert returns_of(same) == before
    assert same["request"]["overrides"] == {"hparams.act_temperature": 1.0, "model.num_candidates": 2}
    changed = returns_of(run_eval(trained, *PLAIN, "--set", "model.num_candidates=7"))
    assert "updates; acting with model.num_candidates=7\n" in capsys.readouterr().out
    assert changed["diffusion_bc 0"] == before["diffusion_bc 0"]  # it draws no candidates
    assert changed["diffusion_ql 0"] != before["diffusion_ql 0"]
    assert changed["diffusion_ql 1"] != before["diffusion_ql 1"]
    hot = run_eval(trained, "--episodes=16", "--seed=1", "--set", "hparams.act_temperature=9")
    cool = returns_of(run_eval(trained, "--episodes=16", "--seed=1"))
    assert all(returns_of(hot)[member] != cool[member] for member in cool)
    assert cool != before


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--set=hparams.act_temprature=1", r"unknown config key '.*'; did you mean 'hparams.act_temperature'\?"),
        ("--set=num_candidates=1", "did you mean 'model.num_candidates'"),
        ("--set=model.num_candidates=1.5", "'model.num_candidates' wants int, got '1.5'"),
        ("--set=model.num_candidates", "has no '='; write KEY=VALUE"),
        ("--set=env=pointmaze-open", "got 'env': use --env=NAME"),
        ("--set=batch_size=1", "got 'batch_size': only training reads it"),
        ("--set=model.policy.sampler=ddmp", "unknown sampler 'ddmp'"),
        (
            "--set=model.policy.hidden=5",
            r"changes the saved parameters: .*\(4,\) and would be \(5,\); .*training",
        ),
        ("--checkpoint=3", "--checkpoint=3 is not in pack .*; allowed: last, best, 2, 4"),
        ("--env=pointmaze-open", "observations of 1 and actions of 2 numbers, --env=pointmaze-open has 4 and 2"),
        ("--env=probe-bandid", "did you mean 'probe-bandit'"),
        ("--episodes=0", "episodes"),
        ("another_folder", "eval takes one run folder, got 2"),
        ("--out=/dev", "--out=/dev is a folder; give the name of a file"),
    ],
)
def test_mistake_is_named(trained, flag, message):
    with pytest.raises((KeyError, ValueError), match=message):
        evaluate.main([str(trained), flag])


def test_folder_without_a_policy_is_named(trained, tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        evaluate.main([str(tmp_path)])
    files.write_json_atomic(tmp_path / "run.json", files.read_json(trained / "run.json"))
    with pytest.raises(ValueError, match="no pack that ever started"):
        evaluate.main([str(tmp_path)])


def test_a_file_that_cannot_be_written_is_told_before_the_first_episode(trained, monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate_pack", lambda *args: pytest.fail("it acted"))
    with pytest.raises(NotADirectoryError, match="is a file, where a folder is needed; choose another file with --out"):
        evaluate.main([str(trained), f"--out={trained / 'run.json' / 'x.json'}"])


def test_settings_of_any_pack_may_be_set_and_the_other_packs_keep_theirs():
    first = {"model": {"a": 1, "hidden": [3]}, "hparams": {"x": 0.5}}
    second = {"model": {"a": 2, "b": "s"}, "hparams": {}}
    overrides = parse_settings([first, second], ["model.b=new", "model.hidden=3,4", "hparams.x=2"])
    assert overrides == {"model.b": "new", "model.hidden": (3, 4), "hparams.x": 2.0}
    assert apply_settings(first, overrides) == {"model": {"a": 1, "hidden": (3, 4)}, "hparams": {"x": 2.0}}
    assert apply_settings(second, overrides) == {"model": {"a": 2, "b": "new"}, "hparams": {}}


def test_lanes_padded_for_two_devices_are_restored_on_one(tmp_path):
    def init(key, hparams):
        weight = {"w": jax.random.normal(key, (2,))}
        return TrainState(jnp.int32(0), weight, weight, (), hparams)

    algorithm = Algorithm(init, None, None, None)  # type: ignore[arg-type]
    config = {"algorithm": "diffusion_bc", "model": {}, "hparams": {"lr": 0.5}}
    plan = {"id": "pack", "lanes": "shard", "members": [{"config": config}] * 3}
    hparams = jax.tree.map(lambda x: jnp.full(4, x, jnp.float32), diffusion_bc.HParams(lr=0.5))
    start = functools.partial(train.init_lane, algorithm)
    lanes = jax.vmap(start)(hparams, np.array([5, 6, 7, 7]))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(10, lanes)
        found, step = restore(
            checkpoints, plan, "best", num_devices=2, trained=start, acting=start, overrides={"hparams.lr": 2.0}
        )
    assert step == 10  # no score was saved, so the newest is the best
    np.testing.assert_array_equal(jax.random.key_data(found.key), jax.random.key_data(lanes.key))
    np.testing.assert_array_equal(found.state.params["w"], lanes.state.params["w"])
    np.testing.assert_array_equal(found.state.hparams.lr, np.full(4, 2.0, np.float32))
    np.testing.assert_array_equal(found.state.hparams.ema_rate, lanes.state.hparams.ema_rate)


def test_nonfinite_member_is_counted_and_not_scored():
    members = [{"label": "a", "alive": True}, {"label": "a", "alive": False}, {"label": "b", "alive": False}]
    returns = np.array([[1.0, 3.0], [100.0, 100.0], [5.0, 5.0]])
    pack = evaluate.PackScores("p", 4, "env", members, returns, np.array([[2, 4], [9, 9], [9, 9]]), None)
    first, second = evaluate.settings([pack])
    assert (first["label"], first["seeds"], first["nonfinite"], first["length"]) == ("a", 1, 1, 3.0)
    assert first["return"] == {"mean": 2.0, "iqm": 2.0, "interval": None}
    assert (second["label"], second["seeds"], second["return"]["mean"]) == ("b", 0, None)
    rows = [line.split() for line in evaluate.table([pack], {}).splitlines()[3:]]
    assert rows == [["a", "1", "2.0", "2.0", "2.0", "-", "3.0", "1"], ["b", "0", "-", "-", "-", "-", "-", "1"]]


def test_a_sweep_of_acting_rolls_out_every_point_from_the_same_weights(trained, capsys):
    before = set(trained.glob("evals/*.json"))
    flags = ["--episodes=16", "--seed=5", "--sweep=model.num_candidates=2,7", "--sweep", "hparams.act_temperature=0,1"]
    assert evaluate.main([str(trained), *flags]) == 0
    text = capsys.readouterr().out
    records = {
        tuple(record["request"]["overrides"].values()): record
        for record in map(files.read_json, set(trained.glob("evals/*.json")) - before)
    }
    assert set(records) == {(2, 0.0), (2, 1.0), (7, 0.0), (7, 1.0)}
    for candidates, temperature in ((2, 1.0), (7, 0.0)):  # each value of each key once
        chosen = f"--set=model.num_candidates={candidates}", f"--set=hparams.act_temperature={temperature}"
        alone = returns_of(run_eval(trained, "--episodes=16", "--seed=5", *chosen))
        assert returns_of(records[candidates, temperature]) == alone
    summary = text[text.rindex("acting with") :].splitlines()
    points = {"2": "model.num_candidates=2", "7": "model.num_candidates=7"}
    for candidates, name in points.items():
        score = next(row for row in records[int(candidates), 1.0]["settings"] if row["label"] == "diffusion_bc")[
            "score"
        ]
        line = next(x for x in summary if name in x and "hparams.act_temperature=1" in x and "diffusion_bc" in x)
        assert f"{score['iqm']:.1f}" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sweep=model.num_candidates"], "write KEY=VALUE,VALUE"),
        (["--sweep=model.num_candidates=1,,2"], "write KEY=VALUE,VALUE"),
        (["--sweep=hparams.act_temperature=0", "--sweep=hparams.act_temperature=1"], "once for each key"),
        (["--sweep=model.num_candidates=1,2", "--out=x.json"], "--out=x.json names one file and --sweep makes 2"),
        (["--sweep=batch_size=1,2"], "only training reads it"),
        (["--sweep=model.num_candidates=7,0"], "num_candidates=0; it must be at least 1"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_runs(trained, flags, message):
    before = set(trained.glob("evals/*.json"))
    with pytest.raises(ValueError, match=message):
        evaluate.main([str(trained), *flags])
    assert set(trained.glob("evals/*.json")) == before
