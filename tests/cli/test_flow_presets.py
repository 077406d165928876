"""Presets of fql, fbrac and consistency_ac: what a name sets, and what an unknown one is told."""

import runpy
from typing import Any

import pytest

from jaxdiff.algorithms import consistency_ac, fql
from jaxdiff.cli import config as configs
from jaxdiff.cli import config_files
from jaxdiff.cli.settings import make_settings


def both(name: str) -> tuple[Any, Any, Any]:
    config = configs.load(name)
    return config, *make_settings(config.to_dict())


@pytest.mark.parametrize(
    ("family", "bc_weight", "aggregate", "discount_factor", "updates", "transform"),
    [
        ("antmaze", 10.0, "mean", 0.99, 500_000, "iql_antmaze"),
        ("antmaze-large", 3.0, "mean", 0.99, 500_000, "iql_antmaze"),
        ("pen", 1e4, "min", 0.99, 500_000, "none"),
        ("hammer-cloned", 1e4, "min", 0.99, 500_000, "none"),
        ("ogbench-antmaze-giant", 10.0, "min", 0.995, 1_000_000, "none"),
        ("ogbench-humanoidmaze", 30.0, "mean", 0.995, 1_000_000, "none"),
        ("ogbench-puzzle", 1000.0, "mean", 0.99, 1_000_000, "none"),
    ],
)
def test_a_family_of_fql_has_its_published_numbers(family, bc_weight, aggregate, discount_factor, updates, transform):
    config, model, hparams = both(f"fql:paper-{family}")
    assert (hparams.bc_weight, hparams.discount_factor, model.aggregate) == (bc_weight, discount_factor, aggregate)
    assert (config.num_updates, config.reward_transform) == (updates, transform)
    assert model.policy == fql.Config().policy


@pytest.mark.parametrize(
    ("task", "q_weight", "calls", "normalised", "weight", "max_q", "norm", "transform", "updates"),
    [
        ("hopper-medium", 0.1, 2, False, "none", False, 9.0, "none", 2_000_000),
        ("walker2d-medium", 1.0, 5, True, "none", False, 1.0, "none", 2_000_000),
        ("antmaze-medium-play", 0.01, 2, False, "step", True, 2.0, "cql_antmaze", 1_000_000),
        ("pen-cloned", 0.01, 2, True, "step", False, 8.0, "normalize", 500_000),
    ],
)
def test_a_task_of_consistency_ac_has_its_row(
    task, q_weight, calls, normalised, weight, max_q, norm, transform, updates
):
    config, model, hparams = both(f"consistency_ac:paper-{task}")
    assert (hparams.q_weight, hparams.max_grad_norm) == (q_weight, norm)
    assert (model.policy.num_steps, model.normalise_target, model.pair_weight) == (calls, normalised, weight)
    assert (model.max_q_backup, model.policy.bias, model.critic_bias) == (max_q, "torch", "torch")
    assert (config.reward_transform, config.num_updates) == (transform, updates)
    _, code, code_hparams = both(f"consistency_ac:code-{task}")
    assert (code.pair_weight, code_hparams) == ("step", hparams)


def test_paper_without_a_task_is_the_algorithms_own_defaults():
    assert both("fql:paper")[1:] == (fql.Config(), fql.HParams())
    assert both("consistency_ac:paper")[2] == consistency_ac.HParams()


def test_every_family_and_task_makes_settings():
    for name, table in (("fql", "FAMILIES"), ("consistency_ac", "TASKS")):
        for key in runpy.run_path(str(config_files.shipped()[name]))[table]:
            both(f"{name}:paper-{key}")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("fql:paper-antmze", "unknown preset of fql .*did you mean 'paper-antmaze'"),
        ("fbrac:papr", "unknown preset of fbrac .*did you mean 'paper'"),
        ("consistency_ac:code-hoper-medium", "did you mean 'code-hopper-medium'"),
    ],
)
def test_an_unknown_preset_is_answered_with_the_nearest(name, match):
    with pytest.raises(KeyError, match=match):
        configs.load(name)
