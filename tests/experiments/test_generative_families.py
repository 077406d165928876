"""The families study: its metrics and densities against closed forms, and a tiny run from flags to figures."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from experiments.studies.generative_families import FAMILIES
from experiments.studies.generative_families import __main__ as command
from experiments.studies.generative_families._densities import DENSITIES
from experiments.studies.generative_families._study import Plan, part_path
from experiments.studies.generative_families._training import Progress, Sampler, Settings, train
from experiments.studies.metrics import Interval, interval, wasserstein2
from experiments.studies.metrics import energy_distance as eager_energy_distance

energy_distance = jax.jit(eager_energy_distance)


def cloud(seed, count, dim=2):
    return np.random.default_rng(seed).normal(size=(count, dim))


def random_parameters(family):
    """Not family.init, whose random numbers are most of the time to compile."""
    numbers = np.random.default_rng(6)
    shapes = jax.eval_shape(family.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.array(0.5 * numbers.normal(size=leaf.shape), dtype=leaf.dtype), shapes)


def test_energy_distance_of_point_masses_and_of_normals():
    at = np.array([[3.0, 4.0]])
    np.testing.assert_allclose(energy_distance(jnp.zeros((5, 2)), jnp.tile(at, (7, 1))), 2 * 5.0, rtol=1e-6)
    # N(0, 1) and N(m, 1): X - Y ~ N(m, 2), whose mean absolute value is known. Quantiles stand for the samples.
    quantiles = jax.scipy.stats.norm.ppf((np.arange(1000) + 0.5) / 1000)[:, None]
    m, root = 1.5, math.sqrt(2.0)
    mean_abs = root * math.sqrt(2 / math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)
    expected = 2 * mean_abs - 2 * root * math.sqrt(2 / math.pi)
    np.testing.assert_allclose(energy_distance(quantiles, quantiles + m), expected, atol=5e-3)


def test_energy_distance_is_the_unbiased_statistic():
    x, y = cloud(0, 12, 3), cloud(1, 9, 3) + 0.3
    within = [cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y)]
    expected = 2 * cdist(x, y).mean() - sum(within)
    np.testing.assert_allclose(energy_distance(jnp.array(x), jnp.array(y)), expected, rtol=1e-5)
    same = [float(energy_distance(jnp.array(cloud(s, 20)), jnp.array(cloud(s + 500, 20)))) for s in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / math.sqrt(200)
    with pytest.raises(ValueError, match="at least 2 of each"):
        energy_distance(jnp.zeros((1, 2)), jnp.zeros((5, 2)))


def test_wasserstein2_of_gaussians_with_one_optimal_map():
    # Between N(a, I) and N(b, s**2 I) the map x -> b + s (x - a) is optimal, for the clouds it joins too.
    x, shift, scale = cloud(2, 60), np.array([2.0, -1.0]), 0.4
    y = shift + scale * x
    joined = np.sqrt(np.square(x - y).sum(1).mean())
    assert wasserstein2(x, np.random.default_rng(0).permutation(y)) == pytest.approx(joined)
    many = cloud(3, 400)
    exact = math.sqrt(shift @ shift + 2 * (1 - scale) ** 2)
    assert wasserstein2(many, shift + scale * many) == pytest.approx(exact, rel=0.05)
    assert wasserstein2(np.zeros((4, 2)), np.full((4, 2), 3.0)) == pytest.approx(3.0 * math.sqrt(2))
    assert wasserstein2([[0.0], [math.nan]], [[0.0], [1.0]]) == math.inf
    with pytest.raises(ValueError, match="equally many points"):
        wasserstein2(x, x[:-1])


def test_interval_is_student_s():
    mean, half = interval([1.0, 2.0, 3.0])
    assert (mean, half) == (pytest.approx(2.0), pytest.approx(4.303 / math.sqrt(3), rel=1e-3))
    assert interval([1.0]).half_width == interval([1.0, math.inf]).half_width == math.inf
    assert [str(Interval(*pair)) for pair in ((12.345, 0.123), (5.0, 1.26), (1234.5, 56.0), (math.inf, 1.0))] == [
        "12.35 ± 0.12", "5.0 ± 1.3", "1234 ± 56", "not finite",
    ]  # fmt: skip


@pytest.mark.parametrize("name", DENSITIES)
def test_density_integrates_to_one_and_is_that_of_its_samples(name):
    density = DENSITIES[name]()
    # Cell centres; the board's edges lie between cells.
    points = (np.arange(600) + 0.5) / 600 * 6.8 - 3.4
    grid = np.stack(np.meshgrid(points, points), axis=-1)
    log_prob = np.asarray(jax.jit(density.log_prob)(jnp.array(grid)), dtype=float)
    mass = np.exp(log_prob) * (6.8 / 600) ** 2
    assert mass.sum() == pytest.approx(1.0, abs=2e-3)
    samples = jax.jit(density.sample, static_argnums=1)(jax.random.key(0), 20_000)
    assert samples.shape == (20_000, 2)
    of_samples = np.asarray(jax.jit(density.log_prob)(samples))
    assert np.isfinite(of_samples).all()
    # Means of features under the density and over the samples, four standard errors apart at most.
    waves = (lambda x: np.cos(3 * x[..., 0]), lambda x: np.sin(2 * x[..., 1]) * x[..., 0])
    for feature in (*waves, lambda x: np.square(x).sum(-1)):
        drawn = feature(np.asarray(samples, dtype=float))
        assert drawn.mean() == pytest.approx((mass * feature(grid)).sum(), abs=4 * drawn.std() / math.sqrt(20_000))
    # The number of samples where the density says half of the mass lies.
    order = np.sort(log_prob.ravel())[::-1]
    if name != "checkerboard":
        bar = order[np.searchsorted(np.cumsum(np.exp(order)) * (6.8 / 600) ** 2, 0.5)]
        assert np.mean(of_samples > bar) == pytest.approx(0.5, abs=0.015)


def test_gan_losses_move_each_network_by_its_own_gradient():
    family = FAMILIES["gan"]((4,))
    params, key = random_parameters(family), jax.random.key(1)
    x0 = jnp.array(cloud(4, 6), dtype=jnp.float32)

    def both(params):
        gradient = jax.grad(family.loss)(params, key, x0, Progress(0, 1), 0.0)
        return gradient, family.samplers[0].draw(params, key, 6)

    gradient, fake = jax.jit(both)(params)

    def logit(weights, x):
        hidden, out = weights["params"]["Dense_0"], weights["params"]["Dense_1"]
        y = x @ hidden["kernel"] + hidden["bias"][None]
        return (y * jnp.tanh(jnp.logaddexp(y, 0.0)) @ out["kernel"] + out["bias"][None])[:, 0]

    def critic_loss(weights):
        real, generated = logit(weights, x0), logit(weights, fake)
        return -jnp.mean(jnp.log(jax.nn.sigmoid(real)) + jnp.log(1.0 - jax.nn.sigmoid(generated)))

    expected = jax.jit(jax.grad(critic_loss))(params["discriminator"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient["discriminator"], expected)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["generator"]))


@pytest.mark.parametrize("name", FAMILIES)
def test_family_learns_at_every_step_draws_and_scores(name):
    family = FAMILIES[name]((8,))
    key, x = jax.random.key(0), jnp.array(cloud(5, 4), dtype=jnp.float32)
    cheapest = min(family.samplers, key=lambda sampler: sampler.num_calls)

    def everything(params):
        at = jax.vmap(lambda step: jax.grad(family.loss)(params, key, x, Progress(step, 100), family.settings.knob))
        scores = [log_prob(params, key, x) for log_prob in family.log_probs.values()]
        return at(jnp.array([0, 99])), cheapest.draw(params, key, 3), scores

    gradient, samples, scores = jax.jit(everything)(random_parameters(family))
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
        assert np.any(np.asarray(leaf), axis=tuple(range(1, leaf.ndim))).all()
    assert samples.shape == (3, 2)
    assert np.isfinite(samples).all()
    assert np.isfinite(np.array(scores)).all()
    assert len({(sampler.name, sampler.num_calls) for sampler in family.samplers}) == len(family.samplers)
    assert family.settings.knob in family.knob_values


def gaussian_family():
    """Learns the mean of a Gaussian: a program that compiles at once."""

    def draw(params, key, count):
        return params[None] + jax.random.normal(key, (count, 2))

    def log_prob(params, key, x):
        return -0.5 * jnp.sum(jnp.square(x - params[None]), axis=-1) - math.log(2 * math.pi)

    return FAMILIES["flow"]((8,))._replace(
        init=lambda key: jnp.full(2, 3.0),
        loss=lambda params, key, x0, progress, knob: jnp.mean(jnp.square(x0 - params[None])),
        samplers=tuple(Sampler("Euler", calls, draw) for calls in (3, 2, 1)),
        log_probs={"ODE": log_prob},
        settings=Settings(0.05, 0.0),
    )


def test_training_brings_lanes_to_the_optimum_at_their_own_rates():
    family, data = gaussian_family(), jnp.array(cloud(7, 40), dtype=jnp.float32)
    settings = Settings(jnp.array([0.05, 0.0, 0.05]), jnp.zeros(3))
    means = train(family, jax.random.split(jax.random.key(0), 3), settings, data, num_updates=400, batch_size=40)
    np.testing.assert_allclose(means[::2], np.broadcast_to(data.mean(0), (2, 2)), atol=0.1)
    assert not np.array_equal(means[0], means[2])  # each lane draws its own batches
    np.testing.assert_array_equal(means[1], [3.0, 3.0])  # a learning rate of 0


SMALL = ("--batch_size=8", "--num_data=50", "--num_samples=30", "--num_assigned=10", "--num_scored=20", "--max_calls=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("families")
    flags = [f"--out={out}", "--densities=ring", "--families=flow", "--seeds=2", "--updates=300", *SMALL]
    family = gaussian_family()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "flow", lambda hidden: family)
        assert command.main(flags) == 0
        yield out, flags


def test_a_run_measures_each_sampler_and_the_floor(run):
    out, _ = run
    results = {entry["family"]: entry for entry in json.loads((out / "results.json").read_text())}
    calls = {name: [row["num_calls"] for row in entry["samplers"]] for name, entry in results.items()}
    assert calls == {"floor": [0], "flow": [2, 1]}
    rows = {name: json.loads(part_path(out, name, "ring").read_text())["rows"] for name in results}
    assert all(len(row["energy"]) == len(row["w2"]) == 2 for own in rows.values() for row in own)
    # N(0, I) is not the ring, but far closer to it than where training started.
    assert 0.0 < results["flow"]["samplers"][0]["w2"]["mean"] < 2.0
    # KL(ring || N(0, I)): the ring's entropy is that of one mode plus log 8, its second moment 1.4**2 + 2 0.1**2.
    entropy = math.log(2 * math.pi * math.e * 0.1**2 * 8)
    assert results["flow"]["gaps"]["ODE"]["mean"] == pytest.approx(math.log(2 * math.pi) + 0.99 - entropy, abs=0.25)


def test_report_has_a_line_per_sampler_and_figures(run):
    out, _ = run
    table = (out / "table.md").read_text()
    for row in ("| fresh data |", "| flow matching | Euler | 1 |", "| flow matching | Euler | 2 |"):
        assert row in table
    assert "| flow matching | ODE |" in table
    for name in ("samples", "calls"):
        svg = (out / f"{name}.svg").read_text()
        assert svg.startswith("<?xml") and len(svg) < 300_000


def test_what_is_there_is_not_done_again_unless_the_plan_changed(run, monkeypatch):
    out, flags = run
    done = []
    monkeypatch.setattr(command, "run_part", lambda out, name, *rest: done.append(name))
    assert command.main(flags) == 0
    assert done == []
    assert command.main([*flags, "--batch_size=9", "--families=gan,flow"]) == 0
    assert done == ["gan", "flow"]


def test_unknown_names_are_told(tmp_path):
    with pytest.raises(KeyError, match="did you mean 'flow'"):
        command.main([f"--out={tmp_path}", "--families=flw"])


def test_keys_depend_on_purpose_and_density_alone():
    plan = Plan(seeds=2, num_samples=3)
    keys = [plan.key(density, purpose) for density in DENSITIES for purpose in ("data", "fresh", "train", "draw")]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)
    np.testing.assert_array_equal(plan.fresh("ring")[0], Plan(seeds=2, num_samples=3, updates=1).fresh("ring")[0])
