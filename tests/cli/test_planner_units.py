"""A planner that starts from another run works in the units that its networks were trained in."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms import diffuser
from jaxdiff.algorithms.planner import PlannerConfig
from jaxdiff.algorithms.trajectories import statistics_of
from jaxdiff.cli import warm_start
from jaxdiff.train import Lane
from jaxdiff.types import Spec

SPEC = Spec("task", obs_dim=3, action_dim=2, max_episode_steps=10)
TINY = PlannerConfig("lstm", width=8, depth=1, horizon=4, num_levels=2, num_steps=2)


def lanes(value):
    """One lane whose every number is `value`."""
    algorithm = diffuser.make(diffuser.Config(planner=TINY, value=False, guidance="none"), SPEC)
    hparams = jax.tree.map(np.float32, diffuser.HParams())
    shapes = jax.eval_shape(algorithm.init, jax.random.key(0), hparams)
    state = jax.tree.map(lambda leaf: jnp.full((1, *leaf.shape), value, leaf.dtype), shapes)
    return Lane(state, jax.random.split(jax.random.key(0), 1), jnp.ones(1, bool))


def test_the_statistics_come_along_with_the_weights_and_the_optimiser_does_not(monkeypatch):
    there, here = lanes(7), lanes(2)
    found = {
        "params": there.state.params,
        "target": there.state.target_params,
        "moments": None,
        "statistics": statistics_of(there.state),
    }
    monkeypatch.setattr(warm_start, "plans_of", lambda config: ["a pack"])
    monkeypatch.setattr(warm_start, "_read", lambda config: {0: jax.tree.map(lambda leaf: leaf[0], found)})
    started = warm_start.start_from(here, {"init_from": "run", "algorithm": "diffuser"}, [0]).state
    for leaf in jax.tree.leaves((started.params, statistics_of(started))):
        np.testing.assert_array_equal(leaf, 7)
    for leaf in jax.tree.leaves(started.opt_state["planner"]):
        np.testing.assert_array_equal(leaf, 2)
