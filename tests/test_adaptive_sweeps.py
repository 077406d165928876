"""Successive halving and population-based training: who goes on, from whose state, with which hyperparameters."""

import collections
import functools
import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import adaptive
from jaxdiff.types import TrainState

RANGES = {"lr": (1e-4, 3.0), "weight": (0.5, 2.0)}


@struct.dataclass
class HParams:
    lr: Any = 0.1
    weight: Any = 1.0
    discount_factor: Any = 0.99


@struct.dataclass
class Member:
    state: TrainState
    key: Any
    alive: Any
    experience: Any = None


def population(lr: Any, step: int = 7) -> TrainState:
    """States whose every number tells its lane."""
    lr = np.asarray(lr, np.float32)
    place = np.arange(len(lr), dtype=np.float32)
    return TrainState(
        step=jnp.full(len(lr), step, jnp.int32),
        params={"w": jnp.asarray(place[:, None] + np.arange(3, dtype=np.float32) / 4)},
        target_params={"w": jnp.asarray(place + 100)},
        opt_state=(jnp.asarray(place + 200), jnp.asarray(place.astype(np.int32))),
        hparams=HParams(jnp.asarray(lr), jnp.asarray(1 + place / 50), jnp.asarray(0.9 + place / 1000)),
    )


@functools.cache
def jitted(**options: Any) -> Any:
    return jax.jit(functools.partial(adaptive.exploit_explore, ranges=RANGES, **options))


def leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


# Halving


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ((900, 3, 3, 1), (100, 300, 900)),
        ((1000, 3, 3, 50), (150, 350, 1000)),  # 111.1 and 333.3, upwards
        ((1000, 2.5, 3, 10), (160, 400, 1000)),
        ((1001, 2, 2, 100), (600, 1001)),  # the end need not be an evaluation's step
        ((10, 4, 1, 1000), (10,)),
        ((3**30, 3, 31, 1), tuple(3**k for k in range(31))),  # no rounding of powers
    ],
)
def test_rungs_are_the_whole_length_divided_again_and_again(arguments, steps):
    assert adaptive.rungs(*arguments) == steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 1.0, 2), "reduction=1.0; it must be above 1"),
        ((100, math.nan, 2), "reduction=nan"),
        ((0, 2, 2), "num_updates=0"),
        ((100, 2, 0), "count=0"),
        ((100, 2, 2, 0), "multiple_of=0"),
        ((100, 2, 4, 50), r"rungs \[50, 50, 50, 100\] fall together"),
        ((100, 2, 2, 100), "take fewer rungs or evaluate more often"),
    ],
)
def test_rungs_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        adaptive.rungs(*arguments)


def test_a_reduction_that_divides_leaves_what_division_leaves():
    assert [adaptive.num_left(27, k, 3) for k in range(5)] == [27, 9, 3, 1, 1]
    assert [adaptive.num_left(10, k, 4) for k in range(3)] == [10, 2, 1]
    assert adaptive.num_left(3**30, 29, 3) == 3
    with pytest.raises(ValueError, match="num_settings=0 must be at least 1 and num_cuts=-1"):
        adaptive.num_left(0, -1, 3)


@pytest.mark.parametrize(("settings", "reduction", "count"), [(27, 3, 4), (10, 2, 3), (7, 2.5, 3), (1, 2, 2)])
def test_the_cost_is_what_lanes_that_run_one_update_at_a_time_add_up_to(settings, reduction, count):
    steps = adaptive.rungs(216, reduction, count)
    total, cuts = 0, 0
    for update in range(1, 217):
        total += max(1, int(settings / reduction**cuts + 1e-9))
        cuts += update in steps
    assert adaptive.halving_cost(settings, steps, reduction) == total


def test_the_cost_of_the_textbook_bracket():
    """27 settings, 1 + 2 + 6 + 18 units: 27 + 18 + 18 + 18."""
    assert adaptive.halving_cost(27, (1, 3, 9, 27), 3) == 27 * 1 + 9 * 2 + 3 * 6 + 1 * 18


