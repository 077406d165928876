"""`config.env_options`: what reaches the factory, what is refused, and that a saved run keeps it."""

import numpy as np
import pytest

from jaxdiff import envs
from jaxdiff.cli import evaluate, pretrained
from jaxdiff.cli import run as commands
from jaxdiff.cli.env_options import parse
from jaxdiff.cli.overrides import from_json
from jaxdiff.cli.restore import check_task_options, parse_settings
from jaxdiff.cli.settings import base_config, in_env
from jaxdiff.cli.task import make_env
from jaxdiff.envs.probes import recall_episodes
from jaxdiff.io import files
from jaxdiff.io.runs import load_run


def config_of(env, options="", **changes):
    return {**base_config("bc").to_dict(), "env": env, "env_options": options, **changes}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        (" ", {}),
        ("num_agents=4, grid_size=12", {"num_agents": 4, "grid_size": 12}),
        ("matrix=[[8,-12],[-12,0]],x=(1,)", {"matrix": [[8, -12], [-12, 0]], "x": (1,)}),
        ("root=False,fov=None,radius=1e-1", {"root": False, "fov": None, "radius": 0.1}),
        ("matrix=monotone,path=a/b.csv", {"matrix": "monotone", "path": "a/b.csv"}),
        ("matrix='1,2=3'", {"matrix": "1,2=3"}),
    ],
)
def test_values_are_literals_or_plain_strings(text, options):
    assert parse(text) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_agents", "'num_agents' has no '='"),
        ("a=1,**b", r"'\*\*b' has no '='"),
        ("num_agents=4,num_agents=5", "gives 'num_agents' twice"),
        ("num_agents=", "is not KEY=VALUE"),
        ("matrix=[[1,2]", "is not KEY=VALUE"),
        ("a=1)(b=2", "closes a bracket"),
        ("a=1)+f(b=2", "closes a bracket"),
        ("force_coop=false", "force_coop=false would be a text; write False"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_nothing_is_evaluated():
    assert parse("matrix=__import__('os').mkdir('x')") == {"matrix": "__import__('os').mkdir('x')"}


@pytest.mark.parametrize(
    ("env", "text", "options"),
    [
        ("game-landmarks", "num_agents=4,radius=0.1", {"num_agents": 4, "radius": 0.1}),
        ("game-payoff", "matrix=[[1,0],[0,2]]", {"matrix": [[1, 0], [0, 2]]}),
        ("probe-recall", "delay=5", {"delay": 5}),
        ("mpe-spread", "max_episode_steps=9", {"max_episode_steps": 9}),
        ("vec", "max_episode_steps=9", {"max_episode_steps": 9}),
    ],
)
def test_the_factory_gets_them(env, text, options):
    found, wanted = make_env(config_of(env, text)), envs.make(env, **options)
    assert found.spec == wanted.spec != envs.make(env).spec
    assert found.facts == wanted.facts


def test_a_maze_of_ones_own_takes_them_too():
    config = config_of("pointmaze-custom", "max_episode_steps=7", maze=r"#####\#GOO#\#####")
    assert make_env(config).spec.max_episode_steps == 7


def test_a_config_from_before_has_none():
    older = config_of("probe-recall")
    del older["env_options"]
    assert make_env(older).spec == envs.make("probe-recall").spec


@pytest.mark.parametrize(
    ("env", "text", "message"),
    [
        ("mpe-tag", "speed_scale=2", r"'speed_scale' of mpe-tag is config\.mpe\.speed_scale; set it there"),
        ("vec", "num_clients=2", r"is config\.vec\.num_clients"),
        ("brax-hopper", "backend=mjx", r"is config\.env_backend"),
        ("pointmaze-custom", "maze='#'", r"is config\.maze"),
        ("probe-recall", "dely=1", r"config\.env_options='dely=1': probe-recall has no option 'dely'; known: delay"),
        ("game-landmarks", "num_agents=1", r"env_options='num_agents=1': num_agents=1 must be at least 2"),
        ("game-landmarks", "num_agents=four", r"env_options='num_agents=four': .*'str'"),
        ("game-payoff", "matrix=monotne", r"env_options='matrix=monotne': unknown .*did you mean 'monotone'"),
        ("gymnasium-Hopper-v5", "x=1", r"none is read by config\.env=gymnasium-Hopper-v5"),
    ],
)
def test_what_the_task_cannot_take_is_refused(env, text, message):
    with pytest.raises(ValueError, match=message):
        make_env(config_of(env, text, maze=r"#####\#GOO#\#####" if env == "pointmaze-custom" else ""))


def test_an_unknown_environment_is_named_as_such():
    with pytest.raises(KeyError, match="unknown environment 'probe-recal'; did you mean 'probe-recall'"):
        make_env(config_of("probe-recal", "delay=5"))


def test_options_stay_with_their_environment(monkeypatch):
    there = config_of("probe-recall", "delay=5")
    assert in_env(there, "probe-recall")["env_options"] == "delay=5"
    assert in_env(there, "probe-bandit")["env_options"] == ""
    monkeypatch.setattr(pretrained, "plans_of", lambda config: [{"config": there}])
    here = from_json(config_of("probe-bandit"))
    assert pretrained.inherit(here, {}).env_options == "delay=5"
    assert pretrained.inherit(here, {"env": "probe-bandit"}).env_options == ""
    assert pretrained.inherit(here, {"env_options": ""}).env_options == ""


def test_eval_may_change_options_that_leave_the_sizes():
    there = config_of("game-landmarks", "num_agents=4")
    assert parse_settings([there], ["env_options=num_agents=4,radius=0.1"]) == {
        "env_options": "num_agents=4,radius=0.1"
    }
    check_task_options(there, {**there, "env_options": "num_agents=4,radius=0.1"})
    message = "trained in game-landmarks-4 with 4 agents, 8 numbers seen and 2 done, and game-landmarks would have 3"
    with pytest.raises(ValueError, match=message):
        check_task_options(there, {**there, "env_options": ""})


def test_eval_may_not_change_who_is_on_the_road_even_where_training_was_offline():
    there = config_of("vec", "")
    check_task_options(there, {**there, "vec": {**there["vec"], "v": 50.0}})
    with pytest.raises(ValueError, match="trained in vec with 5 agents, .* who is there and what can be done"):
        check_task_options(there, {**there, "vec": {**there["vec"], "num_clients": 4}})


def test_a_saved_run_acts_in_the_task_it_was_trained_in(tmp_path, compiled_once):
    """Episodes of probe-recall are one step longer than its delay."""
    data, folder = tmp_path / "recall.npz", tmp_path / "run"
    np.savez(data, **recall_episodes(0, num_episodes=4, delay=5))
    settings = [
        *("env=probe-recall", "env_options=delay=5", f"dataset={data}", "normalise_obs=False", "batch_size=8"),
        *("num_updates=2", "eval_interval=2", "checkpoint_interval=2", "eval_episodes=4", "record_episodes=0"),
    ]
    flags = [f"--config.{text}" for text in settings]
    assert commands.train(["--config=bc", *flags, f"--workdir={folder}", "--lanes=vmap"]) == 0
    assert (load_run(folder).packs[0].eval["lengths"] == 6).all()
    for given, length in (([], 6), (["--set=env_options=delay=2"], 3)):
        out = tmp_path / f"{length}.json"
        assert evaluate.main([str(folder), "--episodes=4", f"--out={out}", *given]) == 0
        assert files.read_json(out)["packs"][0]["lengths"] == [[length] * 4]
    with pytest.raises(ValueError, match=r"env_options='dely=2': probe-recall has no option 'dely'"):
        evaluate.main([str(folder), "--set=env_options=dely=2"])
