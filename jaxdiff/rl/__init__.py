"""Targets, penalties and averages of reinforcement learning, without networks."""

from jaxdiff.rl.updates import normalised_q_loss, polyak, select_candidate, td_target

__all__ = ["normalised_q_loss", "polyak", "select_candidate", "td_target"]