@pytest.mark.parametrize("steps", [(), (0, 10), (10, 10), (20, 10)])
def test_the_cost_refuses_rungs_that_do_not_ascend(steps):
    with pytest.raises(ValueError, match="must ascend, from at least 1"):
        adaptive.halving_cost(4, steps, 2)


def best_by_loop(scores: list[float], settings: list[int], keep: int) -> list[int]:
    means = {}
    for setting in settings:
        own = [s for s, of in zip(scores, settings, strict=True) if of == setting]
        means[setting] = math.fsum(own) / len(own) if all(map(math.isfinite, own)) else -math.inf
    kept = sorted(means, key=lambda setting: (-means[setting], setting))[:keep]
    return [lane for lane, setting in enumerate(settings) if setting in kept]


def test_survivors_are_those_of_a_plain_loop_in_any_order_of_the_lanes():
    draw = np.random.default_rng(0)
    settings = np.repeat([4, 9, 0, 7, 2], [3, 3, 3, 2, 4])
    for keep in range(1, 6):
        scores = draw.integers(0, 4, len(settings)) / 7  # ties are common
        scores[draw.integers(len(settings), size=2)] = draw.choice([np.nan, np.inf, -np.inf], 2)
        kept = adaptive.survivors(scores, settings, keep)
        assert kept.tolist() == best_by_loop(scores.tolist(), settings.tolist(), keep)
        order = draw.permutation(len(settings))
        assert set(order[adaptive.survivors(scores[order], settings[order], keep)]) == set(kept)


def test_the_order_of_seeds_is_not_in_the_mean():
    """0.1 + 0.2 + 0.3 differs from 0.3 + 0.2 + 0.1 in floating point; as equals, the smaller id wins."""
    scores, settings = [0.3, 0.2, 0.1, 0.1, 0.2, 0.3], [1, 1, 1, 2, 2, 2]
    assert sum(scores[:3]) != sum(scores[3:])
    assert adaptive.survivors(scores, settings, 1).tolist() == [0, 1, 2]
    assert adaptive.survivors(scores[::-1], settings[::-1], 1).tolist() == [3, 4, 5]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_seed_puts_a_setting_last(bad):
    assert adaptive.survivors([9.0, bad, -5.0, -5.0], [0, 0, 1, 1], 1).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("scores", "settings", "keep", "message"),
    [
        ([1.0, 2.0], [0], 1, "both must be"),
        ([[1.0], [2.0]], [[0], [1]], 1, "both must be"),
        ([1.0, 2.0], [0.0, 1.0], 1, "must be integers"),
        ([1.0, 2.0], [0, 0], 2, "keep=2 of 1 settings"),
        ([1.0, 2.0], [0, 1], 0, "keep=0 of 2 settings"),
    ],
)
def test_survivors_refuse(scores, settings, keep, message):
    with pytest.raises(ValueError, match=message):
        adaptive.survivors(scores, settings, keep)


def test_compacted_lanes_are_the_same_bits_keys_included():
    state = population(np.geomspace(0.01, 1, 5))
    state = state.replace(params={"w": state.params["w"].at[3, 0].set(jnp.nan)})
    lanes = Member(state, jax.vmap(jax.random.key)(np.arange(5)), jnp.asarray([True, True, False, True, True]))
    kept = adaptive.compact(lanes, [1, 2, 3])
    assert jax.dtypes.issubdtype(kept.key.dtype, jax.dtypes.prng_key)
    raw = [x.replace(key=jax.random.key_data(x.key)) for x in (lanes, kept)]
    assert jax.tree.structure(raw[0]) == jax.tree.structure(raw[1])
    for old, new in zip(*map(leaves, raw), strict=True):
        assert new.dtype == old.dtype
        assert new.tobytes() == old[1:4].tobytes()


@pytest.mark.parametrize("indices", [[], [0, 5], [-1], [[0]]])
def test_compact_refuses_lanes_that_are_not_there(indices):
    with pytest.raises(ValueError, match="of 5 lanes; give at least one in 0 .. 4"):
        adaptive.compact({"a": jnp.zeros((5, 2))}, indices)


