"""What guidance does to a density whose labels are known: weights above one, conjunction and negation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.diffusion import Level, cfg, compose, make_table, sample
from jaxdiff.io.gallery import plane
from jaxdiff.io.gallery.mixture import Mixture
from jaxdiff.io.gallery.picture import Panel, Picture, window
from jaxdiff.io.gallery.settings import Settings
from jaxdiff.io.report.markup import Markup
from jaxdiff.types import Array

WEIGHTS = (0.0, 1.0, 2.0, 4.0)
PARTICLES = 300
CALLS = 40  # enough that what is seen is the guidance, not the sampler
SOLVER = "dpmpp_2m"
FIRST, SECOND = np.array([1, 1, 0, 0, 0]), np.array([0, 1, 1, 0, 0])  # the arms that two labels stand for
# Title, weights of the two labels, and the arms that remain where logic is taken at its word.
COMPOSED: tuple[tuple[str, tuple[float, float], np.ndarray], ...] = (
    ("A and B", (1.0, 1.0), FIRST * SECOND),
    ("not B", (0.0, -0.3), 1 - SECOND),
    ("A and not B", (1.0, -0.3), FIRST * (1 - SECOND)),
    ("A and not B", (1.0, -1.0), FIRST * (1 - SECOND)),
)


def guidance(settings: Settings, mixture: Mixture) -> Picture:
    """Particles under `cfg` at several weights, and under `compose`."""
    first, again = plane.background(mixture, "guidance-density")
    panels = []
    for k, (weight, points) in enumerate(zip(WEIGHTS, guided(settings, mixture, WEIGHTS), strict=True)):
        arms = FIRST if weight else np.ones_like(FIRST)
        title = "no label, w = 0" if weight == 0 else f"A, w = {weight:g}"
        panels.append(_panel(title, f"guidance-{k}", mixture, points, arms, again if k else first))
    clouds = composed(settings, mixture, [weights for _, weights, _ in COMPOSED])
    for k, ((title, (a, b), arms), points) in enumerate(zip(COMPOSED, clouds, strict=True)):
        weights = f"{title}, w = {b:g}" if a == 0 else f"{title}, w = {a:g}, {b:g}"
        panels.append(_panel(weights, f"guidance-composed-{k}", mixture, points, arms, again))
    title = "Guidance towards label A (two arms), and logic with label B"
    key = "Dashed: 95 % of the data that the labels ask for, and the share of 300 particles inside. Colours: arms."
    return Picture("gallery-guidance", title, key, 4, tuple(panels), "quads")


def guided(settings: Settings, mixture: Mixture, weights: Sequence[float]) -> np.ndarray:
    """Samples [W, B, 2] under classifier-free guidance towards the first label, all weights in one program."""

    def run(weight: Array, x: Array, members: Array) -> Array:
        denoise = cfg(_denoiser(mixture), members, jnp.ones_like(members), weight)
        return sample(denoise, _table(settings), x)

    x, members = _start(settings, mixture), _members(FIRST)
    return np.asarray(jax.jit(jax.vmap(run, in_axes=(0, None, None)))(jnp.array(weights), x, members))


def composed(settings: Settings, mixture: Mixture, weights: Sequence[tuple[float, float]]) -> np.ndarray:
    """Samples [W, B, 2] under weights of the first and of the second label."""

    def run(pair: Array, x: Array, first: Array, second: Array) -> Array:
        denoise = compose(_denoiser(mixture), [first, second], jnp.ones_like(first), [pair[0], pair[1]])
        return sample(denoise, _table(settings), x)

    x, first, second = _start(settings, mixture), _members(FIRST), _members(SECOND)
    return np.asarray(jax.jit(jax.vmap(run, in_axes=(0, None, None, None)))(jnp.array(weights), x, first, second))


def _denoiser(mixture: Mixture) -> Any:
    def denoise(x: Array, level: Level, members: Array) -> Array:
        return mixture.denoise(x, level.alpha, level.sigma, members)

    return denoise


def _table(settings: Settings) -> Any:
    return make_table(SOLVER, settings.make_schedule(), CALLS, spacing=settings.spacing_name, grid=settings.grid())


def _start(settings: Settings, mixture: Mixture) -> Array:
    generator = np.random.default_rng(settings.seed)
    start = settings.start()
    x0, eps = mixture.draw(generator, PARTICLES), generator.standard_normal((PARTICLES, 2))
    return jnp.asarray(start.alpha * x0 + start.sigma * eps, jnp.float32)


def _members(arms: np.ndarray) -> Array:
    return jnp.tile(jnp.asarray(arms, jnp.float32), (PARTICLES, 1))


def _panel(title: str, name: str, mixture: Mixture, points: np.ndarray, arms: np.ndarray, background: Markup) -> Panel:
    """Particles, and a line around where they should be: on the arms that are meant."""
    line, level = plane.region(mixture, arms)
    inside = float(np.mean(mixture.density(points, arms) >= level))
    marks = [background, plane.cloud(points, mixture.component(points), "cloud"), line]
    note = f"{inside:.0%} inside, spread {spread(points, mixture.component(points)):.2f}"
    words = f"Particles under guidance, {title}: {note}."
    return Panel(title, note, plane.SIZE, plane.SIZE, window(name, plane.SIZE, plane.SIZE, *marks), words)


def spread(points: np.ndarray, component: np.ndarray) -> float:
    """Root mean square distance per coordinate of points [B, 2] to the mean of those of their component [B]."""
    means = np.stack([points[component == c].mean(axis=0) for c in component])
    return float(np.sqrt(np.mean((points - means) ** 2)))
