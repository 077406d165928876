"""Planners: what training sees, what plans keep, how they are searched and followed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import diffusion
from jaxdiff.algorithms import decision_diffuser, diffuser
from jaxdiff.algorithms.acting import ActConfig, Memory, Proposal, follow, goal_of, make_acting
from jaxdiff.algorithms.conditions import Wishes, make_conditions
from jaxdiff.algorithms.planner import Known, PlannerConfig, Team, make_planner, patched
from jaxdiff.algorithms.process import make_process
from jaxdiff.algorithms.search import SearchConfig, check_search, search
from jaxdiff.algorithms.trajectories import (
    average_rate,
    blank_statistics,
    make_value,
    present_known,
    return_scale,
    with_goal,
    with_statistics,
)
from jaxdiff.data import Segments
from jaxdiff.networks import AGENT_TRAJECTORY_NETWORKS, TRAJECTORY_NETWORKS
from jaxdiff.types import Region, Spec

SPEC = Spec("maze", obs_dim=4, action_dim=2, max_episode_steps=20, goal=(3.0, 1.0, 0.0, 0.0))
TINY = PlannerConfig("transformer", width=8, depth=1, horizon=4, num_levels=8, num_steps=5)
T_END = {"pf_euler": 0.01}  # no step to clean data


def test_known_entries_of_a_plan_are_exactly_as_given_by_every_solver():
    """Those with inner stages and those with noise among them, side by side in one program; the rest is drawn."""
    planner = make_planner(TINY, 3)
    names = list(diffusion.SOLVERS)
    tables = diffusion.stack(
        [diffusion.make_table(name, planner.process.schedule, 5, t_end=T_END.get(name, 0.0)) for name in names]
    )
    mask = jnp.zeros((4, 3), bool).at[0, 1:].set(True).at[3].set(True)
    known = Known(mask, jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)), jnp.float32))

    def draw(key, table):
        def denoise(x, level):
            return 0.5 * jnp.tanh(x + x[..., ::-1, :])  # every entry moves every other

        return planner.draw(key, denoise, known, (2,), table=table).x

    several = jax.jit(jax.vmap(draw, in_axes=(None, 0)))
    plans, others = (np.asarray(several(jax.random.key(k), tables)) for k in (0, 1))
    wanted = np.asarray(known.values)[:, mask]
    for name, plan, other in zip(names, plans, others, strict=True):
        np.testing.assert_array_equal(plan[:, mask], wanted, err_msg=name)
        assert np.isfinite(plan).all(), name
        assert (plan[:, ~mask] != other[:, ~mask]).all(), name


def test_what_is_known_is_shown_to_the_network_and_costs_nothing():
    planner = make_planner(TINY, 3)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(planner.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    x0 = jnp.asarray(rng.normal(size=(2, 4, 3)), jnp.float32)
    mask = jnp.zeros((4, 3), bool).at[0].set(True)
    everything = Known(jnp.ones((4, 3), bool), x0)
    loss = jax.jit(planner.loss)
    weight = jnp.ones((4, 3))
    assert (loss(jax.random.key(1), params, x0, None, everything, weight) == 0.0).all()
    before = loss(jax.random.key(1), params, x0, None, Known(mask, x0), weight)
    shown = loss(jax.random.key(1), params, x0, None, Known(mask, x0 + 1.0), weight)
    assert (before != shown).all()  # the network read another first token
    doubled = loss(jax.random.key(1), params, x0, None, Known(mask, x0), 2.0 * weight)
    np.testing.assert_allclose(doubled, 2.0 * before, rtol=1e-6)


@pytest.mark.parametrize("team", [None, Team(2, attention=True)])
def test_steps_that_are_given_are_told_to_be_clean(team):
    """One agent's first and last step, of a team the first of agent 1: with a noise input below the least noisy one."""
    config = dataclasses.replace(TINY, tell_known=True, network="agent_transformer" if team else TINY.network)
    planner, blind = (make_planner(c, 4, team=team) for c in (config, dataclasses.replace(config, tell_known=False)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
        jax.eval_shape(planner.init, jax.random.key(0)),
    )
    x = jnp.asarray(rng.normal(size=(3, 4, 4)), jnp.float32)
    level = diffusion.level_at(planner.process.schedule, jnp.asarray(0.5))  # step 4 of 8, noise input 3
    steps = np.full((3, 4, 2) if team else (3, 4), 3.0)
    if team:
        mask, steps[:, 0, 1] = jnp.zeros((4, 4), bool).at[0, 1:].set(True), -1.0  # of agent 0 half is known: noisy
    else:
        mask, steps[:, [0, 3]] = jnp.zeros((4, 4), bool).at[jnp.asarray([0, 3])].set(True), -1.0
    registry = AGENT_TRAJECTORY_NETWORKS if team else TRAJECTORY_NETWORKS
    sizes = {name: getattr(config, name) for name in ("width", "mults", "depth", "kernel_size", "attention")}
    network = registry[config.network](out=2 if team else 4, **({"agent_attention": True} if team else {}), **sizes)
    wanted = network.apply(params, x.reshape(3, 4, 2, 2) if team else x, jnp.asarray(steps), None).reshape(x.shape)
    known = Known(mask, x)
    np.testing.assert_allclose(planner.bind(params, known)(x, level, None), wanted, rtol=1e-5, atol=1e-6)
    noisy = blind.bind(params, known)(x, level, None)
    np.testing.assert_array_equal(noisy, blind.bind(params, None)(x, level, None))
    assert (np.abs(noisy - wanted) > 1e-3).any()


@pytest.mark.parametrize("field", ["token_levels", "tell_known"])
def test_a_level_per_step_needs_tokens_of_one_step(field):
    with pytest.raises(ValueError, match=f"{field}=True and patch=2; a level per step needs patch=1"):
        make_planner(dataclasses.replace(TINY, patch=2, **{field: True}), 3)


def test_first_action_weighs_what_the_paper_says_and_the_rest_decays_to_mean_one():
    hparams = diffuser.HParams(action_weight=10.0, loss_discount=0.9)
    weight = np.asarray(diffuser.entry_weights(hparams, 5, 6, 2))
    along = 0.9 ** np.arange(5) / np.mean(0.9 ** np.arange(5))
    np.testing.assert_allclose(weight[0, :2], 10.0)
    np.testing.assert_allclose(weight[0, 2:], along[0], rtol=1e-6)
    np.testing.assert_allclose(weight[1:], np.tile(along[1:, None], 6), rtol=1e-6)


@pytest.mark.parametrize(("step", "wanted"), [(0, 1.0), (1999, 1.0), (2000, 0.005), (2001, 0.0), (2010, 0.005)])
def test_averaged_weights_are_a_copy_first_and_move_every_tenth_update_then(step, wanted):
    assert average_rate(jnp.asarray(step), jnp.asarray(0.005), 10, jnp.asarray(2000.0)) == np.float32(wanted)


def test_the_last_observations_come_first_in_a_plan_and_the_goal_last():
    past = jnp.arange(12.0).reshape(1, 3, 4)  # three observations, oldest first
    known = with_goal(present_known(past, jnp.asarray(2), 5, offset=2), jnp.full((1, 4), 9.0))
    values = np.where(known.mask, known.values, np.nan)[0]
    wanted = np.full((5, 6), np.nan)
    wanted[0, 2:], wanted[1, 2:], wanted[4, 2:] = past[0, 1], past[0, 2], 9.0
    np.testing.assert_array_equal(values, wanted)


def test_goals_are_observations_at_rest():
    obs = jnp.asarray([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    several = dataclasses.replace(SPEC, obs_dim=6, goal=None, goal_dim=2)
    np.testing.assert_array_equal(goal_of(obs, several), [[5.0, 6.0, 0.0, 0.0]])
    np.testing.assert_array_equal(goal_of(obs[:, :4], SPEC), [[3.0, 1.0, 0.0, 0.0]])
    assert goal_of(obs, dataclasses.replace(SPEC, goal=None)) is None


def test_patches_are_steps_in_a_row():
    x = np.arange(24).reshape(2, 6, 2)
    np.testing.assert_array_equal(patched(jnp.asarray(x), 3), x.reshape(2, 2, 6))


# Search: a planner whose plans are noise around the prefix, and whose value is their sum.


def sum_draw(key, known):
    x = known.write(jax.random.normal(key, known.values.shape))
    return x, x.sum(axis=(-2, -1)), x[None]


def nothing_known(horizon=6):
    return Known(jnp.zeros((2, horizon, 1), bool), jnp.zeros((2, horizon, 1)))


def test_best_of_n_ranks_the_plans_by_their_values():
    config = SearchConfig(num_candidates=5)
    found = jax.jit(lambda key: search(key, sum_draw, nothing_known(), config))(jax.random.key(0))
    assert found.x.shape == (2, 5, 6, 1)
    np.testing.assert_allclose(found.value, found.x.sum(axis=(-2, -1)), rtol=1e-5)
    assert (np.diff(found.value, axis=-1) <= 0).all()
    np.testing.assert_array_equal(found.path[0], found.x[:, 0])


def test_beam_search_draws_on_from_the_prefixes_of_the_best():
    config = SearchConfig("beam", beam_width=2, beam_branch=4, beam_chunk=2, beam_stages=3)
    seen = []

    def draw(key, known):
        x, value, path = sum_draw(key, known)
        jax.debug.callback(lambda *drawn: seen.append([np.asarray(a) for a in drawn]), x, value, *known, ordered=True)
        return x, value, path

    found = jax.jit(lambda key: search(key, draw, nothing_known(), config))(jax.random.key(0))
    jax.effects_barrier()
    assert len(seen) == 3
    np.testing.assert_allclose(found.value[:, 0], seen[-1][1].max(axis=-1))
    for stage, (x, value, _, _) in enumerate(seen[:-1]):
        mask, values = seen[stage + 1][2:]
        assert mask[:, :, : 2 * (stage + 1)].all()
        assert not mask[:, :, 2 * (stage + 1) :].any()
        best = np.argsort(-value, axis=-1)[:, :2]
        for batch in range(2):
            prefixes = x[batch, best[batch], : 2 * (stage + 1)]
            np.testing.assert_array_equal(values[batch, :, : 2 * (stage + 1)], np.repeat(prefixes, 4, axis=0))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"method": "bream"}, KeyError, "unknown search method 'bream'; .*beam"),
        ({"num_candidates": 0}, ValueError, "search.num_candidates=0; it must be at least 1"),
        ({"method": "beam", "beam_stages": 5, "beam_chunk": 8}, ValueError, "prefix of 32 steps.*horizon=32"),
    ],
)
def test_a_search_that_cannot_be_is_refused(change, error, match):
    with pytest.raises(error, match=match):
        check_search(SearchConfig(**change), 32, ranked=True)


