"""The planners' presets against the published numbers, written out here as the papers and their code give them."""

import pytest

from jaxdiff import envs
from jaxdiff.cli import config as configs
from jaxdiff.cli.task import make_algorithm

# Janner et al. 2022, released configs: horizon, noise levels, resolutions, action weight, updates.
DIFFUSER = {
    "umaze": (128, 64, (1, 4, 8), 1.0, 2_000_000),
    "medium": (256, 256, (1, 4, 8), 1.0, 2_000_000),
    "large": (384, 256, (1, 4, 8), 1.0, 2_000_000),
    "gym": (32, 20, (1, 2, 4, 8), 10.0, 1_000_000),
    "halfcheetah": (4, 20, (1, 4, 8), 10.0, 1_000_000),
}
# Ajay et al. 2023: noise levels, history, hidden units of the inverse dynamics, updates.
DECISION_DIFFUSER = {"paper": (100, 20, (512, 512), 2_000_000), "code": (200, 1, (256, 256), 1_000_000)}


@pytest.mark.parametrize("preset", DIFFUSER)
def test_diffuser_presets_hold_the_released_numbers(preset):
    config = configs.load(f"diffuser:{preset}")
    planner = config.model.planner
    found = (planner.horizon, planner.num_levels, planner.mults, config.hparams.action_weight, config.num_updates)
    assert found == DIFFUSER[preset]
    assert (planner.num_steps, planner.width, planner.kernel_size, planner.kind) == (planner.num_levels, 32, 5, "x0")
    assert (config.batch_size, config.hparams.lr, config.hparams.ema_start) == (64, 2e-4, 2000.0)
    assert planner.attention == (preset == "halfcheetah")
    in_maze = preset in ("umaze", "medium", "large")
    assert planner.clip == in_maze
    assert config.model.normaliser == ("limits" if in_maze else "gaussian")
    assert config.model.act.search.num_candidates == (1 if in_maze else 64)


@pytest.mark.parametrize("preset", DECISION_DIFFUSER)
def test_decision_diffuser_presets_hold_the_published_numbers(preset):
    config = configs.load(f"decision_diffuser:{preset}")
    planner = config.model.planner
    found = (planner.num_levels, config.model.history, config.model.inverse_hidden, config.num_updates)
    assert found == DECISION_DIFFUSER[preset]
    assert (planner.width, planner.mults, planner.horizon, planner.kind) == (128, (1, 4, 8), 100, "eps")
    assert (config.hparams.guidance_scale, config.hparams.act_temperature) == (1.2, 0.5)
    assert (config.hparams.condition_dropout, config.hparams.target_return) == (0.25, 0.9)


@pytest.mark.parametrize(
    "name",
    [
        *(f"diffuser:{preset}" for preset in ("default", "umaze", "medium", "large")),
        *(f"decision_diffuser:{preset}" for preset in ("default", "rooms")),
    ],
)
def test_presets_of_tasks_that_run_here_make_an_algorithm(name):
    config = configs.load(name).to_dict()
    algorithm = make_algorithm(config, envs.make(config["env"]).spec, None)
    assert algorithm.window.horizon == config["model"]["planner"]["horizon"]


@pytest.mark.parametrize("name", ["diffuser:hopper", "decision_diffuser:gym"])
def test_an_unknown_preset_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match="unknown preset .* known: default, "):
        configs.load(name)
