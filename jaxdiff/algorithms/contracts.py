"""Shapes at the door of every algorithm, checked while tracing: they cost nothing in the compiled program."""

import chex

from jaxdiff.types import Array, Spec, Transition


def check_batch(batch: Transition, spec: Spec) -> None:
    """obs, next_obs [B, O], action [B, U], reward, discount [B], all of one B.

    Raises:
      AssertionError: another shape; the message has the one found.
    """
    chex.assert_shape([batch.obs, batch.next_obs], (None, spec.obs_dim))
    chex.assert_shape(batch.action, (None, spec.action_dim))
    chex.assert_rank([batch.reward, batch.discount], 1)
    chex.assert_equal_shape_prefix([batch.obs, batch.action, batch.reward, batch.discount, batch.next_obs], 1)


def check_obs(obs: Array, spec: Spec) -> None:
    """obs [*B, O].

    Raises:
      AssertionError: another last axis; the message has the one found.
    """
    chex.assert_axis_dimension(obs, -1, spec.obs_dim)