def test_a_search_without_values_is_refused():
    with pytest.raises(ValueError, match="num_candidates=2 needs values to rank plans by; set value=True"):
        check_search(SearchConfig(num_candidates=2), 32, ranked=False)


# Following: a planner whose plan at time t is t + 1, t + 2, .. in every number.


def counting(config, spec=SPEC, horizon=6):
    """Acting whose plan starts at the present and counts up by 1, or by 10 where it starts from another plan."""

    def propose(key, state, present, last):
        step = 1.0 if last is None else 10.0
        obs = present.past[..., -1:, :] + step * jnp.arange(float(horizon))[None, :, None]
        x = jnp.expand_dims(obs, -3)
        return Proposal(x, jnp.zeros(x.shape[:-2]), x, x[..., :2] / 100.0, x)

    return make_acting(config, spec, propose, lambda state, obs, after: (after - obs)[..., :2] / 100.0, horizon=horizon,
                       dim=4)  # fmt: skip


def actions(acting, observed):
    """Actions along the observations [T, 4], each an episode's only one."""
    memory, found, act = acting.init_memory((1,)), [], jax.jit(acting.act)
    for obs in observed:
        action, memory = act(jax.random.key(0), None, jnp.asarray(obs, jnp.float32)[None], memory)
        found.append(np.asarray(action)[0, 0])
    return np.stack(found)