def test_compact_refuses_what_is_not_stacked():
    with pytest.raises(ValueError, match=r"leading axes \[4, 5\]"):
        adaptive.compact({"a": jnp.zeros(5), "b": jnp.zeros(4)}, [0])


# Populations


def test_the_worst_become_copies_of_the_best_with_other_hyperparameters():
    old = population(np.geomspace(0.01, 1, 8))
    scores = jnp.asarray([3.0, 9.0, 1.0, 5.0, 8.0, 0.0, 4.0, 2.0])
    new, parents = jitted()(jax.random.key(0), old, scores)
    assert {int(i) for i in np.flatnonzero(parents != np.arange(8))} == {2, 5}
    assert {int(parents[2]), int(parents[5])} <= {1, 4}
    for before, after in zip(leaves(old.replace(hparams=0)), leaves(new.replace(hparams=0)), strict=True):
        np.testing.assert_array_equal(after, before[np.asarray(parents)] if before.ndim else before)
    np.testing.assert_array_equal(new.hparams.discount_factor, old.hparams.discount_factor[parents])
    for name, (low, high) in RANGES.items():
        before, after = np.asarray(getattr(old.hparams, name)), np.asarray(getattr(new.hparams, name))
        for lane, parent in enumerate(np.asarray(parents)):
            near = [min(max(float(before[parent]) * f, low), high) for f in (0.8, 1.25)]
            allowed = [float(before[lane])] if lane == parent else near
            assert min(abs(after[lane] / a - 1) for a in allowed) < 1e-6, (name, lane)


def test_without_ties_permuted_members_give_permuted_results():
    states, scores = population(np.geomspace(0.01, 1, 8)), jnp.asarray([3.0, np.nan, 1.0, 5.0, 8.0, 0.0, 4.0, 2.0])
    order = np.random.default_rng(1).permutation(8)
    new, parents = jitted()(jax.random.key(3), states, scores)
    moved, moved_parents = jitted()(jax.random.key(3), jax.tree.map(lambda x: x[order], states), scores[order])
    np.testing.assert_array_equal(order[np.asarray(moved_parents)], np.asarray(parents)[order])
    for a, b in zip(leaves(new), leaves(moved), strict=True):
        np.testing.assert_array_equal(b, a[order])


@pytest.mark.parametrize(
    ("scores", "copies"),
    [
        ([1.0] * 8, set()),  # nobody is better than anybody
        ([math.nan] * 8, set()),  # nobody to copy from
        ([math.nan] * 7 + [2.0], set(range(7))),
        ([math.inf, 5, 4, 3, 2, 1, 0, -1], {0, 7}),  # infinite is broken, not best; it is one of the two worst
        ([math.nan, math.nan, math.nan, 4, 3, 2, 1, 0], {0, 1, 2}),  # more broken ones than the quantile
        ([math.nan, 5, 4, 3, 2, 1, 0, -1], {0, 7}),
    ],
)
def test_who_copies(scores, copies):
    states = population(np.geomspace(0.01, 1, 8))
    new, parents = jitted()(jax.random.key(1), states, jnp.asarray(scores, jnp.float32))
    assert set(np.flatnonzero(parents != np.arange(8)).tolist()) == copies
    assert all(math.isfinite(scores[p]) for p in np.asarray(parents)[sorted(copies)])
    for lane in set(range(8)) - copies:
        for a, b in zip(leaves(states), leaves(new), strict=True):
            np.testing.assert_array_equal(a[lane], b[lane])


