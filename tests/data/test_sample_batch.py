"""Batches are uniform draws with replacement, inside jit, traced once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic_d4rl import random_arrays

from jaxdiff.data import Dataset, load, sample_batch, to_device
from jaxdiff.types import Transition


def numbered(num_transitions: int) -> Dataset:
    """Row i holds i in every field."""
    row = jnp.arange(num_transitions, dtype=jnp.float32)
    moved = Transition(obs=row[:, None], action=row[:, None], reward=row, discount=row, next_obs=row[:, None] + 0.5)
    return Dataset(transitions=moved, episode=jnp.zeros(num_transitions, jnp.int32))


def test_fields_of_a_batch_come_from_one_row():
    batch = sample_batch(jax.random.key(0), numbered(50), 32)
    np.testing.assert_array_equal(batch.obs[:, 0], batch.reward)
    np.testing.assert_array_equal(batch.action[:, 0], batch.discount)
    np.testing.assert_array_equal(batch.next_obs[:, 0], batch.reward + 0.5)


def test_draws_are_uniform():
    """Chi-square over 20 rows and 20000 draws: 19 degrees of freedom, 43.8 is the 99.9th percentile."""
    batch = sample_batch(jax.random.key(1), numbered(20), 20_000)
    counts = np.bincount(np.asarray(batch.reward, int), minlength=20)
    assert counts.sum() == 20_000
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 43.8


def test_jit_equals_eager_and_traces_once(trace_counter):
    dataset = numbered(30)
    draw = jax.jit(trace_counter(sample_batch), static_argnums=2)
    for seed in range(3):
        jitted = draw(jax.random.key(seed), dataset, 8)
        np.testing.assert_array_equal(jitted.obs, sample_batch(jax.random.key(seed), dataset, 8).obs)
    assert trace_counter.count == 1


def test_lanes_share_one_dataset():
    dataset, keys = numbered(30), jax.random.split(jax.random.key(0), 4)
    lanes = jax.vmap(sample_batch, in_axes=(0, None, None))(keys, dataset, 8)
    for lane, key in enumerate(keys):
        np.testing.assert_array_equal(lanes.obs[lane], sample_batch(key, dataset, 8).obs)


def test_host_and_device_datasets_give_one_batch(save):
    host, _ = load(save(random_arrays(40)))
    device = to_device(host)
    assert isinstance(device.transitions.obs, jax.Array)
    a, b = (sample_batch(jax.random.key(0), dataset, 16) for dataset in (host, device))
    np.testing.assert_array_equal(a.next_obs, b.next_obs)


def test_agents_stay_together(save):
    arrays = random_arrays(40, agents=3)
    dataset, _ = load(save(arrays))
    batch = sample_batch(jax.random.key(0), dataset, 16)
    assert batch.obs.shape == (16, 3, 3)
    rows = {row.tobytes() for row in np.asarray(dataset.transitions.obs)}
    assert all(row.tobytes() in rows for row in np.asarray(batch.obs))


def test_an_empty_batch_or_dataset_is_refused():
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        sample_batch(jax.random.key(0), numbered(5), 0)
    with pytest.raises(ValueError, match="the dataset holds 0 transitions"):
        sample_batch(jax.random.key(0), numbered(0), 4)
