"""Where biases start: at zero, or drawn as PyTorch draws them."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.networks import BIASES, Mlp

torch = jax.jit(BIASES["torch"])


def init(module, width):
    return jax.jit(module.init)(jax.random.key(0), jnp.zeros(width))


def by_path(params):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def test_zeros_change_nothing():
    params = init(Mlp((8,), 3), 5)
    assert BIASES["zeros"](jax.random.key(1), params) is params
    assert all((leaf == 0).all() for path, leaf in by_path(params).items() if "bias" in path)


def test_torch_biases_are_uniform_within_one_over_the_root_of_fan_in():
    params = torch(jax.random.key(1), init(Mlp((4000,), 900), 100))["params"]
    for layer, fan_in in (("Dense_0", 100), ("Dense_1", 4000)):
        bias, bound = np.asarray(params[layer]["bias"]), fan_in**-0.5
        assert 0.98 * bound < np.abs(bias).max() <= bound
        assert abs(bias.mean()) < 4.5 * bound / np.sqrt(3 * len(bias))
        np.testing.assert_allclose(bias.var(), bound**2 / 3, rtol=0.12)
    assert np.abs(np.corrcoef(params["Dense_0"]["bias"][:900], params["Dense_1"]["bias"])[0, 1]) < 0.15


def test_only_biases_beside_a_kernel_are_drawn():
    before = init(Mlp((8,), 3, layer_norm=True), 5)
    changed = {
        path
        for path, leaf in by_path(torch(jax.random.key(1), before)).items()
        if (np.asarray(leaf) != np.asarray(by_path(before)[path])).any()
    }
    assert changed == {"['params']['Dense_0']['bias']", "['params']['Dense_1']['bias']"}


def test_fan_in_of_a_convolution_counts_its_window():
    params = init(nn.Conv(2000, (5,)), (7, 20))
    bias = np.asarray(torch(jax.random.key(1), params)["params"]["bias"])
    assert 0.098 < np.abs(bias).max() <= 0.1  # 1 / sqrt(5 * 20)


def test_members_of_an_ensemble_differ_under_vmap():
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), init(Mlp((), 50), 4))
    bias = jax.vmap(torch)(jax.random.split(jax.random.key(1)), stacked)["params"]["Dense_0"]["bias"]
    assert bias.shape == (2, 50)
    assert np.abs(bias).max() <= 0.5
    assert (bias[0] != bias[1]).all()
