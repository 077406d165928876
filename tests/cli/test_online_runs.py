"""Runs that act while they train, and runs that start from another one's networks, through the commands."""

from collections.abc import Callable
import dataclasses
from pathlib import Path
import shutil
from typing import Any

import jax
import numpy as np
import optax
import pytest
from toy_algorithm import plain

from jaxdiff.cli import evaluate
from jaxdiff.cli import main as cli
from jaxdiff.cli import run as commands
from jaxdiff.cli.loops import make_loop
from jaxdiff.cli.programs import fresh_lanes
from jaxdiff.cli.settings import make_settings
from jaxdiff.cli.task import make_algorithm, make_env, make_task
from jaxdiff.cli.warm_start import check_networks
from jaxdiff.io import files
from jaxdiff.io.checkpoint import Checkpoints
from jaxdiff.io.folders import PackDir, RunDir

pytestmark = pytest.mark.usefixtures("traced_once")

CONFIG = """
from jaxdiff.cli.settings import base_config


def get_config(what):
    algorithm, _, dataset = what.partition("=")
    config = base_config(algorithm)
    config.dataset = dataset
    config.batch_size, config.num_updates, config.chunk = 8, 4, 2
    config.eval_interval, config.checkpoint_interval, config.eval_episodes, config.record_episodes = 2, 2, 4, 1
    if algorithm == "dppo":  # the task and the policy's shape are those of the run it starts from
        config.online.num_envs, config.online.rollout_length = 4, 2
        config.model.value_hidden, config.model.minibatch_size, config.model.num_epochs = (4,), 8, 1
        return config
    config.env = "probe-bandit"
    if "policy" in config.model:
        config.normalise_obs = True
        config.model.policy.hidden, config.model.policy.time_dim = (4,), 4
        config.model.policy.num_levels = config.model.policy.num_steps = 2
    if algorithm == "diffusion_ql":
        config.model.critic_hidden, config.model.num_candidates = (4,), 2
        config.online.replay_capacity, config.online.warmup = 64, 4
    return config


def sweep_seed():
    yield {"seed": 0}
    yield {"seed": 1}


def sweep_backwards():
    yield {"seed": 1}
    yield {"seed": 0}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, compiled_once: None) -> str:
    """The value of --config, without what stands behind its colon."""
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture(scope="module")
def cloned(config: str, bandit_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of diffusion_bc on the bandit's data."""
    folder = tmp_path_factory.mktemp("runs") / "cloned"
    argv = ["sweep", f"--config={config}:diffusion_bc={bandit_data}", "--sweep=seed", "--lanes=map"]
    assert cli.main([*argv, f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def tuned(config: str, cloned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both seeds, the second one first, in dppo; the policy's step size is 0, so that it ends as it began."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    assert cli.main([*tune(config, cloned), "--config.hparams.lr=0.0", f"--workdir={folder}"]) == 0
    return folder


def tune(config: str, source: Path) -> list[str]:
    argv = ["sweep", f"--config={config}:dppo", "--sweep=backwards", "--lanes=map"]
    return [*argv, f"--config.init_from={source}"]


@pytest.fixture(scope="module")
def with_replay(config: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """diffusion_ql that learns while it acts."""
    folder = tmp_path_factory.mktemp("runs") / "replay"
    assert cli.main([*act_and_learn(config), f"--workdir={folder}"]) == 0
    return folder


def act_and_learn(config: str) -> list[str]:
    return [
        "train",
        f"--config={config}:diffusion_ql",
        "--config.dataset=",
        "--config.online.num_envs=2",
        "--lanes=map",
    ]


def only_pack(folder: Path) -> PackDir:
    (name,) = RunDir(folder).list_packs()
    return RunDir(folder).pack(name)


def saved(folder: Path, step: int = 4) -> Any:
    """The lanes of a checkpoint, on the host."""
    pack = only_pack(folder)
    plan = files.read_json(pack.pack_json)
    config, count = plan["config"], len(plan["members"])
    statistics = None if plan["obs_statistics"] is None else tuple(np.float32(s) for s in plan["obs_statistics"])
    env = make_env(config)
    init = make_loop(config, make_algorithm(config, env.spec, statistics), env).init
    hparams = jax.tree.map(lambda value: np.full(count, value, np.float32), make_settings(config)[1])
    like = jax.eval_shape(jax.vmap(init), hparams, np.zeros(count, np.int32))
    with Checkpoints(pack.checkpoints) as checkpoints:
        lanes = checkpoints.restore(like, step)
    return jax.tree.map(plain, lanes)


def assert_same(first: Any, second: Any) -> None:
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fine_tuning_starts_seed_by_seed_from_the_policy_that_acted(cloned, tuned):
    there, here = saved(cloned).state, saved(tuned).state
    swapped = jax.tree.map(lambda leaf: leaf[::-1], there)
    assert_same(here.params["policy"], swapped.target_params["policy"])  # the average is what acts
    assert_same(here.target_params["policy"], swapped.target_params["policy"])
    for average, weights in zip(*map(jax.tree.leaves, (there.target_params, there.params)), strict=True):
        assert (average != weights).any()
        assert (average[0] != average[1]).any()


def test_fine_tuning_takes_over_the_task_and_the_policy_s_shape(cloned, tuned):
    there, here = (files.read_json(only_pack(folder).pack_json) for folder in (cloned, tuned))
    assert here["config"]["env"] == "probe-bandit"
    assert here["config"]["normalise_obs"] is True
    assert here["config"]["model"]["policy"] == there["config"]["model"]["policy"]
    assert here["obs_statistics"] == there["obs_statistics"]
    assert [member["seed"] for member in here["members"]] == [1, 0]
    assert files.read_json(RunDir(tuned).run_json)["dataset"] is None


def test_a_fine_tuning_is_scored_before_it_begins(tuned, with_replay):
    assert np.load(only_pack(tuned).eval)["step"].tolist() == [0, 2, 4]
    assert np.load(only_pack(with_replay).eval)["step"].tolist() == [2, 4]  # nothing was learned before


def test_units_that_the_networks_do_not_know_are_refused(config, cloned, tmp_path, capsys):
    argv = [*tune(config, cloned), "--config.normalise_obs=false", f"--workdir={tmp_path / 'new'}"]
    assert cli.main(argv) == 2
    assert "config.normalise_obs=False" in (error := capsys.readouterr().err)
    assert "trained with True; leave" in error
    assert not (tmp_path / "new").exists()


def test_the_rest_of_a_fine_tuning_starts_anew_and_learns(tuned):
    first, last = saved(tuned, 2).state, saved(tuned, 4).state
    assert list(last.step) == [4, 4]
    assert_same(first.params["policy"], last.params["policy"])
    biases = [state.params["value"]["params"]["Mlp_0"]["Dense_1"]["bias"] for state in (first, last)]
    assert (biases[0] != biases[1]).all()
    table = files.read_npz(only_pack(tuned).train)
    assert set(np.unique(table["alive"])) == {True}
    assert table["train_return"].shape == (2, 2)
    assert ((table["train_return"] >= 0.0) & (table["train_return"] <= 5.0)).all()


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., commands.Plan]:
    """Parses a command line up to the point where something would run."""
    plans: list[Any] = []
    monkeypatch.setattr(commands, "execute", lambda plan: plans.append(plan) or 0)

    def plan(argv: list[str]) -> commands.Plan:
        assert cli.main(argv) == 0
        return plans[-1]

    return plan


def test_an_explicit_flag_wins_over_what_is_taken_over(planned, config, cloned):
    flags = ["--config.model.policy.num_steps=1", "--config.env=probe-constant"]
    (pack,) = planned([*tune(config, cloned), *flags]).packs
    settings = pack.members[0].config
    assert settings["env"] == "probe-constant"
    assert settings["model"]["policy"]["num_steps"] == 1
    assert settings["model"]["policy"]["num_levels"] == 2
    assert settings["model"]["policy"]["hidden"] == (4,)


def relabelled(cloned: Path, folder: Path) -> Path:
    """A run like that one, in which the second member has another setting."""
    shutil.copytree(cloned, folder)
    pack = only_pack(folder)
    plan = files.read_json(pack.pack_json)
    plan["members"][1]["label"] = "diffusion_bc lr=1"
    files.write_json_atomic(pack.pack_json, plan)
    return folder


def refused(argv: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a request that is wrong and leaves nothing behind."""
    capsys.readouterr()
    assert cli.main([*argv, f"--workdir={folder}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxdiff: error: ")
    assert error.count("\n") == 1
    assert not folder.exists()
    return error


def test_one_of_several_settings_is_chosen_by_its_label(planned, config, cloned, tmp_path, capsys):
    several = relabelled(cloned, tmp_path / "several")
    argv = ["train", f"--config={config}:dppo", f"--config.init_from={several}", "--lanes=map"]
    error = refused(argv, tmp_path / "run", capsys)
    assert "several settings; choose with --config.init_setting=LABEL: diffusion_bc, diffusion_bc lr=1" in error
    error = refused([*argv, "--config.init_setting=lr=1"], tmp_path / "run", capsys)
    assert "init_setting='lr=1' is not in it" in error
    assert len(planned([*argv, "--config.init_setting=diffusion_bc lr=1"]).packs) == 1


def test_a_seed_that_the_run_does_not_have_is_refused(config, cloned, tmp_path, capsys):
    argv = ["train", f"--config={config}:dppo", f"--config.init_from={cloned}", "--config.seed=7", "--lanes=map"]
    error = refused(argv, tmp_path / "run", capsys)
    assert "has seeds [0, 1], and this study wants [7]" in error


def test_a_folder_without_a_run_is_refused(config, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    error = refused(tune(config, tmp_path / "empty"), tmp_path / "run", capsys)
    assert str(tmp_path / "empty") in error


def test_networks_of_another_shape_are_refused(config, cloned, bandit_data, tmp_path, capsys):
    error = refused([*tune(config, cloned), "--config.model.policy.hidden=(8,)"], tmp_path / "run", capsys)
    assert "network 'policy' has params/" in error
    assert "(4,) there and (8,) here; make the model's sizes those of that run" in error
    gaussian = ["train", f"--config={config}:td3_bc={bandit_data}", f"--config.init_from={cloned}", "--lanes=map"]
    assert "network 'policy' has params/" in refused(gaussian, tmp_path / "run", capsys)


def test_a_run_without_a_network_in_common_is_refused(planned, config, cloned):
    (pack,) = planned(tune(config, cloned)).packs
    settings = pack.members[0].config
    task = make_task(settings)
    check_networks(settings, task)

    def init(key: Any, hparams: Any) -> Any:
        state = task.algorithm.init(key, hparams)
        return state.replace(params={f"other_{name}": part for name, part in state.params.items()})  # type: ignore[attr-defined]

    other = dataclasses.replace(task, algorithm=task.algorithm._replace(init=init))
    with pytest.raises(ValueError, match="networks policy, and dppo has other_policy, other_value: none in common"):
        check_networks(settings, other)


def test_acting_and_learning_need_no_dataset(with_replay):
    assert files.read_json(RunDir(with_replay).run_json)["dataset"] is None
    lanes = saved(with_replay)
    assert list(lanes.experience.iteration) == [4]
    replay = lanes.experience.replay
    assert list(replay.size) == [8]
    reward = replay.transitions.reward[0, :8]
    assert set(np.unique(reward)) <= {0.0, 1.5, 3.0, 5.0}
    assert list(lanes.state.step) == [3]  # the first of the four iterations lives through a half of the warmup
    table = files.read_npz(only_pack(with_replay).train)
    assert list(table["step"]) == [2, 4]


def test_running_statistics_come_along_with_the_networks_that_were_trained_by_them(planned, config, with_replay):
    (pack,) = planned([*act_and_learn(config), f"--config.init_from={with_replay}", "--config.seed=3"]).packs
    task = make_task(pack.members[0].config)
    check_networks(pack.members[0].config, task)
    there, here = saved(with_replay).state, jax.tree.map(plain, fresh_lanes(task, pack.members, "map")).state
    assert float(there.opt_state["obs"].count[0]) == 3 * 8  # batches of eight in three updates
    assert_same(here.opt_state["obs"], there.opt_state["obs"])
    assert_same(here.params["critic"], there.params["critic"])
    assert list(here.step) == [0]
    adam = optax.tree.get(here.opt_state["algorithm"]["policy"], "count")
    assert list(adam) == [0]  # the optimisers start anew


def test_running_statistics_without_a_way_to_go_on_are_refused(config, with_replay, bandit_data, tmp_path, capsys):
    argv = ["train", f"--config={config}:diffusion_bc={bandit_data}", f"--config.init_from={with_replay}"]
    error = refused([*argv, "--lanes=map"], tmp_path / "run", capsys)
    assert "normalised by running statistics" in error
    argv = [*act_and_learn(config), f"--config.init_from={with_replay}", "--config.normalise_obs=false"]
    assert "leave --config.normalise_obs away" in refused(argv, tmp_path / "run", capsys)


@pytest.mark.parametrize("run", ["with_replay", "tuned"])
def test_a_run_that_was_cut_ends_with_the_same_bits(run, config, cloned, tmp_path, request):
    """Its last checkpoint is lost, so that it goes on from the one before: environments, buffer and all."""
    whole, folder = request.getfixturevalue(run), tmp_path / "cut"
    shutil.copytree(whole, folder)
    pack = only_pack(folder)
    shutil.rmtree(pack.checkpoints / "4")
    pack.done.unlink()
    argv = act_and_learn(config) if run == "with_replay" else [*tune(config, cloned), "--config.hparams.lr=0.0"]
    assert cli.main([*argv, f"--workdir={folder}"]) == 0
    assert_same(saved(folder), saved(whole))
    assert len(jax.tree.leaves(saved(folder).experience)) > 3
    for name in ("train", "eval", "rollouts"):
        there, here = (files.read_npz(getattr(only_pack(where), name)) for where in (whole, folder))
        assert there.keys() == here.keys()
        for column in there.keys() - {"wall_seconds"}:
            np.testing.assert_array_equal(there[column], here[column], err_msg=f"{name}: {column}")


@pytest.mark.parametrize("run", ["with_replay", "tuned"])
def test_saved_policies_of_online_runs_act_as_they_did_in_training(run, monkeypatch, request):
    folder = request.getfixturevalue(run)
    monkeypatch.setattr(evaluate, "FIRST_INDEX", 4)  # the keys of training's last evaluation
    out = folder / "evals" / "again.json"
    assert evaluate.main([str(folder), "--episodes=4", f"--out={out}"]) == 0
    (found,) = files.read_json(out)["packs"]
    np.testing.assert_array_equal(np.float32(found["returns"]), files.read_npz(only_pack(folder).eval)["returns"][-1])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["diffusion_ql=DATA", "--config.online.num_envs=2"], "has no use while config.online.num_envs=2"),
        (["diffusion_ql="], "config.dataset is empty; give a file or a name, or act online"),
        (["dppo=DATA", "--config.env=probe-bandit", "--config.online.num_envs=0"], "dppo learns from its own rollouts"),
        (["dppo=", "--config.env=gymnasium-Hopper-v5"], "needs an environment on the device"),
        (["dppo=", "--config.env=probe-bandit", "--config.online.rollout_length=0"], "online.rollout_length=0"),
        (
            ["diffusion_ql=", "--config.online.num_envs=2", "--config.action_chunk=2"],
            "set history=1 and action_chunk=1",
        ),
        (["diffusion_ql=", "--config.online.num_envs=2", "--config.online.warmup=-1"], "online.warmup=-1"),
    ],
)
def test_what_cannot_be_trained_online_or_offline_is_refused(config, bandit_data, tmp_path, capsys, argv, message):
    what = argv[0].replace("DATA", str(bandit_data))
    line = ["train", f"--config={config}:{what}", *argv[1:], "--lanes=map"]
    assert message in refused(line, tmp_path / "run", capsys)
