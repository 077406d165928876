"""The networks of the algorithms written out in float64 numpy, and states whose policy is known in closed form.

Nothing here calls the package: what the tests compare against is independent of what they test.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Tree = Any
Activation = Callable[[np.ndarray], np.ndarray]


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.logaddexp(0.0, x))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def mlp(layers: dict[str, Any], x: np.ndarray, activation: Activation = mish) -> np.ndarray:
    """Dense_0 ... Dense_n with the activation between them. x [*B, I] -> [*B, out]."""
    for i in range(len(layers)):
        layer = layers[f"Dense_{i}"]
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        x = activation(x) if i < len(layers) - 1 else x
    return x


def q_values(critics: Tree, obs: np.ndarray, action: np.ndarray, activation: Activation = mish) -> np.ndarray:
    """[E, B] of critics whose parameters carry a leading axis E; obs [B, O], action [B, U]."""
    x = np.concatenate([obs, action], axis=-1).astype(np.float64)
    layers = critics["params"]["Mlp_0"]
    count = np.shape(layers["Dense_0"]["bias"])[0]
    single = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], layers) for i in range(count)]
    return np.stack([mlp(network, x, activation)[..., 0] for network in single])


def noise_model(params: Tree, x: np.ndarray, t: float, cond: np.ndarray, time_dim: int) -> np.ndarray:
    """The denoiser of Diffusion-QL: concat[x, embed(t), cond] through an MLP. x [B, D], cond [B, O] -> [B, D]."""
    tree = params["params"]
    half = time_dim // 2
    angle = t * 10_000.0 ** (-np.arange(half) / (half - 1))
    time = np.concatenate([np.sin(angle), np.cos(angle)])
    time = mlp({"Dense_0": tree["Dense_0"], "Dense_1": tree["Dense_1"]}, time)
    time = np.broadcast_to(time, (len(x), time_dim))
    return mlp(tree["Mlp_0"], np.concatenate([x, time, cond], axis=-1))


def last_layer(layers: dict[str, Any]) -> str:
    return f"Dense_{len(layers) - 1}"


def with_layer(params: Tree, name: str, **leaves: Any) -> Tree:
    """A copy of a network's parameters with leaves of one layer of its Mlp_0 replaced."""
    mlp_layers = params["params"]["Mlp_0"]
    changed = {key: np.broadcast_to(np.float32(value), mlp_layers[name][key].shape) for key, value in leaves.items()}
    layers = {**mlp_layers, name: {**mlp_layers[name], **{key: np.array(value) for key, value in changed.items()}}}
    return {"params": {**params["params"], "Mlp_0": layers}}


def constant_policy(params: Tree, action: Any) -> Tree:
    """The policy's parameters so that the network answers `action` [U] whatever it sees."""
    return with_layer(params, last_layer(params["params"]["Mlp_0"]), kernel=0.0, bias=action)


def coin_policy(params: Tree, gain: float = 1e6) -> Tree:
    """For a network of one hidden layer: the answer to x is gain x, so that clipped it is the sign of x.

    mish(z) - mish(-z) = z for |z| large; unit 2u sees gain x_u, unit 2u + 1 sees -gain x_u, all else is 0.
    """
    layers = params["params"]["Mlp_0"]
    first, last = np.zeros_like(layers["Dense_0"]["kernel"]), np.zeros_like(layers["Dense_1"]["kernel"])
    for u in range(last.shape[1]):
        first[u, 2 * u], first[u, 2 * u + 1] = gain, -gain
        last[2 * u, u], last[2 * u + 1, u] = 1.0, -1.0
    params = with_layer(params, "Dense_0", kernel=first, bias=0.0)
    return with_layer(params, "Dense_1", kernel=last, bias=0.0)


def random_params(shapes: Tree, seed: int = 0) -> Tree:
    """Weights of the given shapes, uniform within 1 / sqrt(fan in): drawing them takes no compilation."""
    rng = np.random.default_rng(seed)

    def draw(leaf: Any) -> np.ndarray:
        bound = 1.0 / np.sqrt(leaf.shape[-2] if len(leaf.shape) > 1 else 16.0)
        return rng.uniform(-bound, bound, size=leaf.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


def zeros(shapes: Tree) -> Tree:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def scaled_critics(critics: Tree, factor: float) -> Tree:
    """The critics' parameters so that every Q is multiplied by `factor`."""
    layers = critics["params"]["Mlp_0"]
    name = last_layer(layers)
    return with_layer(
        critics,
        name,
        kernel=factor * np.asarray(layers[name]["kernel"]),
        bias=factor * np.asarray(layers[name]["bias"]),
    )
