"""Presets for teams: rows of OMAR's table, lengths of the planners' training, and what an unknown name is told."""

import runpy

import pytest

from jaxdiff import envs
from jaxdiff.algorithms import dom2, omar
from jaxdiff.cli import config as configs
from jaxdiff.cli import config_files
from jaxdiff.cli.settings import make_settings
from jaxdiff.data import catalog
from jaxdiff.multi import METHODS


def both(name):
    config = configs.load(name)
    return config, *make_settings(config.to_dict())


def omar_tasks():
    return runpy.run_path(str(config_files.shipped()["omar"]))["TASKS"]


@pytest.mark.parametrize(
    ("task", "omar_weight", "cql_weight", "updates", "batch_size"),
    [
        ("spread-random", 1.0, 0.5, 6000, 1024),
        ("tag-medium", 0.7, 5.0, 2000, 1024),
        ("tag-medium-replay", 0.9, 0.5, 1000, 1024),
        ("world-medium", 0.1, 0.5, 1000, 1024),
        ("halfcheetah-expert", 0.5, 5.0, 100_000, 256),
    ],
)
def test_a_dataset_of_omar_has_its_row(task, omar_weight, cql_weight, updates, batch_size):
    config, _, hparams = both(f"omar:paper-{task}")
    assert (hparams.omar_weight, hparams.cql_weight) == (omar_weight, cql_weight)
    assert (config.num_updates, config.batch_size) == (updates, batch_size)


def test_the_two_kinds_of_tasks_have_their_networks_and_searches():
    (config, particles, rates), (_, cheetah, slow) = (
        both("omar:paper-world-expert"),
        both("omar:paper-halfcheetah-random"),
    )
    assert (config.env, config.dataset, config.normalise_obs) == ("mpe-world", "mpe-world-expert", True)
    assert particles == omar.Config()
    assert (rates.lr, rates.discount_factor, rates.polyak, rates.max_grad_norm) == (0.01, 0.95, 0.01, 0.5)
    assert (cheetah.actor_hidden, cheetah.critic_hidden) == ((256, 256), (256, 256))
    assert (cheetah.cql_policy_samples, cheetah.cem_rounds, cheetah.cem_samples, cheetah.cem_elites) == (10, 2, 20, 5)
    assert (slow.lr, slow.critic_lr, slow.discount_factor, slow.polyak) == (3e-4, 3e-4, 0.99, 0.005)


def test_ma_cql_is_omar_without_the_search():
    (_, with_search, hparams), (_, without, same) = both("omar:paper-tag-expert"), both("omar:macql-tag-expert")
    assert (with_search.cem_rounds, without.cem_rounds) == (3, 0)
    assert hparams == same


def test_dom2_takes_the_penaltys_weight_and_the_task_from_omar():
    config, model, hparams = both("dom2:reconstructed-spread-medium-replay")
    assert (config.env, config.dataset, hparams.cql_weight) == ("mpe-spread", "mpe-spread-replay", 1.0)
    assert model == dom2.Config()
    assert (model.policy.sampler, model.policy.num_steps, model.policy.beta_max) == ("dpm_solver_1", 5, 20.0)
    assert both("dom2:reconstructed-halfcheetah-medium")[2].discount_factor == 0.99


def test_dom2_draws_by_returns_where_its_data_have_omars_and_by_quantiles_elsewhere():
    quantiles = ("q0.5", "q0.75", "q0.875", "q0.875")  # a half, three quarters, and seven eighths twice
    drawn = {
        "spread-expert": tuple(range(525, 626, 25)),
        "spread-medium": tuple(range(200, 551, 50)),
        "spread-medium-replay": quantiles,
        "tag-medium-replay": quantiles,
        "world-medium-replay": quantiles,
        "world-medium": quantiles,
    }
    for task in omar_tasks():
        assert configs.load(f"dom2:reconstructed-{task}").reweight == drawn.get(task, ()), task
    assert configs.load("dom2:reconstructed-spread-expert", [("reweight", "()")]).reweight == ()
    assert configs.load("dom2").reweight == ()


@pytest.mark.parametrize(("name", "n_train_steps"), [("madiff", 1_000_000), ("dof_planner", 100_000)])
def test_planners_step_adam_as_often_as_the_released_code_on_as_many_examples(name, n_train_steps):
    config, _, hparams = both(f"{name}:code")
    gradient_accumulate_every, batch_size = 2, 32  # of both; their means are averaged before the one step
    assert config.num_updates == n_train_steps
    assert config.batch_size == gradient_accumulate_every * batch_size
    assert (hparams.lr, hparams.ema_start) == (2e-4, 2000.0)


@pytest.mark.parametrize("name", ["omar", "dom2"])
def test_every_task_makes_settings(name):
    for task in omar_tasks():
        both(f"{name}:{'paper' if name == 'omar' else 'reconstructed'}-{task}")


@pytest.mark.parametrize("name", ["dom2", "omar", *METHODS])
def test_every_preset_s_task_is_there_and_its_data_can_be_made(name):
    module = runpy.run_path(str(config_files.shipped()[name]))
    for preset in module["PRESETS"]:
        config = module["get_config"](preset)
        assert config.env in envs.ENVS, preset
        assert not config.dataset or config.dataset in catalog.GENERATED, preset


@pytest.mark.parametrize(("name", "near"), [("omar:paper-spread-medum", "paper-spread-medium"), ("dom2:paper", "")])
def test_an_unknown_preset_is_answered_with_the_nearest(name, near):
    with pytest.raises(KeyError, match=f"unknown preset of {name.partition(':')[0]} .*{near}"):
        configs.load(name)
