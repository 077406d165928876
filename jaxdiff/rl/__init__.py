"""Targets, penalties and averages of reinforcement learning, without networks."""

from jaxdiff.rl.conservative import cql_penalty, max_backup, soft_backup
from jaxdiff.rl.factors import (
    NOISE_FACTORS,
    Factor,
    agent_weights,
    check_noise_factor,
    ensure_decentralised,
)
from jaxdiff.rl.implicit import awr_weight, expectile_loss, expectile_policy_weight
from jaxdiff.rl.on_policy import (
    Moments,
    clipped_surrogate,
    generalised_advantage,
    init_moments,
    kl_estimate,
    running_returns,
    update_moments,
)
from jaxdiff.rl.updates import draw_candidate, normalised_q_loss, polyak, select_candidate, td_target

__all__ = [
    "NOISE_FACTORS",
    "Factor",
    "Moments",
    "agent_weights",
    "awr_weight",
    "check_noise_factor",
    "clipped_surrogate",
    "cql_penalty",
    "draw_candidate",
    "ensure_decentralised",
    "expectile_loss",
    "expectile_policy_weight",
    "generalised_advantage",
    "init_moments",
    "kl_estimate",
    "max_backup",
    "normalised_q_loss",
    "polyak",
    "running_returns",
    "select_candidate",
    "soft_backup",
    "td_target",
    "update_moments",
]