STILL = np.zeros((9, 4))


def test_planned_actions_are_carried_out_in_order_until_the_plan_is_made_anew():
    found = actions(counting(ActConfig("actions", 3)), STILL)[:, 0]
    np.testing.assert_allclose(found, np.tile([0.0, 0.01, 0.02], 3), atol=1e-7)
    once = actions(counting(ActConfig("actions", 0)), STILL)[:, 0]
    np.testing.assert_allclose(once, [0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.0, 0.0, 0.0], atol=1e-7)


def test_inverse_dynamics_head_for_the_next_planned_observation_from_where_the_agent_is():
    observed = 2.0 * np.arange(4)[:, None] * np.ones(4)
    found = actions(counting(ActConfig("inverse", 0)), observed)[:, 0]
    np.testing.assert_allclose(found, (np.arange(1, 5) - 2.0 * np.arange(4)) / 100.0, atol=1e-7)


def test_a_warm_start_begins_with_the_second_plan():
    config = ActConfig("inverse", 2, warm_calls=1)
    found = actions(counting(config), STILL[:5])[:, 0]
    np.testing.assert_allclose(found, [0.01, 0.02, 0.1, 0.2, 0.1], atol=1e-7)


def test_pd_steers_to_the_next_position_and_velocity_and_rests_at_the_end():
    plan = np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)
    obs = np.array([[0.1, -0.2, 0.3, 0.4]], np.float32)
    for since in range(4):
        memory = Memory(*([None] * 2), jnp.asarray(since), None, jnp.asarray(plan), jnp.zeros((1, 3, 2)))
        target = plan[0, min(since + 1, 2)].copy()
        if since + 1 >= 3:
            target[2:] = 0.0
        wanted = (target[:2] - obs[0, :2]) + (target[2:] - obs[0, 2:])
        np.testing.assert_allclose(follow("pd", None, jnp.asarray(obs), memory, None)[0], wanted, rtol=1e-6)


