"""Who is hunted in tag and world: a scripted prey, a network in OMAR's layout, or a policy trained in mpe-TASK-prey."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.envs.mpe.tasks import Task
from jaxdiff.types import Array, Key

Prey = Callable[[Array], Array]  # what the prey sees [14] (tag) or [22] (world) -> action [2]

# Of the scripted prey: push at unit distance from one predator, pull towards the middle at distance 1, and the distance
# at which fear is largest. A push of 0.2 is enough for the prey's full speed, and with a fear of 0.04 scripted
# predators hardly ever touch it.
FEAR, HOME, CLOSEST = 0.015, 0.3, 0.1
NORM_EPS = 1e-5
LAYOUT: Mapping[str, tuple[int | str, ...]] = {
    **dict.fromkeys(("bn_gamma", "bn_beta", "bn_mean", "bn_var"), ("n",)),
    **{"w1": (64, "n"), "b1": (64,), "w2": (64, 64), "b2": (64,), "w3": (2, 64), "b3": (2,)},
}


def scripted_prey(task: Task) -> Prey:
    """Runs from the predators, each the more the nearer it is, and is drawn back to the middle of the arena.

    u = tanh(-0.015 sum_i d_i / max(|d_i|, 0.1)**2 - 0.3 |p|**2 p),  d_i = predator i - p

    The pull grows with the cube of the distance: little in the middle of the arena, which has no walls, and more than
    any fear well outside it. Obstacles are not seen, and neither are the velocities of the predators.
    """
    first = 4 + 2 * len(task.landmark_radius)

    def act(obs: Array) -> Array:
        position, predators = obs[2:4], obs[first : first + 6].reshape(3, 2)
        square = jnp.maximum(jnp.sum(predators**2, axis=-1, keepdims=True), CLOSEST**2)
        away = -FEAR * jnp.sum(predators / square, axis=0)
        return jnp.tanh(away - HOME * jnp.sum(position**2) * position)

    return act


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkPrey:
    """A prey of OMAR's layout; call it with what the prey sees.

    Attributes:
      params: see `prey_network`.
      published: whether it is OMAR's own, which published data and scores are about.
    """

    params: Mapping[str, Any]
    published: bool = False

    @property
    def obs_dim(self) -> int:
        return int(self.params["w1"].shape[1])

    def __call__(self, obs: Array) -> Array:
        weights = {name: jnp.asarray(value, obs.dtype) for name, value in self.params.items()}
        scale = weights["bn_gamma"] / jnp.sqrt(weights["bn_var"] + NORM_EPS)
        x = (obs - weights["bn_mean"]) * scale + weights["bn_beta"]
        for k in (1, 2):
            x = jax.nn.relu(weights[f"w{k}"] @ x + weights[f"b{k}"])
        return jnp.tanh(weights["w3"] @ x + weights["b3"])


@dataclasses.dataclass(frozen=True, eq=False)
class PolicyPrey:
    """A prey that acts by a policy; call it with what the prey sees.

    A task's step has no key to give, so a policy that draws its actions draws by the bits of what it sees: another
    state, or another episode, another draw.

    Attributes:
      act: (key, obs [O]) -> action [2]; pure, jit-able.
      obs_dim: O.
    """

    act: Callable[[Key, Array], Array]
    obs_dim: int

    def __call__(self, obs: Array) -> Array:
        bits = jax.lax.bitcast_convert_type(obs.astype(jnp.float32), jnp.uint32)
        odd = 2 * jnp.arange(self.obs_dim, dtype=jnp.uint32) + 1  # tells an observation from its permutations
        key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), jnp.sum(bits * odd, dtype=jnp.uint32))
        return self.act(key, obs)


def prey_network(params: Mapping[str, Any]) -> NetworkPrey:
    """A prey of the layout that OMAR's has, from its weights.

    x0 = (obs - bn_mean) / sqrt(bn_var + 1e-5) bn_gamma + bn_beta,  x_k = relu(w_k x_{k-1} + b_k) for k = 1, 2,
    u = tanh(w3 x2 + b3)

    Args:
      params: bn_gamma, bn_beta, bn_mean, bn_var [n], w1 [64, n], b1 [64], w2 [64, 64], b2 [64], w3 [2, 64], b3 [2],
        n = 14 in tag and 22 in world; what `data.sources.prey_file.read` returns, with published, a boolean: whether
        they are OMAR's own. Without it they are taken for another network's.

    Returns:
      Prey, with its `obs_dim` n, and `published`.

    Raises:
      ValueError: an array is missing, or of another shape, or not finite; a variance is negative.
    """
    missing = [name for name in LAYOUT if name not in params]
    if missing:
        raise ValueError(f"prey_network: no {', '.join(missing)} among {', '.join(sorted(params)) or 'nothing'}.")
    width = np.shape(params["bn_gamma"])[0] if np.ndim(params["bn_gamma"]) else 0
    for name, shape in LAYOUT.items():
        wanted = tuple(width if size == "n" else size for size in shape)
        if np.shape(params[name]) != wanted or not width:
            raise ValueError(f"prey_network: {name} has shape {np.shape(params[name])}, {wanted} is needed.")
        if not np.isfinite(params[name]).all():
            raise ValueError(f"prey_network: {name} has numbers that are not finite.")
    if np.min(params["bn_var"]) < 0:
        raise ValueError("prey_network: bn_var has negative numbers, and no variance is negative.")
    return NetworkPrey({name: np.asarray(params[name]) for name in LAYOUT}, bool(params.get("published", False)))
