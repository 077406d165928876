"""Planners: what training sees, what plans keep, how they are searched and followed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_jit

from jaxdiff import diffusion
from jaxdiff.algorithms import decision_diffuser, diffuser
from jaxdiff.algorithms.acting import ActConfig, Memory, Proposal, follow, goal_of, make_acting
from jaxdiff.algorithms.planner import Known, PlannerConfig, make_planner, patched
from jaxdiff.algorithms.search import SearchConfig, check_search, search
from jaxdiff.algorithms.trajectories import average_rate, present_known, with_goal
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

    several = quick_jit(jax.vmap(draw, in_axes=(None, 0)))
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
    loss = quick_jit(planner.loss)
    weight = jnp.ones((4, 3))
    assert (loss(jax.random.key(1), params, x0, None, everything, weight) == 0.0).all()
    before = loss(jax.random.key(1), params, x0, None, Known(mask, x0), weight)
    shown = loss(jax.random.key(1), params, x0, None, Known(mask, x0 + 1.0), weight)
    assert (before != shown).all()  # the network read another first token
    doubled = loss(jax.random.key(1), params, x0, None, Known(mask, x0), 2.0 * weight)
    np.testing.assert_allclose(doubled, 2.0 * before, rtol=1e-6)


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
    found = quick_jit(lambda key: search(key, sum_draw, nothing_known(), config))(jax.random.key(0))
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

    found = quick_jit(lambda key: search(key, draw, nothing_known(), config))(jax.random.key(0))
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
    memory, found, act = acting.init_memory((1,)), [], quick_jit(acting.act)
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
        ({"reach_goal": True}, "reach_goal=True, and field has no goal"),
        ({"value": False}, "guidance='before' needs a value"),
        ({"guide_steps": 0}, "guide_steps=0"),
    ],
)
def test_diffuser_refuses_settings_that_exclude_one_another(change, match):
    spec = dataclasses.replace(SPEC, name="field", goal=None)
    with pytest.raises(ValueError, match=match):
        diffuser.make(diffuser.Config(**{"planner": TINY, **change}), spec)
