"""What holds for every denoising network, and the sizes of the papers' ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.networks import ACTIVATIONS, NETWORKS, Mlp, MlpDenoiser, QFunction
from jaxdiff.networks.embedding import sinusoidal

OBS, ACTION = 5, 3
networks = pytest.mark.parametrize("name", NETWORKS)


def small(name, **options):
    return NETWORKS[name](out=ACTION, hidden=(8, 8), **options)


def inputs(*batch):
    random = np.random.default_rng(0)
    x, cond = (jnp.asarray(random.normal(size=(*batch, size)), jnp.float32) for size in (ACTION, OBS))
    return x, jnp.asarray(random.uniform(size=batch), jnp.float32), cond


def num_params(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def dense(*widths):
    return sum(i * o + o for i, o in zip(widths[:-1], widths[1:], strict=True))


@networks
def test_any_leading_axes_give_outputs_shaped_like_x(name):
    network = small(name)
    variables = jax.jit(network.init)(jax.random.key(0), *inputs())
    apply = jax.jit(network.apply)
    for batch in ((), (2, 4)):
        x, t, cond = inputs(*batch)
        out = apply(variables, x, t, cond)
        assert (out.shape, out.dtype) == (x.shape, jnp.float32)
        shared = apply(variables, x, jnp.float32(0.3), cond)
        np.testing.assert_allclose(shared, apply(variables, x, jnp.full(batch, 0.3), cond), atol=1e-6)


@networks
@pytest.mark.parametrize("layer_norm", [False, True])
def test_examples_do_not_see_one_another_but_see_their_own_inputs(name, layer_norm):
    network = small(name, layer_norm=layer_norm)
    x, t, cond = inputs(4)
    variables, apply = jax.jit(network.init)(jax.random.key(0), x, t, cond), jax.jit(network.apply)
    before = apply(variables, x, t, cond)
    for which in range(3):
        changed = [x, t, cond]
        changed[which] = changed[which].at[1].add(1.0)
        after = apply(variables, *changed)
        others = np.array([0, 2, 3])
        np.testing.assert_allclose(after[others], before[others], atol=1e-6)
        assert np.abs(after[1] - before[1]).max() > 1e-4
    row = apply(variables, x[2], t[2], cond[2])
    np.testing.assert_allclose(row, before[2], atol=1e-5)


@networks
def test_every_parameter_gets_a_finite_gradient(name):
    network = small(name)
    x, t, cond = inputs(16)
    variables = jax.jit(network.init)(jax.random.key(0), x, t, cond)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(network.apply(v, x, t, cond) ** 2)))(variables)
    for leaf in jax.tree.leaves(gradient):
        assert jnp.isfinite(leaf).all()
        assert jnp.abs(leaf).max() > 0


def test_diffusion_ql_s_policy_and_critic_have_the_papers_sizes():
    """Wang et al. 2023: 3 x 256 and a time embedding 16 -> 32 -> 16; walker2d has 17 observations and 6 actions."""
    obs, action = jnp.zeros(17), jnp.zeros(6)
    policy = jax.eval_shape(MlpDenoiser(out=6).init, jax.random.key(0), action, jnp.zeros(()), obs)
    assert num_params(policy) == dense(16, 32, 16) + dense(6 + 16 + 17, 256, 256, 256, 6) == 144_438
    critic = jax.eval_shape(QFunction().init, jax.random.key(0), obs, action)
    assert num_params(critic) == dense(17 + 6, 256, 256, 256, 1) == 137_985


def test_layer_norm_adds_a_scale_and_a_shift_per_hidden_unit():
    sizes = [
        num_params(jax.eval_shape(Mlp((8, 7), 3, layer_norm=norm).init, jax.random.key(0), jnp.zeros(5)))
        for norm in (False, True)
    ]
    assert sizes == [dense(5, 8, 7, 3), dense(5, 8, 7, 3) + 2 * (8 + 7)]


def test_q_functions_drop_the_last_axis_and_read_obs_before_action():
    q = QFunction(hidden=(8,))
    x, _, cond = inputs(2, 4)
    variables = q.init(jax.random.key(0), cond, x)
    assert q.apply(variables, cond, x).shape == (2, 4)
    mlp = Mlp((8,), 1)
    joined = mlp.apply({"params": variables["params"]["Mlp_0"]}, jnp.concatenate([cond, x], axis=-1))
    np.testing.assert_allclose(q.apply(variables, cond, x), joined[..., 0], rtol=1e-5)


def test_kernels_are_uniform_within_one_over_the_root_of_fan_in():
    kernel = Mlp((), 400).init(jax.random.key(0), jnp.zeros(100))["params"]["Dense_0"]["kernel"]
    assert 0.0999 < jnp.abs(kernel).max() <= 0.1
    np.testing.assert_allclose(jnp.var(kernel), 0.1**2 / 3, rtol=0.03)


def test_mish_equals_its_definition(x64):
    x = np.linspace(-50.0, 50.0, 2001)
    softplus = np.logaddexp(0.0, x)
    mish = ACTIVATIONS["mish"]
    # tanh(softplus) loses digits where softplus is tiny: the definition is good to an absolute 1e-15 there.
    np.testing.assert_allclose(mish(jnp.asarray(x)), x * np.tanh(softplus), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(mish(jnp.asarray(x, jnp.float32)), x * np.tanh(softplus), rtol=1e-5, atol=1e-15)
    slope = jax.vmap(jax.grad(mish))(jnp.asarray(x))
    sigmoid = np.exp(x - softplus)
    expected = np.tanh(softplus) + x * sigmoid * (1 - np.tanh(softplus) ** 2)
    np.testing.assert_allclose(slope, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_slopes_are_finite_far_out(name):
    x = jnp.array([-1e4, -100.0, -50.0, 0.0, 20.0, 50.0, 100.0, 1e4])
    assert jnp.isfinite(ACTIVATIONS[name](x)).all()
    assert jnp.isfinite(jax.vmap(jax.grad(ACTIVATIONS[name]))(x)).all()


def test_sines_and_cosines_at_geometric_frequencies(x64):
    t = np.array([[0.0, 1.0], [3.0, 999.0]])
    frequency = np.exp(-np.arange(8) * np.log(1e4) / 7)
    expected = np.concatenate([np.sin(t[..., None] * frequency), np.cos(t[..., None] * frequency)], axis=-1)
    np.testing.assert_allclose(sinusoidal(jnp.asarray(t), 16), expected, atol=1e-10)


@pytest.mark.parametrize("dim", [2, 7])
def test_an_embedding_without_room_for_pairs_is_refused(dim):
    with pytest.raises(ValueError, match=f"time_dim={dim}; it must be even and at least 4"):
        sinusoidal(jnp.zeros(3), dim)


def test_times_that_would_broadcast_wrongly_are_refused():
    """Levels [B] for chunks [B, H, D] with B = H would be given to the wrong axis."""
    x, _, cond = inputs(4, 4)
    with pytest.raises(ValueError, match=r"t has shape \(4,\); allowed for x of shape \(4, 4, 3\): \(\) or \(4, 4\)"):
        small("mlp").init(jax.random.key(0), x, jnp.zeros(4), cond)


def test_an_unknown_activation_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match="unknown activation 'mihs'; did you mean 'mish'"):
        Mlp((8,), 1, "mihs").init(jax.random.key(0), jnp.zeros(3))
