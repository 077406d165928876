"""The study of MAD2RL: a run of tiny sizes, delays against a loop by hand, and verdicts out of made-up numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies.mad2rl_paper import __main__ as study
from experiments.studies.mad2rl_paper import _claims, _costs, _report, _runs
from experiments.studies.mad2rl_paper._methods import EVAL_SEED, METRICS, Point, Sizes, make_env
from jaxdiff.envs.discrete import encode_onehot
from jaxdiff.io.files import write_json_atomic

TINY = Sizes(
    hidden=(4,), num_steps=2, batch_size=4, episodes=3, num_envs=2, updates_per_step=1, replay_capacity=64, warmup=4,
    seeds=2, eval_every=2, eval_episodes=2,
)  # fmt: skip
POINT = Point(2, 1, 10.0)
NAMES = ("all_local", "greedy_delay")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """P-QMIX at two V side by side, and heuristics."""
    out = tmp_path_factory.mktemp("study")
    _runs.run_missing(out, "pqmix", [POINT, POINT._replace(v=50.0)], TINY, redo=False, lanes="vmap")
    for name in NAMES:
        _runs.run_missing(out, name, [POINT], TINY, redo=False, lanes="vmap")
    return out


def test_curves_of_all_seeds_and_weights_are_kept(folder):
    low, high = (_runs.load(folder, "pqmix", POINT._replace(v=v)) for v in (10.0, 50.0))
    assert low["trained"] == [0, 2, 3]
    assert low["alive"] == [True, True]
    assert low["sizes"]["hidden"] == [4]
    for record in (low, high):
        assert {k: np.shape(x) for k, x in record["curves"].items()} == dict.fromkeys(METRICS, (2, 3))
    # Before training lanes of one seed choose alike, and what the task charges for delays grows with V.
    gain = np.array([record["curves"]["return"] for record in (low, high)])[..., 0]
    assert (gain[0] > gain[1]).all()
    assert gain[0, 0] != gain[0, 1]


def test_delays_and_queues_are_those_of_a_loop_through_the_task(folder):
    env, depths = make_env(POINT), np.array([11, 12])
    key_reset = jax.random.split(jax.random.key(EVAL_SEED))[0]
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    action = encode_onehot(jnp.asarray(depths * 2), env.spec.action_dim)
    delays, queues, returns = [], [], []
    for key in jax.random.split(key_reset, TINY.eval_episodes):
        state, _ = reset(key)
        gained = 0.0
        for _ in range(30):
            state, out = step(state, action)
            delays.append(np.asarray(state.outcome.delay))
            queues.append(np.asarray(state.slot.queues.local))
            gained += float(out.reward[0])
        returns.append(gained)
    values = _runs.load(folder, "all_local", POINT)["values"]
    np.testing.assert_allclose(np.mean(values["delay"]), np.mean(delays), rtol=1e-4)
    np.testing.assert_allclose(np.mean(values["local"]), np.mean(queues), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values["return"], returns, rtol=1e-3)
    assert values["rsu"] == values["server"] == [0.0, 0.0]


def test_finished_runs_are_kept_and_those_of_other_sizes_refused(folder):
    path = _runs.path_of(folder, "all_local", POINT)
    before = path.stat().st_mtime_ns
    _runs.run_missing(folder, "all_local", [POINT], TINY, redo=False, lanes="vmap")
    assert path.stat().st_mtime_ns == before
    other = study.dataclasses.replace(TINY, eval_episodes=3)
    with pytest.raises(ValueError, match=r"made with \{'eval_episodes': 2\}"):
        _runs.run_missing(folder, "all_local", [POINT], other, redo=False, lanes="vmap")


def test_tables_and_figures_show_what_is_finished(folder):
    text = _report.tables(folder, {"learning": (POINT,), "none": (Point(9, 9, 1.0),)})
    rows = text.splitlines()
    assert [row.split("|")[4].strip() for row in rows[4:]] == ["`pqmix`", "`all_local`", "`greedy_delay`"]
    assert len({row.count("|") for row in rows[2:]}) == 1
    assert "2/2 seeds" in rows[4]
    assert "none" not in text
    points = POINT, POINT._replace(v=50.0)
    figures = _report.learning_figure(POINT, folder), _report.points_figure(points, "v", folder)
    assert [len(figure.axes) for figure in figures] == [2, 2]
    assert len(figures[0].axes[0].lines) == 3


def test_lanes_that_devices_cannot_share_evenly_are_batched(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert [_runs.fitting("shard", count) for count in (1, 8)] == ["vmap", "shard"]
    assert _runs.fitting("map", 1) == "map"


def test_decisions_are_timed_one_by_one():
    seconds = _costs.decision_seconds("greedy_delay", POINT, TINY, repeats=3)
    assert len(seconds) == 3
    assert min(seconds) > 0


def test_rates_count_the_steps_of_all_environments(monkeypatch):
    monkeypatch.setattr(_costs, "_rate", lambda run, seconds: (run(2), 7.0)[1])
    assert _costs.simulator_rate(POINT, 3, 0.01) == {"env_steps": 21.0}
    rates = _costs.throughput("pqmix", POINT, study.dataclasses.replace(TINY, updates_per_step=5), 2, 0.01, "vmap")
    assert rates == {"env_steps": 28.0, "updates": 70.0}


def made_up(out, method, point, delays, backlog=10.0):
    values = {name: list(delays) for name in METRICS} | {"backlog": [backlog, backlog + 0.1]}
    write_json_atomic(_runs.path_of(out, method, point), {"values": values})


def test_a_claim_is_reproduced_where_its_whole_interval_is_on_the_papers_side(tmp_path):
    (tmp_path / "runs").mkdir()
    most, fewest = Point(7, 5, 10.0), Point(3, 5, 10.0)
    made_up(tmp_path, "mad2rl", most, [2.0, 2.2, 1.8])
    made_up(tmp_path, "mad2rl", fewest, [1.0, 1.1, 0.9])
    made_up(tmp_path, "pqmix", most, [4.0, 4.4, 3.6])
    made_up(tmp_path, "genetic", most, [0.5, 9.0, 0.6])
    made_up(tmp_path, "greedy", most, [1.0, 1.1, 0.9])
    found = {verdict.claim: verdict for verdict in _claims.verdicts(tmp_path, {})}
    where = "7 clients, 5 vehicles: mad2rl"
    assert found[f"{where} takes less time than pqmix"].reproduced
    assert found[f"{where} takes less time than pqmix"].ours.startswith("-50.0 % (")
    assert found[f"{where} takes less time than pqmix"].paper == "-19.93 %"
    assert not found[f"{where} takes less time than genetic"].reproduced
    assert not found[f"{where} takes less time than greedy"].reproduced
    assert not found[f"{where} earns more than pqmix"].reproduced
    assert found["mad2rl: time grows from 3 to 7 clients"].reproduced
    assert len(found) == 5


def test_queues_have_to_grow_with_v_and_times_to_stay(tmp_path):
    (tmp_path / "runs").mkdir()
    made_up(tmp_path, "mad2rl", Point(5, 3, 10.0), [2.0, 2.02])
    made_up(tmp_path, "mad2rl", Point(5, 3, 150.0), [2.1, 2.12], backlog=30.0)
    assert [verdict.reproduced for verdict in _claims.verdicts(tmp_path, {})] == [True, True]
    made_up(tmp_path, "mad2rl", Point(5, 3, 150.0), [2.1, 3.2], backlog=5.0)
    assert [verdict.reproduced for verdict in _claims.verdicts(tmp_path, {})] == [False, False]


def test_decision_times_are_compared_by_medians_and_with_the_papers_ratios(tmp_path):
    seconds = {"5c3s-v10": {"pqmix": [1.0, 1.0, 9.0], "mad2rl": [2.0, 2.0, 0.1], "genetic": [4.0] * 3}}
    faster, slower = _claims.verdicts(tmp_path, seconds)
    assert (faster.paper, faster.ours, faster.reproduced) == ("x 0.30", "x 0.50", True)
    assert (slower.paper, slower.ours, slower.reproduced) == ("x 3.87", "x 2.00", True)


def test_flags_are_the_sizes_and_unknown_methods_are_refused(tmp_path, capsys):
    options = vars(study._parser().parse_args(["table", "--hidden=8,9", "--episodes=7", "--lr=0.1"]))
    sizes = study.sizes_from(options)
    assert (sizes.hidden, sizes.episodes, sizes.lr, sizes.num_envs) == ((8, 9), 7, 0.1, 8)
    with pytest.raises(KeyError, match="unknown method 'madrl'"):
        study.main(["table", "--methods=madrl"])
    with pytest.raises(ValueError, match="--seeds=0 must be at least 1"):
        study.main(["table", "--seeds=0"])
    write_json_atomic(tmp_path / "decisions.json", {"seconds": {"5c3s-v10": {"genetic": [0.5] * 3}}})
    assert study.main(["table", f"--out={tmp_path}"]) == 0
    assert "| 5c3s-v10 | `genetic` | 500 | 500 to 500 | 1 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "decisions.json").read_text())
