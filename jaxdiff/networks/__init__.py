"""Flax modules called (x, t, cond) -> [*B, D] or [*B, H, D], and critics. They know no schedule."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from jaxdiff.networks.agent_mlp import AgentMlp
from jaxdiff.networks.agent_transformer import AgentTransformer
from jaxdiff.networks.agent_unet import AgentUnet
from jaxdiff.networks.mixers import MIXERS, QmixMixer, VdnMixer
from jaxdiff.networks.mlp import ACTIVATIONS, BIASES, Mlp, MlpDenoiser, QFunction, VFunction
from jaxdiff.networks.resnet import LnResnetDenoiser
from jaxdiff.networks.sequence import LstmDenoiser, TransformerDenoiser
from jaxdiff.networks.temporal_unet import TemporalUnet, TrajectoryValue, check_horizon
from jaxdiff.networks.trajectory import Dit, TrajectoryLstm, TrajectoryTransformer

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "ln_resnet": LnResnetDenoiser,
    "lstm": LstmDenoiser,
    "mlp": MlpDenoiser,
    "transformer": TransformerDenoiser,
}

# Those that take `history` and read cond as a sequence of observations.
SEQUENCE_NETWORKS: tuple[str, ...] = ("lstm", "transformer")


def _convolutional(*, out: int, depth: int = 2, **options: Any) -> nn.Module:
    del depth  # follows from the resolutions
    return TemporalUnet(out, **options)


def _over_tokens(network: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def make(
        *,
        out: int,
        width: int = 128,
        mults: tuple[int, ...] = (),
        depth: int = 2,
        kernel_size: int = 5,
        attention: bool = False,
        cond_sizes: tuple[int, ...] = (),
    ) -> nn.Module:
        del mults, kernel_size, attention  # these have one resolution and no convolutions
        return network(out, width=width, depth=depth, cond_sizes=cond_sizes)

    return make


# Denoisers of trajectories [*B, H, D]. All take out, width, mults, depth, kernel_size, attention and cond_sizes, and
# use those that concern them.
TRAJECTORY_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "dit": _over_tokens(Dit),
    "lstm": _over_tokens(TrajectoryLstm),
    "temporal_unet": _convolutional,
    "transformer": _over_tokens(TrajectoryTransformer),
}

# Denoisers of joint actions [*B, A, D], called with cond [*B, A, O]; built as NETWORKS are.
AGENT_NETWORKS: dict[str, Callable[..., nn.Module]] = {"agent_mlp": AgentMlp}


def _over_agent_tokens(
    *, mults: tuple[int, ...] = (), kernel_size: int = 5, attention: bool = False, **options: Any
) -> nn.Module:
    del mults, kernel_size, attention  # as of `_over_tokens`
    return AgentTransformer(**options)


def _convolutional_agents(*, depth: int = 2, **options: Any) -> nn.Module:
    del depth  # follows from the resolutions
    return AgentUnet(**options)


# Denoisers of joint trajectories [*B, H, A, D], with conditions for each agent: (values [*B, A, C], keep [*B, A, G]).
# They take agent_attention beside the options of TRAJECTORY_NETWORKS.
AGENT_TRAJECTORY_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "agent_transformer": _over_agent_tokens,
    "agent_unet": _convolutional_agents,
}

__all__ = [
    "ACTIVATIONS",
    "AGENT_NETWORKS",
    "AGENT_TRAJECTORY_NETWORKS",
    "BIASES",
    "MIXERS",
    "NETWORKS",
    "SEQUENCE_NETWORKS",
    "TRAJECTORY_NETWORKS",
    "AgentMlp",
    "AgentTransformer",
    "AgentUnet",
    "Dit",
    "LnResnetDenoiser",
    "LstmDenoiser",
    "Mlp",
    "MlpDenoiser",
    "QFunction",
    "QmixMixer",
    "TemporalUnet",
    "TrajectoryLstm",
    "TrajectoryTransformer",
    "TrajectoryValue",
    "TransformerDenoiser",
    "VFunction",
    "VdnMixer",
    "check_horizon",
]