def test_conditions_of_the_clock_stay_conditions_under_lanes():
    """Otherwise every lane would plan in every step and throw most plans away."""
    acting = counting(ActConfig("actions", 3))
    memory = acting.init_memory((2,))

    def episode(lane):
        def step(memory, _):
            action, memory = acting.act(jax.random.key(0), None, jnp.zeros((2, 4)) + lane, memory)
            return memory, action

        return jax.lax.scan(step, memory, None, length=4)[1]

    text = str(jax.make_jaxpr(jax.vmap(episode))(jnp.arange(3.0)))
    assert " cond[" in text


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        (ActConfig("pid"), KeyError, "unknown control 'pid'; .*pd"),
        (ActConfig(replan_period=-1), ValueError, "act.replan_period=-1"),
        (ActConfig(replan_period=0, warm_calls=3), ValueError, "act.warm_calls=3 with replan_period=0"),
    ],
)
def test_a_way_of_acting_that_cannot_be_is_refused(config, error, match):
    with pytest.raises(error, match=match):
        counting(config)


def test_pd_without_positions_and_velocities_is_refused():
    with pytest.raises(ValueError, match="2 actions of maze, whose observation has 5; choose another control"):
        counting(ActConfig("pd"), dataclasses.replace(SPEC, obs_dim=5))


# Conditions of Decision Diffuser.

ROOMS = dataclasses.replace(
    SPEC, regions=(Region("west", (-1.0, -1.0), (0.0, 1.0)), Region("east", (1.0, -1.0), (2.0, 1.0)))
)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"conditions": ("return",)}, KeyError, "unknown condition 'return'; .*returns"),
        ({"conditions": ("returns", "returns")}, ValueError, "names one twice"),
        ({"visit": ("east",)}, ValueError, r"regions \('east',\) to visit or to avoid.*'regions' among"),
        ({"conditions": ("regions",), "avoid": ("eats",)}, KeyError, "maze has no region 'eats'; did you mean 'east'"),
        ({"history": 4}, ValueError, "history=4; both must be at least 1, and the history shorter than horizon=4"),
    ],
)
def test_decision_diffuser_refuses_what_the_task_cannot_give(change, error, match):
    config = decision_diffuser.Config(planner=TINY, **change)
    with pytest.raises(error, match=match):
        decision_diffuser.make(config, ROOMS)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"planner": PlannerConfig(horizon=30)}, "horizon=30 must be a multiple of 8 .three halvings"),
        ({"planner": PlannerConfig(horizon=30, patch=4)}, "horizon=30 and patch=4; a plan must be whole patches"),
        ({"planner": dataclasses.replace(TINY, horizon=1)}, "horizon=1; a plan needs .* 2 or more"),
        ({"planner": dataclasses.replace(TINY, tell_known=True)}, "tell_known=True has no use here: .* given whole"),
        ({"reach_goal": True}, "reach_goal=True, and field has no goal"),
        ({"value": False}, "guidance='before' needs a value"),
        ({"guide_steps": 0}, "guide_steps=0"),
        ({"planner": dataclasses.replace(TINY, sampler="ddim")}, "guidance='before' .* sampler='ddim' .* no noise"),
        ({"planner": dataclasses.replace(TINY, sampler="sde_dpmpp_2m"), "guidance": "mean"}, "ddpm"),
        ({"act": ActConfig(warm_calls=9)}, "act.warm_calls=9, and a whole plan takes num_steps=5"),
        (
            {
                "planner": dataclasses.replace(TINY, sampler="dpmpp_2m"),
                "guidance": "none",
                "act": ActConfig(warm_calls=2),
            },
            "ddim",
        ),
    ],
)
def test_diffuser_refuses_settings_that_exclude_one_another(change, match):
    spec = dataclasses.replace(SPEC, name="field", goal=None)
    with pytest.raises(ValueError, match=match):
        diffuser.make(diffuser.Config(**{"planner": TINY, **change}), spec)


