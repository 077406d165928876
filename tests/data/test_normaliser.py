"""Units measured on data: their formulas in float64, the way back, and constant dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data import NORMALISERS, blank_normaliser, fit_normaliser

every = pytest.mark.parametrize("name", NORMALISERS)


def data(constant=False, seed=0):
    x = np.random.default_rng(seed).gamma(2.0, size=(500, 3)) * [1.0, 20.0, 0.05] + [0.0, 1000.0, -3.0]
    if constant:
        x[:, 1] = 7.0
    return x.astype(np.float32)


@every
def test_there_and_back_is_the_identity_on_the_data(name):
    x = data()
    normaliser = fit_normaliser(name, x)
    np.testing.assert_allclose(normaliser.unnormalise(normaliser.normalise(x)), x, rtol=1e-5, atol=1e-5)


def test_limits_map_the_data_onto_the_box():
    x = data().astype(np.float64)
    wanted = 2.0 * (x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0)) - 1.0
    np.testing.assert_allclose(fit_normaliser("limits", data()).normalise(data()), wanted, atol=1e-4)


def test_gaussian_gives_mean_zero_and_deviation_one():
    x = data().astype(np.float64)
    np.testing.assert_allclose(
        fit_normaliser("gaussian", data()).normalise(data()), (x - x.mean(axis=0)) / x.std(axis=0), atol=1e-4
    )


def test_quantile_gives_every_row_the_share_of_the_data_below_it():
    x = data()
    rank = np.argsort(np.argsort(x, axis=0), axis=0) / (len(x) - 1)
    np.testing.assert_allclose(fit_normaliser("quantile", x).normalise(x), 2.0 * rank - 1.0, atol=0.02)


@every
def test_a_constant_dimension_comes_back_as_itself_and_disturbs_no_other(name):
    x = data(constant=True)
    normaliser = fit_normaliser(name, x)
    y = np.asarray(normaliser.normalise(x))
    np.testing.assert_array_equal(y[:, 1], 7.0 if name == "none" else 0.0)
    np.testing.assert_allclose(normaliser.unnormalise(y), x, rtol=1e-5, atol=1e-5)
    alone = fit_normaliser(name, x[:, [0]])
    np.testing.assert_allclose(y[:, 0], alone.normalise(x[:, [0]])[:, 0], atol=1e-4)


@pytest.mark.parametrize("name", ["limits", "quantile"])
def test_what_leaves_the_box_comes_back_at_the_data_s_edge(name):
    x = data()
    far = fit_normaliser(name, x).unnormalise(jnp.array([5.0, -5.0, 1.5]))
    np.testing.assert_allclose(far, [x[:, 0].max(), x[:, 1].min(), x[:, 2].max()], rtol=1e-6)


@every
def test_a_blank_one_has_the_same_structure_and_keeps_the_box(name):
    blank, fitted = blank_normaliser(name, 3), fit_normaliser(name, data())
    assert jax.tree.map(jnp.shape, blank) == jax.tree.map(jnp.shape, fitted)
    box = jnp.array([[-1.0, 0.0, 0.5]])
    np.testing.assert_allclose(blank.normalise(box), box, atol=1e-6)


@every
def test_leading_axes_and_jit_change_nothing(name):
    normaliser, x = fit_normaliser(name, data()), data(seed=1)[:24].reshape(2, 12, 3)
    single = np.stack([normaliser.normalise(row) for row in x.reshape(-1, 3)]).reshape(x.shape)
    np.testing.assert_allclose(jax.jit(lambda n, x: n.normalise(x))(normaliser, x), single, rtol=1e-5, atol=1e-6)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(KeyError, match="unknown normaliser 'gausian'; .*gaussian.*limits"):
        fit_normaliser("gausian", data())
