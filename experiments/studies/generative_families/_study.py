"""Trains a family on a density, measures it, and keeps what was measured in one file per pair."""

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import math
from pathlib import Path
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.io.files import read_json, write_json_atomic
from jaxdiff.sweep import over_lanes
from jaxdiff.types import Array, Key

from ..metrics import energy_distance, wasserstein2
from ._densities import DENSITIES
from ._training import Family, Params, Settings, lane_mode, num_parameters, train

SHOWN_POINTS = 1500  # of the first seed, for the picture
FLOOR = "fresh data"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done for each pair; a part that was made by another plan is made anew."""

    seeds: int = 10
    updates: int = 5000
    batch_size: int = 256
    hidden: tuple[int, ...] = (64, 64, 64)
    num_data: int = 10_000
    num_samples: int = 4000  # for the energy distance
    num_assigned: int = 500  # of them for W2
    num_scored: int = 1000  # of the fresh data for the likelihood
    max_calls: int = 1000  # samplers that need more are left out, all but the cheapest

    def key(self, density: str, purpose: str) -> Key:
        """Keys depend on what they are for alone, not on the order of the parts."""
        key = jax.random.fold_in(jax.random.key(0), list(DENSITIES).index(density))
        return jax.random.fold_in(key, ("data", "fresh", "train", "draw", "score", "tune").index(purpose))

    def data(self, density: str) -> Array:
        """The training data [N, 2], the same for every family and seed."""
        return _draw_data(density, self.key(density, "data"), self.num_data)

    def fresh(self, density: str, purpose: str = "fresh") -> Array:
        """Data that nothing was trained on, others for each seed: [S, num_samples, 2]."""
        keys = jax.random.split(self.key(density, purpose), self.seeds)
        return jax.vmap(lambda key: _draw_data(density, key, self.num_samples))(keys)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _draw_data(density: str, key: Key, count: int) -> Array:
    return DENSITIES[density]().sample(key, count)


def part_path(out: Path, family: str, density: str) -> Path:
    return out / "parts" / f"{family}-{density}.json"


def has_part(path: Path, plan: Plan, family: Family | None = None) -> bool:
    """Whether the part is there, and made by the same plan and settings."""
    if not path.is_file():
        return False
    part = read_json(path)
    wanted = None if family is None else family.settings._asdict()
    return part["plan"] == _as_json(plan) and part.get("settings") == wanted


def _as_json(plan: Plan) -> dict[str, Any]:
    return {**dataclasses.asdict(plan), "hidden": list(plan.hidden)}


def run_floor(out: Path, density: str, plan: Plan) -> None:
    """The metrics between two fresh data sets: what no family can do better than."""
    other = plan.fresh(density, "draw")
    row = {"sampler": FLOOR, "num_calls": 0, **_distances(other, plan.fresh(density), plan)}
    _write(part_path(out, "floor", density), plan, rows=[row], shown=plan.data(density)[:SHOWN_POINTS])


def run_part(out: Path, name: str, family: Family, density: str, plan: Plan) -> None:
    """Trains all seeds of a family on a density in one program, measures them and writes the part."""
    keys = jax.random.split(plan.key(density, "train"), plan.seeds)
    settings = Settings(*(jnp.full(plan.seeds, float(value)) for value in family.settings))
    started = time.perf_counter()
    params = train(family, keys, settings, plan.data(density), num_updates=plan.updates, batch_size=plan.batch_size)
    jax.block_until_ready(params)
    seconds = time.perf_counter() - started
    fresh, rows, shown = plan.fresh(density), [], None
    affordable = [sampler for sampler in family.samplers if sampler.num_calls <= plan.max_calls]
    for sampler in affordable or [min(family.samplers, key=lambda sampler: sampler.num_calls)]:
        samples = draw(sampler.draw, params, jax.random.split(plan.key(density, "draw"), plan.seeds), plan.num_samples)
        rows.append({"sampler": sampler.name, "num_calls": sampler.num_calls, **_distances(samples, fresh, plan)})
        shown = samples[0, :SHOWN_POINTS] if shown is None else shown
    _write(
        part_path(out, name, density),
        plan,
        rows=rows,
        shown=shown,
        gaps=_gaps(family, params, density, fresh[:, : plan.num_scored], plan),
        settings=family.settings._asdict(),
        num_parameters=num_parameters(family),
        train_seconds=seconds,
    )


@functools.cache
def _drawing(function: Any, count: int, mode: str) -> Any:
    return over_lanes(lambda lane: function(*lane, count), mode)


def draw(function: Any, params: Params, keys: Key, count: int) -> np.ndarray:
    """Samples of every lane, [S, count, 2]."""
    return np.asarray(_drawing(function, count, lane_mode(len(keys)))((params, keys)))


@functools.cache
def _scoring(function: Any, mode: str) -> Any:
    return over_lanes(lambda lane: function(*lane), mode)


def _gaps(family: Family, params: Params, density: str, x: Array, plan: Plan) -> dict[str, list[float]]:
    """E_p[log p - log q] per seed in nats: KL(data || model) for an exact log q, more than it for a bound."""
    keys = jax.random.split(plan.key(density, "score"), plan.seeds)
    exact = DENSITIES[density]().log_prob(x) if family.log_probs else None
    gaps = {}
    for name, log_prob in family.log_probs.items():
        values = _scoring(log_prob, lane_mode(plan.seeds))((params, keys, x))
        gaps[name] = np.mean(np.asarray(exact) - np.asarray(values), axis=1).tolist()
    return gaps


_energy = jax.jit(energy_distance)


def _distances(samples: Any, fresh: Array, plan: Plan) -> dict[str, list[float]]:
    """Energy distance and W2 per seed; infinite where a sample is not finite."""
    few, pairs = plan.num_assigned, list(zip(np.asarray(samples), np.asarray(fresh), strict=True))
    return {"energy": _energies(pairs), "w2": [wasserstein2(x[:few], y[:few]) for x, y in pairs]}


def _energies(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    values = [float(_energy(jnp.asarray(x), jnp.asarray(y))) for x, y in pairs]
    return [value if math.isfinite(value) else math.inf for value in values]


def _write(path: Path, plan: Plan, *, shown: Any, **content: Any) -> None:
    points = np.round(np.asarray(shown, dtype=float), 3)
    write_json_atomic(path, {"plan": _as_json(plan), **content, "shown": points})


def tune(family: Family, density: str, plan: Plan, *, rates: tuple[float, ...]) -> list[Mapping[str, Any]]:
    """Every learning rate with both values of the knob, all of them and all seeds as lanes of one program.

    Returns:
      One row per setting with the energy distance per seed, of the family's first sampler. Its seeds and its fresh data
      are not those of the study.
    """
    grid = [Settings(rate, knob) for rate in rates for knob in family.knob_values]
    lanes = [setting for setting in grid for _ in range(plan.seeds)]
    settings = Settings(*(jnp.asarray(values, dtype=float) for values in zip(*lanes, strict=True)))
    # Settings are compared on the same seeds.
    both = [jax.random.split(key, plan.seeds) for key in jax.random.split(plan.key(density, "tune"))]
    keys, draws = (jnp.tile(seeds, len(grid)) for seeds in both)
    params = train(family, keys, settings, plan.data(density), num_updates=plan.updates, batch_size=plan.batch_size)
    samples = draw(family.samplers[0].draw, params, draws, plan.num_samples)
    fresh = np.asarray(plan.fresh(density, "tune"))
    own = samples.reshape(len(grid), *fresh.shape)
    return [
        {**setting._asdict(), "energy": _energies(zip(mine, fresh, strict=True))}
        for setting, mine in zip(grid, own, strict=True)
    ]
