"""The online loop: what it remembers, that it can be cut anywhere, and that an algorithm learns in it."""

from counting_env import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_algorithm import assert_same_bits, toy, toy_hparams

from jaxdiff import envs, train
from jaxdiff.algorithms import diffusion_ql
from jaxdiff.algorithms.policy import PolicyConfig

CONFIG = train.OnlineConfig(num_envs=2, updates_per_step=3, replay_capacity=64, warmup=6)


@pytest.fixture(scope="module")
def chunk():
    return jax.jit(train.make_online_chunk(toy(), counting(), 8, CONFIG))


def fresh(seed: int = 0, **changes: float):
    return train.init_online_lane(toy(), counting(), CONFIG, toy_hparams(**changes), np.int32(seed))


def through_numpy(lane):
    """As a checkpoint would store it."""
    keys = jax.tree.map(lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key), lane)
    return jax.tree.map(
        lambda x, is_key: jax.random.wrap_key_data(np.array(jax.random.key_data(x))) if is_key else np.array(x),
        lane,
        keys,
    )


def test_it_can_be_cut_anywhere_with_its_environments(chunk):
    whole, _ = chunk(fresh(), 40, None)
    for cuts in ((20, 20), (1, 39), (13, 0, 27)):
        pieces = fresh()
        for count in cuts:
            pieces, _ = chunk(through_numpy(pieces), count, None)
        assert_same_bits(pieces, whole)
    assert int(whole.experience.iteration) == 40


def test_every_transition_is_one_that_the_environment_made(chunk):
    """Also where an episode ends: the next observation is its last one, not the first of the next."""
    lane, _ = chunk(fresh(3), 30, None)
    replay = lane.experience.replay
    size = int(replay.size)
    assert size == 60
    rows = jax.tree.map(lambda x: np.asarray(x)[:size], replay.transitions)
    np.testing.assert_array_equal(rows.next_obs[:, 0], rows.obs[:, 0])
    np.testing.assert_array_equal(rows.next_obs[:, 1], rows.obs[:, 1] + 1)
    np.testing.assert_allclose(rows.next_obs[:, 2], rows.action.sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(rows.reward, rows.obs[:, 0] + rows.next_obs[:, 1], rtol=1e-6)
    last = rows.next_obs[:, 1] == 4
    np.testing.assert_array_equal(rows.discount, np.where(last & (rows.obs[:, 0] <= 0.5), 0.0, 1.0))
    assert {0.0, 1.0} <= set(rows.discount[last])
    for env in range(2):  # rows alternate between the environments: each one's steps follow one another
        own = rows.obs[env::2]
        restarts = own[1:, 1] == 0
        np.testing.assert_array_equal(own[1:, 1], np.where(own[:-1, 1] == 3, 0, own[:-1, 1] + 1))
        assert restarts.any()


def test_other_numbers_seeds_and_hyperparameters_trace_nothing_anew(trace_counter):
    traced = jax.jit(trace_counter(train.make_online_chunk(toy(), counting(), 8, CONFIG)))
    lane, _ = traced(fresh(), jnp.int32(2), None)
    traced(lane, jnp.int32(0), None)
    traced(fresh(seed=7, lr=0.5), jnp.int32(5), None)
    assert trace_counter.count == 1


def test_updates_begin_after_the_warmup_and_keep_their_ratio(chunk):
    lane, metrics = chunk(fresh(), 2, None)  # 4 transitions of 6
    assert int(lane.state.step) == 0
    assert np.isnan(metrics["loss"])
    assert_same_bits(lane.state.params, fresh().state.params)
    lane, metrics = chunk(lane, 1, None)
    assert int(lane.state.step) == 3
    lane, _ = chunk(lane, 10, None)
    assert int(lane.state.step) == 33


def test_actions_are_random_in_the_warmup_and_the_policy_s_after_it(chunk):
    lane, _ = chunk(fresh(1), 30, None)
    rows = jax.tree.map(np.asarray, lane.experience.replay.transitions)
    random, chosen = rows.action[:6], rows.action[20:60]
    zero = rows.obs[20:60] == 0.0  # the toy's action is tanh(obs w): 0 where the observation is
    np.testing.assert_array_equal(chosen[zero], 0.0)
    assert (random != 0.0).all()


def test_returns_of_whole_episodes_are_reported(chunk):
    lane, metrics = chunk(fresh(), 3, None)
    assert np.isnan(metrics["train_return"])  # no episode has ended
    lane, metrics = chunk(lane, 1, None)
    starts = np.asarray(lane.experience.replay.transitions.obs[:2, 0])
    np.testing.assert_allclose(metrics["train_return"], np.mean(4 * starts + 10), rtol=1e-5)


def test_a_bad_update_freezes_the_lane_at_its_last_good_state(chunk):
    lane, _ = chunk(fresh(nan_at=4.0), 20, None)
    assert not bool(lane.alive)
    assert int(lane.state.step) == 4
    assert np.isfinite(lane.state.params["w"]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 0}, "online.num_envs=0; it must be at least 1"),
        ({"updates_per_step": 0}, "online.updates_per_step=0"),
        ({"warmup": -1}, "online.warmup=-1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
    config = train.OnlineConfig(**changes)
    with pytest.raises(ValueError, match=message):
        train.make_online_chunk(toy(), counting(), 8, config)
    with pytest.raises(ValueError, match="batch_size=0"):
        train.make_online_chunk(toy(), counting(), 0, CONFIG)


def test_an_algorithm_of_chunks_is_refused():
    from jaxdiff.data import Window

    with pytest.raises(ValueError, match="set history=1 and action_chunk=1"):
        train.make_online_chunk(toy()._replace(window=Window(2, 1)), counting(), 8, CONFIG)


def test_a_policy_improves_by_acting():
    """probe-action: the reward is 1 - (a - 0.5)**2, so the best action is 0.5; random ones are 0.6 away on average."""
    env = envs.make("probe-action")
    policy = PolicyConfig(hidden=(32,), activation="relu", num_levels=3, num_steps=3, time_dim=4)
    config = diffusion_ql.Config(policy, critic_hidden=(32,), critic_activation="relu", num_candidates=8)
    algorithm = diffusion_ql.make(config, env.spec)
    hparams = jax.tree.map(
        np.float32,
        diffusion_ql.HParams(
            lr=3e-3, critic_lr=3e-3, q_weight=3.0, polyak=0.05, ema_start=0.0, selection_temperature=0.01
        ),
    )
    online = train.OnlineConfig(num_envs=8, replay_capacity=4000, warmup=256)
    lane = train.init_online_lane(algorithm, env, online, hparams, np.int32(0))
    lane, _ = jax.jit(train.make_online_chunk(algorithm, env, 64, online))(lane, 600, None)
    action, _ = jax.jit(algorithm.act)(jax.random.key(1), lane.state, jnp.zeros((100, env.spec.obs_dim)), ())
    np.testing.assert_allclose(np.mean(action), 0.5, atol=0.1)
    assert np.std(action) < 0.2
