"""How fast a client can send: path loss, fading and Shannon's rate.

Node 0 is the roadside unit (vehicle to infrastructure), the others are vehicles; arrays end in nodes.
"""

import jax.numpy as jnp
import numpy as np

from jaxdiff.offloading.system import System
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array

PATH_LOSS = {"v2i": (-38.4, -21.0), "v2v": (-44.23, -16.7)}  # gain at 1 m in dB, dB per decade of distance
NEAREST_M = 1.0  # nearer nodes gain as if they were so far away
WEAKEST_FADING = 2.0**-24  # a float32 draw may be 0, at which nothing would ever arrive


def gain_db(distance: Array, kind: str) -> Array:
    """Path gain in dB: -38.4 - 21.0 log10(d) to the RSU ("v2i"), -44.23 - 16.7 log10(d) to a vehicle ("v2v").

    Args:
      distance: [*B] in metres, taken as at least 1.
      kind: "v2i" or "v2v".

    Raises:
      KeyError: another kind.

    Reference: Liu et al. 2025, arXiv:2406.06986, communication model.
    """
    if kind not in PATH_LOSS:
        raise unknown_name("kind of link", kind, PATH_LOSS)
    at_one_metre, per_decade = PATH_LOSS[kind]
    return at_one_metre + per_decade * jnp.log10(jnp.maximum(distance, NEAREST_M))


def rate(system: System, distance: Array, fading: Array, *, kind: str) -> Array:
    """R = bandwidth log2(1 + p h / sigma**2) in Mbit/s, h = fading times the path gain; links do not interfere.

    Args:
      system: power, noise, bandwidth.
      distance: [*B] in metres.
      fading: [*B] |u|**2 of u ~ CN(0, 1), that is a draw from Exp(1) per slot; taken as at least 2**-24.
      kind: as in `gain_db`.
    """
    snr_db = system.power_dbm - system.noise_dbm + gain_db(distance, kind)
    snr = 10.0 ** (snr_db / 10.0) * jnp.maximum(fading, WEAKEST_FADING)
    return system.bandwidth_mhz * jnp.log1p(snr) / np.log(2.0)


def rates(system: System, distance: Array, fading: Array) -> Array:
    """`rate` to all nodes: distance and fading [*B, J] -> [*B, J] Mbit/s, node 0 being the RSU."""
    to_rsu = rate(system, distance[..., :1], fading[..., :1], kind="v2i")
    return jnp.concatenate([to_rsu, rate(system, distance[..., 1:], fading[..., 1:], kind="v2v")], axis=-1)


def reachable(system: System, distance: Array) -> Array:
    """[*B, J] bool: node 0 always, a vehicle within `system.range_m`."""
    return (distance <= system.range_m).at[..., 0].set(True)