@functools.cache
def rounds() -> tuple[np.ndarray, np.ndarray]:
    """Parents and learning rates [4000, 8] of rounds of a population: lanes 6, 7 are the worst, 0.3 of draws fresh."""
    states = population([0.1, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    step = functools.partial(adaptive.exploit_explore, ranges=RANGES, resample=0.3)
    many = jax.jit(jax.vmap(step, in_axes=(0, None, None)))
    new, parents = many(jax.random.split(jax.random.key(5), 4000), states, -jnp.arange(8.0))
    return np.asarray(parents), np.asarray(new.hparams.lr)


def near_and_fresh() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of lane 6: parents, learning rates, what they are multiples of their parents', which are fresh."""
    parents, lr = rounds()
    ratio = lr[:, 6] / np.asarray([0.1, 0.5])[parents[:, 6]]
    is_fresh = np.minimum(np.abs(ratio - 0.8), np.abs(ratio - 1.25)) > 1e-5
    return parents[:, 6], lr[:, 6], ratio, is_fresh


def test_parents_and_factors_are_drawn_uniformly_and_apart_from_each_other():
    parents, _, ratio, is_fresh = near_and_fresh()
    pairs = zip(parents[~is_fresh].tolist(), np.round(ratio[~is_fresh], 3).tolist(), strict=True)
    counts, total = collections.Counter(pairs), int((~is_fresh).sum())
    assert set(counts) == {(p, f) for p in (0, 1) for f in (0.8, 1.25)}
    assert all(abs(n - total / 4) < 5 * math.sqrt(total * 3 / 16) for n in counts.values())  # five deviations
    both = np.mean((rounds()[0][:, 6] == 0) & (rounds()[0][:, 7] == 0))
    assert abs(both - 0.25) < 5 * math.sqrt(3 / 16 / 4000)


def test_fresh_draws_are_log_uniform_and_as_frequent_as_asked():
    _, lr, _, is_fresh = near_and_fresh()
    assert abs(is_fresh.mean() - 0.3) < 5 * math.sqrt(0.21 / 4000)
    low, high = RANGES["lr"]
    u = np.sort(np.log(lr[is_fresh] / low) / math.log(high / low))
    assert np.abs(u - (np.arange(len(u)) + 0.5) / len(u)).max() < 1.95 / math.sqrt(len(u))  # Kolmogorov-Smirnov, 0.1 %


def test_hyperparameters_stay_within_their_ranges():
    states = population(np.full(8, RANGES["lr"][1]))
    draw = np.random.default_rng(2)
    step = jitted(factors=(0.01, 100.0), resample=0.1)
    for k in range(30):
        states, _ = step(jax.random.key(k), states, jnp.asarray(draw.normal(size=8), jnp.float32))
        for name, bounds in RANGES.items():
            value, (low, high) = np.asarray(getattr(states.hparams, name)), np.float32(bounds)
            assert value.min() >= low, (name, k)
            assert value.max() <= high, (name, k)


def test_other_scores_and_keys_are_the_same_program(trace_counter):
    step = jax.jit(trace_counter(functools.partial(adaptive.exploit_explore, ranges=RANGES)))
    states = population(np.geomspace(0.01, 1, 4))
    for k, scores in enumerate([[1.0, 2.0, 3.0, 4.0], [4.0, math.nan, 2.0, 1.0], [math.nan] * 4]):
        states, _ = step(jax.random.key(k), states, jnp.asarray(scores))
    assert trace_counter.count == 1


def test_populations_side_by_side_are_populations_alone():
    each = [population(np.geomspace(0.01, 1, 8)), population(np.geomspace(0.1, 2, 8))]
    keys, scores = jax.random.split(jax.random.key(0)), jnp.stack([jnp.arange(8.0), -jnp.arange(8.0)])
    together = jax.jit(jax.vmap(jitted()))(keys, jax.tree.map(lambda *x: jnp.stack(x), *each), scores)
    for i in range(2):
        for a, b in zip(leaves(jitted()(keys[i], each[i], scores[i])), leaves(together), strict=True):
            np.testing.assert_array_equal(a, b[i])


def test_a_frozen_lane_lives_again_as_a_copy_and_keeps_its_key_and_experience():
    states = population(np.geomspace(0.01, 1, 4))
    states = states.replace(step=states.step.at[2].set(3))
    keys = jax.vmap(jax.random.key)(np.arange(4))
    lanes = Member(states, keys, jnp.asarray([True, True, False, True]), jnp.arange(4.0))
    scores = jnp.asarray([1.0, 5.0, 9.0, 2.0])  # what the frozen lane last scored does not count
    step = jax.jit(functools.partial(adaptive.evolve, ranges=RANGES))
    new, parents = step(jax.random.key(0), lanes, scores)
    assert parents.tolist() == [0, 1, 1, 3]
    assert new.alive.all()
    assert new.state.step.tolist() == [7, 7, 7, 7]
    np.testing.assert_array_equal(jax.random.key_data(new.key), jax.random.key_data(keys))
    np.testing.assert_array_equal(new.experience, lanes.experience)
    dead = lanes.replace(alive=jnp.zeros(4, bool))
    assert not step(jax.random.key(0), dead, scores)[0].alive.any()


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, {}, "at least 2 members"),
        (4, {"quantile": 0.0}, r"quantile=0.0; it must lie in \(0, 0.5\]"),
        (4, {"quantile": 0.6}, "quantile=0.6"),
        (4, {"resample": 1.5}, "resample=1.5; it is a probability"),
        (4, {"factors": ()}, r"factors=\(\); give at least one"),
        (4, {"factors": (0.0, 2.0)}, "each above 0"),
        (4, {"ranges": {"lr": (0.0, 1.0)}}, r"ranges\['lr'\]=\(0.0, 1.0\); it must be 0 < low < high"),
        (4, {"ranges": {"lr": (2.0, 1.0)}}, "0 < low < high"),
    ],
)
def test_a_round_refuses(count, options, message):
    with pytest.raises(ValueError, match=message):
        adaptive.exploit_explore(
            jax.random.key(0), population(np.ones(count)), jnp.zeros(count), **{"ranges": RANGES, **options}
        )


