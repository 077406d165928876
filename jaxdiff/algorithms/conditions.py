"""What plans can be asked for: returns, goals and regions, as labels of the data and as wishes while acting."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff import diffusion
from jaxdiff.data import Segments
from jaxdiff.regions import visited
from jaxdiff.suggest import did_you_mean, unknown_name
from jaxdiff.types import Array, Key, Spec

CONDITIONS = ("returns", "goal", "regions")

Cond = tuple[Array, Array]  # (values [*B, sum of sizes], keep [*B, groups])
Model = Callable[[Array, diffusion.Level, Any], Array]  # (x [*B, H, D], level, Cond or None) -> x0_hat


class Wishes(NamedTuple):
    """What a plan should be like."""

    target_return: ArrayLike  # 0 the smallest, 1 the largest of the data
    goal: Array | None  # [*B, O] in the network's units
    visit: Sequence[str]  # regions
    avoid: Sequence[str]
    guidance_scale: ArrayLike  # of each thing wished for
    avoid_scale: ArrayLike  # of each region to avoid


class Conditions(NamedTuple):
    """A task's conditions as functions.

    sizes: numbers of each group, in the order of the config
    of_data(key, batch, obs [B, H, O], x0 [B, H, D], returns [2], dropout) -> Cond, None without conditions
    guided(model, wishes, batch_shape) -> denoiser
    """

    sizes: tuple[int, ...]
    of_data: Callable[..., Cond | None]
    guided: Callable[[Model, Wishes, tuple[int, ...]], diffusion.Denoiser]


def check_conditions(names: Sequence[str], regions: Sequence[str], spec: Spec) -> None:
    """Refuses conditions that do not exist, or that the task cannot give.

    Raises:
      KeyError: an unknown condition, or a region that the task does not have.
      ValueError: a condition twice, regions without the condition `regions`, or a task without regions or a goal.
    """
    for name in names:
        if name not in CONDITIONS:
            raise unknown_name("condition", name, CONDITIONS)
    if len(set(names)) < len(names):
        raise ValueError(f"conditions={tuple(names)} names one twice; give each once.")
    known = [region.name for region in spec.regions]
    if "regions" in names and not known:
        raise ValueError(f"conditions={tuple(names)}, and {spec.name} has no regions; plan there without 'regions'.")
    if "goal" in names and spec.goal is None and not spec.goal_dim:
        raise ValueError(f"conditions={tuple(names)}, and {spec.name} has no goal; plan there without 'goal'.")
    if regions and "regions" not in names:
        raise ValueError(
            f"regions {tuple(regions)} to visit or to avoid, and conditions={tuple(names)}; the model must be trained "
            "with 'regions' among its conditions."
        )
    for region in regions:
        if region not in known:
            raise KeyError(f"{spec.name} has no region {region!r}; {did_you_mean(region, known)}")


def make_conditions(names: Sequence[str], spec: Spec) -> Conditions:
    """The conditions of these names for a task. Raises as `check_conditions`."""
    check_conditions(names, (), spec)
    size_of = {"returns": 1, "goal": spec.obs_dim - spec.goal_dim, "regions": len(spec.regions)}
    sizes = tuple(size_of[name] for name in names)

    def of_data(key: Key, batch: Segments, obs: Array, x0: Array, returns: Array, dropout: ArrayLike) -> Cond | None:
        if not names:
            return None
        key_keep, key_region = jax.random.split(key)
        labels = {
            "returns": lambda: (relative_return(batch.return_to_go, returns)[:, None], True),
            "goal": lambda: (x0[:, -1], True),
            "regions": lambda: _visited_region(key_region, obs, spec),
        }
        values, exist = zip(*(labels[name]() for name in names), strict=True)
        keep = jax.random.bernoulli(key_keep, 1.0 - jnp.asarray(dropout), (x0.shape[0], len(names)))
        there = jnp.stack([jnp.broadcast_to(one, x0.shape[:1]) for one in exist], axis=-1)
        return jnp.concatenate(values, axis=-1), (keep & there).astype(jnp.float32)

    def asked(name: str, value: Array, batch: tuple[int, ...]) -> Cond:
        """The condition that asks for one thing alone."""
        place = names.index(name)
        values = [jnp.zeros((*batch, size)) for size in sizes]
        values[place] = jnp.broadcast_to(value, (*batch, sizes[place]))
        keep = jnp.broadcast_to(jnp.arange(len(names)) == place, (*batch, len(names)))
        return jnp.concatenate(values, axis=-1), keep.astype(jnp.float32)

    def guided(model: Model, wishes: Wishes, batch: tuple[int, ...]) -> diffusion.Denoiser:
        if not names:
            return lambda x, level: model(x, level, None)
        conds: list[Cond] = []
        scales: list[ArrayLike] = []
        if "returns" in names:
            conds.append(asked("returns", jnp.asarray(wishes.target_return)[None], batch))
            scales.append(wishes.guidance_scale)
        if "goal" in names and wishes.goal is not None:
            conds.append(asked("goal", jnp.expand_dims(wishes.goal, -2), batch))  # for every candidate
            scales.append(wishes.guidance_scale)
        for region in (*wishes.visit, *wishes.avoid):
            one_hot = jnp.array([float(known.name == region) for known in spec.regions])
            conds.append(asked("regions", one_hot, batch))
        scales += [wishes.guidance_scale] * len(wishes.visit) + [-jnp.asarray(wishes.avoid_scale)] * len(wishes.avoid)
        null: Cond = (jnp.zeros((*batch, sum(sizes))), jnp.zeros((*batch, len(names))))
        if not conds:
            return lambda x, level: model(x, level, null)
        return diffusion.compose(model, conds, null, scales)

    return Conditions(sizes, of_data, guided)


def relative_return(value: Array, bounds: Array) -> Array:
    """(value - low) / (high - low), 0 where the bounds are equal."""
    spread = bounds[1] - bounds[0]
    return jnp.where(spread > 0, (value - bounds[0]) / jnp.where(spread > 0, spread, 1.0), 0.0)


def _visited_region(key: Key, obs: Array, spec: Spec) -> tuple[Array, Array]:
    """One of the regions that each stretch obs [B, H, O] visits, one-hot [B, R], and whether there is one [B]."""
    visits = jnp.stack([visited(obs, region).any(axis=-1) for region in spec.regions], axis=-1)
    logits = jnp.where(visits, 0.0, -jnp.inf)
    some = visits.any(axis=-1)
    drawn = jax.random.categorical(key, jnp.where(some[:, None], logits, 0.0))
    return jax.nn.one_hot(drawn, len(spec.regions)) * some[:, None], some
