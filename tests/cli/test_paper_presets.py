"""Presets of diffusion_ql and edp: what a name sets, and what an unknown one is told."""

import runpy

import pytest

from jaxdiff.algorithms import diffusion_ql, edp
from jaxdiff.cli import config as configs
from jaxdiff.cli import config_files
from jaxdiff.cli.settings import make_settings


def both(name):
    config = configs.load(name)
    return config, *make_settings(config.to_dict())


@pytest.mark.parametrize(
    ("task", "lr", "q_weight", "max_q", "transform", "updates", "norm", "episodes"),
    [
        ("hopper-medium", 3e-4, 1.0, False, "none", 2_000_000, 9.0, 10),
        ("walker2d-medium-expert", 3e-4, 1.0, False, "none", 2_000_000, 5.0, 10),
        ("antmaze-medium-play", 1e-3, 2.0, True, "cql_antmaze", 1_000_000, 2.0, 100),
        ("antmaze-umaze", 3e-4, 0.5, False, "cql_antmaze", 1_000_000, 2.0, 100),
        ("pen-cloned", 3e-5, 0.1, False, "normalize", 1_000_000, 8.0, 100),
        ("kitchen-complete", 3e-4, 0.005, False, "none", 250_000, 9.0, 100),
    ],
)
def test_a_task_of_the_paper_has_its_row(task, lr, q_weight, max_q, transform, updates, norm, episodes):
    config, model, hparams = both(f"diffusion_ql:paper-{task}")
    assert (hparams.lr, hparams.q_weight, hparams.max_grad_norm, hparams.critic_lr) == (lr, q_weight, norm, 3e-4)
    assert (model.max_q_backup, model.num_backup_candidates) == (max_q, 10)
    assert (config.reward_transform, config.num_updates, config.eval_episodes) == (transform, updates, episodes)
    assert (model.policy.bias, model.critic_bias) == ("torch", "torch")


def test_paper_without_a_task_is_the_algorithms_own_defaults_with_torch_biases():
    config, model, hparams = both("diffusion_ql:paper")
    assert hparams == diffusion_ql.HParams()
    assert (model.policy.bias, model.critic_bias) == ("torch", "torch")
    assert config.reward_transform == "none"
    assert both("diffusion_ql")[1].policy.bias == "zeros"


def test_every_task_of_the_paper_makes_settings():
    for task in runpy.run_path(str(config_files.shipped()["diffusion_ql"]))["TASKS"]:
        both(f"diffusion_ql:paper-{task}")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("diffusion_ql:paper-hoper-medium", "unknown preset of diffusion_ql .*did you mean 'paper-hopper-medium'"),
        ("diffusion_ql:papr", "did you mean 'paper'"),
        ("edp:paper-sac", "unknown preset of edp 'paper-sac'; .*paper-crr"),
    ],
)
def test_an_unknown_preset_is_answered_with_the_nearest(name, match):
    with pytest.raises(KeyError, match=match):
        configs.load(name)


@pytest.mark.parametrize(
    ("preset", "guide", "temperature", "q_weight"),
    [
        ("paper", "td3", 3.0, 1.0),
        ("paper-iql", "iql", 3.0, 1.0),
        ("paper-crr", "crr", 1.0, 1.0),
        ("code", "td3", 3.0, 2.0),
        ("code-crr", "crr", 1.0, 1.0),
        ("default-iql", "iql", 3.0, 1.0),
    ],
)
def test_presets_of_edp_name_a_guide(preset, guide, temperature, q_weight):
    _, model, hparams = both(f"edp:{preset}")
    assert (model.guide, hparams.awr_temperature, hparams.q_weight) == (guide, temperature, q_weight)


def test_paper_and_code_of_edp_differ_as_their_table_says():
    (_, paper, _), (_, code, code_hparams) = both("edp:paper"), both("edp:code")
    assert paper == edp.Config()
    assert (code.policy.num_levels, code.policy.num_steps, code.policy.sampler) == (100, 100, "ddpm")
    assert (code.policy.t_end, code.num_candidates, code.value_actions) == (0.0, 50, "gaussian")
    assert (code_hparams.q_weight, code_hparams.max_grad_norm) == (2.0, 9.0)


@pytest.mark.parametrize(
    ("name", "decay_steps"),
    [
        ("diffusion_ql:paper-hopper-medium", 0.0),  # the code calls its schedule every 50,000 updates: 0.999 at the end
        ("edp:paper", 0.0),
        ("edp:code", 0.0),
        ("idql:paper", 3e6),
        ("iql:paper", 1e6),
    ],
)
def test_rates_of_the_papers_decay_over_the_whole_run_or_not_at_all(name, decay_steps):
    config, _, hparams = both(name)
    assert hparams.lr_decay_steps == decay_steps
    assert decay_steps in (0.0, config.num_updates)


@pytest.mark.parametrize("name", ["diffusion_ql", "edp", "idql", "iql", "qgpo", "fql", "consistency_ac"])
def test_papers_train_on_raw_observations_and_the_defaults_on_normalised_ones(name):
    assert not configs.load(f"{name}:paper").normalise_obs
    assert configs.load(name).normalise_obs