def test_a_round_refuses_unknown_names_and_scores_of_others():
    with pytest.raises(KeyError, match="unknown hyperparameter 'wieght'; did you mean 'weight'"):
        adaptive.exploit_explore(jax.random.key(0), population(np.ones(4)), jnp.zeros(4), ranges={"wieght": (1.0, 2.0)})
    with pytest.raises(ValueError, match=r"scores \(3,\) for states with leading axes \[\(4,\)\]"):
        adaptive.exploit_explore(jax.random.key(0), population(np.ones(4)), jnp.zeros(3), ranges=RANGES)


# A population that learns: x -> x - lr slope x on slope x**2 / 2, which a learning rate above 2 / slope blows up.
SLOPES = np.asarray([0.1, 10.0])
EACH, ROUNDS = 10, 12


def descend(states: TrainState) -> TrainState:
    factor = (1 - states.hparams.lr[:, None] * jnp.asarray(SLOPES, jnp.float32)[None]) ** EACH
    return states.replace(step=states.step + EACH, params={"w": states.params["w"] * factor})


def log_loss(w: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.log((SLOPES * np.asarray(w, np.float64) ** 2).sum(-1) / 2)


def test_a_population_beats_its_members_on_their_own_and_its_winner_can_be_traced_back():
    start = population(np.geomspace(1e-4, 3.0, 8), step=0).replace(params={"w": jnp.ones((8, 2))})
    together, fixed = start, start
    history: list[tuple[np.ndarray, np.ndarray]] = []  # learning rates of a round, then who copied whom
    advance = jax.jit(descend)
    for k in range(ROUNDS):
        rates = np.asarray(together.hparams.lr, np.float64)
        together, fixed = advance(together), advance(fixed)
        parents = np.arange(8)
        if k < ROUNDS - 1:
            scores = -log_loss(together.params["w"]).astype(np.float32)
            together, parents = jitted()(jax.random.key(k), together, jnp.asarray(scores))
        history.append((rates, np.asarray(parents)))
    assert together.step.tolist() == fixed.step.tolist() == [EACH * ROUNDS] * 8
    losses = log_loss(together.params["w"])
    alone = np.nan_to_num(log_loss(fixed.params["w"]), nan=50.0, posinf=50.0).clip(max=50.0)
    assert alone.max() == 50, "the largest learning rates must fail, or nothing was to be chosen"
    best = lane = int(losses.argmin())
    assert losses[best] < min(alone.mean(), np.median(alone)) - 1
    weights = np.ones(2)
    for rates, parents in reversed(history):  # ancestors, in float64
        lane = int(parents[lane])
        weights = weights * (1 - rates[lane] * SLOPES) ** EACH
    np.testing.assert_allclose(np.asarray(together.params["w"])[best], weights, rtol=1e-3, atol=1e-12)
