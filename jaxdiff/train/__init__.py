"""The training loops of one lane: offline on a dataset, online with a replay buffer, and on-policy."""

from jaxdiff.train.lanes import Chunk, Lane, init_lane, is_finite, run_keys
from jaxdiff.train.offline import make_chunk
from jaxdiff.train.on_policy import OnPolicyConfig, init_on_policy_lane, make_on_policy_chunk
from jaxdiff.train.online import OnlineConfig, init_online_lane, make_online_chunk

__all__ = [
    "Chunk",
    "Lane",
    "OnPolicyConfig",
    "OnlineConfig",
    "init_lane",
    "init_on_policy_lane",
    "init_online_lane",
    "is_finite",
    "make_chunk",
    "make_on_policy_chunk",
    "make_online_chunk",
    "run_keys",
]
