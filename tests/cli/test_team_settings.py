"""Settings of tasks with agents: which wrapper, what is refused, and the particle tasks' options."""

import dataclasses

import pytest

from jaxdiff.cli.restore import parse_settings
from jaxdiff.cli.settings import base_config, with_algorithm
from jaxdiff.cli.task import make_algorithm, make_env
from jaxdiff.types import Spec

SPEC = Spec("team", obs_dim=3, action_dim=2, max_episode_steps=8, num_agents=2)
ALONE = dataclasses.replace(SPEC, name="alone", num_agents=None)


def config_of(algorithm, **changes):
    return {**base_config(algorithm).to_dict(), **changes}


def algorithm_of(config, spec=SPEC):
    return make_algorithm(config, spec, None)


def test_methods_of_one_agent_are_wrapped_and_those_for_teams_are_not():
    assert config_of("bc")["agents"] == "independent"
    assert config_of("dof_policy")["agents"] == ""
    for config in (config_of("bc"), config_of("bc", agents="shared"), config_of("bc", agents="joint"),
                   config_of("dof_policy")):  # fmt: skip
        algorithm_of(config)
    algorithm_of(config_of("bc"), ALONE)


def test_another_method_in_a_study_brings_its_own_kind_of_agents():
    shared = config_of("bc", agents="shared")
    assert with_algorithm(shared, "td3_bc")["agents"] == "shared"
    assert with_algorithm(shared, "dof_policy")["agents"] == ""
    assert with_algorithm(config_of("dof_policy"), "bc")["agents"] == "independent"


@pytest.mark.parametrize(
    ("config", "spec", "error", "message"),
    [
        (config_of("dof_policy", agents="joint"), SPEC, ValueError,
         r"^config\.agents='joint'; dof_policy is made .* leave it ''\. Set config\.model\.execution=centralised to"),
        (config_of("dof_policy", shared_noise=True), SPEC, ValueError,
         r"^config\.shared_noise=True is for wrapped .* leave it False\. Set config\.model\.shared_noise=True to let"),
        (config_of("mac_flow", agents="joint"), SPEC, ValueError, r"no wrapper: leave it ''\.$"),
        (config_of("dof_policy", history=2), SPEC, ValueError, "config.history=2 and action_chunk=1; dof_policy"),
        (config_of("dof_policy"), ALONE, ValueError, "dof_policy is made for agents, and alone has none"),
        (config_of("bc", agents="sharde"), SPEC, KeyError, "unknown agents 'sharde'; did you mean 'shared'"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(config, spec, error, message):
    with pytest.raises(error, match=message):
        algorithm_of(config, spec)


def test_particle_tasks_are_made_with_their_options():
    config = config_of("bc", env="mpe-tag")
    usual, slow = make_env(config), make_env({**config, "mpe": {**config["mpe"], "speed_scale": 0.5}})
    assert slow.facts["max_speed"][:3] == [0.5 * speed for speed in usual.facts["max_speed"][:3]]
    with pytest.raises(FileNotFoundError, match=r"config\.mpe\.prey, which takes 'scripted'.*-prey: 'nothing\.pt'"):
        make_env({**config, "mpe": {**config["mpe"], "prey": "nothing.pt"}})
    with pytest.raises(ValueError, match="speed_scale=-1.0 must be positive"):
        make_env({**config, "mpe": {**config["mpe"], "speed_scale": -1.0}})


def test_eval_may_shift_the_physics_and_share_the_noise_and_nothing_else_of_the_task():
    configs = [config_of("bc", env="mpe-tag")]
    assert parse_settings(configs, ["mpe.speed_scale=0.5", "shared_noise=True"]) == {
        "mpe.speed_scale": 0.5,
        "shared_noise": True,
    }
    known = r"model\.\*, hparams\.\*, mpe\.\*, vec\.\*, shared_noise, env_options"
    with pytest.raises(ValueError, match=f"--set takes {known}, got 'agents'"):
        parse_settings(configs, ["agents=joint"])