# Values, guidance and labels, each against what it should do.


def stretches(count=6, horizon=4, seed=0):
    rng = np.random.default_rng(seed)
    return Segments(
        obs=jnp.asarray(rng.normal(size=(count, horizon, 4)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(count, horizon, 2)), jnp.float32),
        mask=jnp.ones((count, horizon)).at[0, 2:].set(0.0),
        return_to_go=jnp.asarray(rng.normal(size=count), jnp.float32),
    )


def state_of(module, algorithm, **hparams):
    """A state whose parameters are random, without compiling the networks' own start."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(algorithm.init, jax.random.key(0), jax.tree.map(np.float32, module.HParams(**hparams)))
    state = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    box = blank_statistics("limits", SPEC).replace(returns=jnp.array([-10.0, 40.0]))
    return with_statistics(state.replace(hparams=module.HParams(**hparams), step=jnp.zeros((), jnp.int32)), box)


@pytest.fixture(scope="module")
def guided():
    """Diffuser with a value, by its smallest networks: (plan as a function of the state, a state)."""
    planner = PlannerConfig("lstm", width=8, mults=(1,), depth=1, kernel_size=3, horizon=4, num_levels=4, num_steps=3)
    act = ActConfig(search=SearchConfig(num_candidates=3))
    config = diffuser.Config(planner, act, normaliser="limits", guidance="before", guide_steps=1)
    algorithm = diffuser.make(config, SPEC)
    obs = jnp.full((2, 4), 0.25)
    return jax.jit(lambda state: algorithm.plan(jax.random.key(5), state, obs)), state_of(diffuser, algorithm)


def test_plans_begin_at_the_present_and_come_best_first(guided):
    plan, state = guided
    plans = jax.tree.map(np.asarray, plan(state))
    np.testing.assert_allclose(plans.obs[:, :, 0], 0.25, atol=1e-6)
    assert (np.diff(plans.value, axis=-1) <= 0).all()
    np.testing.assert_allclose(plans.path[-1], plans.obs[:, 0], atol=1e-6)


def test_guidance_moves_plans_towards_value_and_not_at_scale_zero_or_where_it_is_stopped(guided):
    plan, state = guided

    def with_scale(scale, stop=0.0):
        hparams = state.hparams.replace(guidance_scale=scale, guidance_stop=stop, act_temperature=0.0)
        return jax.tree.map(np.asarray, plan(state.replace(hparams=hparams)))

    unguided, pushed, stopped = with_scale(0.0), with_scale(0.05), with_scale(0.05, stop=3.0)
    np.testing.assert_array_equal(unguided.obs, stopped.obs)
    assert pushed.value.mean() > unguided.value.mean()
    assert with_scale(-0.05).value.mean() < unguided.value.mean()


def test_value_is_learned_in_units_of_the_largest_return_of_the_data():
    planner = PlannerConfig("lstm", width=8, mults=(1,), depth=1, kernel_size=3, horizon=4, num_levels=1, num_steps=1)
    values = make_value(planner, make_process(planner), 6)
    rng = np.random.default_rng(2)
    shapes = jax.eval_shape(values.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    x0, target = jnp.asarray(rng.normal(size=(3, 4, 6)), jnp.float32), jnp.array([1.0, -2.0, 0.5])
    everything = Known(jnp.ones((4, 6), bool), x0)  # so that x_t = x0 whatever the noise
    level = diffusion.level_at(make_process(planner).schedule, jnp.ones(3))
    loss, seen = jax.jit(
        lambda p: (values.loss(jax.random.key(0), p, x0, everything, target), values.value(p, x0, level))
    )(params)
    np.testing.assert_allclose(loss, (np.asarray(seen) - target) ** 2, rtol=1e-5)
    statistics = blank_statistics("limits", SPEC).replace(returns=jnp.array([-10.0, 4.0]))
    assert return_scale(statistics) == 10.0
    assert return_scale(statistics.replace(returns=jnp.zeros(2))) == 1.0


def test_labels_are_relative_returns_final_observations_and_one_region_each():
    batch = stretches()
    obs = batch.obs.at[:, :, :2].set(5.0)  # nowhere
    obs = obs.at[1, 2, :2].set(jnp.array([-0.5, 0.0])).at[2, 1, :2].set(jnp.array([1.5, 0.0]))
    obs = obs.at[3, 0, :2].set(jnp.array([-0.5, 0.0])).at[3, 3, :2].set(jnp.array([1.5, 0.0]))
    conditions = make_conditions(("returns", "regions", "goal"), ROOMS)
    label = jax.jit(lambda key, dropout: conditions.of_data(key, batch, obs, obs, jnp.array([-1.0, 3.0]), dropout))
    drawn = [np.asarray(label(jax.random.key(k), 0.0)[0])[:, 1:3] for k in range(12)]
    values, keep = (np.asarray(part) for part in label(jax.random.key(0), 0.0))
    np.testing.assert_allclose(values[:, 0], (np.asarray(batch.return_to_go) + 1.0) / 4.0, rtol=1e-6)
    np.testing.assert_array_equal(values[:, 3:], obs[:, -1])
    np.testing.assert_array_equal(keep[:, 1], [0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(keep[:, [0, 2]], 1.0)
    assert all((rows[1] == [1, 0]).all() and (rows[2] == [0, 1]).all() for rows in drawn)
    assert {tuple(rows[3]) for rows in drawn} == {(1.0, 0.0), (0.0, 1.0)}
    dropped = np.stack([label(jax.random.key(k), 0.25)[1][:, 0] for k in range(200)])
    assert abs(dropped.mean() - 0.75) < 0.05
    assert not np.asarray(label(jax.random.key(0), 1.0)[1]).any()


def test_wishes_add_up_as_and_minus_and_vanish_at_scale_zero():
    """A model whose prediction is linear in the one-hot region, so that the sum is known."""
    conditions, level = make_conditions(("regions",), ROOMS), diffusion.level_at(make_process(TINY).schedule, 0.5)

    def model(x, level, cond):
        values, keep = cond
        return x + (keep * (values @ jnp.array([2.0, 5.0]))[..., None])[..., None, :]

    def guided(visit, avoid, scale=3.0, against=0.5):
        wishes = Wishes(1.0, None, visit, avoid, scale, against)
        return conditions.guided(model, wishes, (2,))(jnp.ones((2, 4, 4)), level)

    np.testing.assert_allclose(guided(("west",), ()), 1.0 + 3.0 * 2.0)
    np.testing.assert_allclose(guided(("west", "east"), ()), 1.0 + 3.0 * 2.0 + 3.0 * 5.0)
    np.testing.assert_allclose(guided(("west",), ("east",)), 1.0 + 3.0 * 2.0 - 0.5 * 5.0)
    np.testing.assert_allclose(guided(("west",), ("east",), 0.0, 0.0), 1.0)
    np.testing.assert_allclose(guided((), ()), 1.0)


def test_a_target_far_outside_the_data_is_told_with_their_range():
    config = decision_diffuser.Config(planner=TINY)
    algorithm = decision_diffuser.make(config, SPEC)
    (sentence,) = decision_diffuser.advise(config, state_of(decision_diffuser, algorithm, target_return=3.0))
    assert "target_return=3 asks for a return to go of 140" in sentence
    assert "theirs are -10 (target 0) to 40 (target 1)" in sentence
    assert not decision_diffuser.advise(config, state_of(decision_diffuser, algorithm, target_return=1.1))
    without = dataclasses.replace(config, conditions=())
    assert not decision_diffuser.advise(without, state_of(decision_diffuser, algorithm, target_return=3.0))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"normaliser": "limit"}, "unknown normaliser 'limit'; did you mean 'limits'"),
        ({"padding": "zero"}, "unknown padding 'zero'; did you mean 'zeros'"),
    ],
)
@pytest.mark.parametrize("module", [diffuser, decision_diffuser])
def test_names_of_units_and_paddings_are_checked_before_anything_is_trained(module, change, match):
    with pytest.raises(KeyError, match=match):
        module.make(module.Config(**{"planner": TINY, **change}), SPEC)


def test_noise_of_tokens_with_more_numbers_than_channels_is_refused_and_clean_plans_are_not():
    config = PlannerConfig("temporal_unet", width=8, mults=(1, 2), horizon=8, patch=4, kind="eps")
    with pytest.raises(ValueError, match="of 4 steps has 12 numbers.* 8 channels: choose a width of at least 12"):
        make_planner(config, 3)
    make_planner(config, 2)
    make_planner(dataclasses.replace(config, kind="x0"), 3)
