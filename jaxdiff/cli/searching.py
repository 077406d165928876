"""`--search`: a sweep that looks at its scores while it trains.

  --search=halving,reduction=3,rungs=3          settings compete; at each rung the best third goes on
  --search=pbt,lr=1e-4:1e-2,q_weight=0.1:10     members copy better ones and change the hyperparameters named

Either looks at the members of one program, which must lie in one pack, after their evaluations. Of a population are
the members that share a seed, so seeds stay independent of one another. See `adaptive`.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from jaxdiff import adaptive, sweep
from jaxdiff.suggest import unknown_name

STREAM = 2**32 - 2  # separates a population's keys from those of updates and evaluations


@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving over settings; seeds of a setting stay together."""

    reduction: float = 3.0
    rungs: int = 3

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError where a config's length and evaluations leave no room for the rungs."""
        self._steps(config)

    def kept(
        self, step: int, config: Mapping[str, Any], settings: np.ndarray, active: np.ndarray, scores: np.ndarray
    ) -> np.ndarray | None:
        """Which of the lanes that are left go on after this evaluation; None where it is no rung.

        Args:
          step: updates applied.
          config: of the pack.
          settings: [L] ints of all members of the pack, equal for seeds of one setting.
          active: [M] members that are left.
          scores: [M] theirs, NaN for frozen lanes.
        """
        steps = self._steps(config)
        if step not in steps[:-1]:
            return None
        keep = adaptive.num_left(len(np.unique(settings)), steps.index(step) + 1, self.reduction)
        return adaptive.survivors(scores, settings[active], keep)

    def _steps(self, config: Mapping[str, Any]) -> tuple[int, ...]:
        return adaptive.rungs(int(config["num_updates"]), self.reduction, self.rungs, int(config["eval_interval"]))


@dataclasses.dataclass(frozen=True)
class Population:
    """Population-based training: the members of a pack that share a seed are a population."""

    ranges: tuple[tuple[str, tuple[float, float]], ...]  # hyperparameter -> (low, high)
    quantile: float = 0.25
    resample: float = 0.0

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises where the algorithm has no such hyperparameter, or a value lies outside its range."""
        for name, (low, high) in self.ranges:
            if name not in config["hparams"]:
                raise unknown_name("hyperparameter", name, config["hparams"])
            if not low <= float(config["hparams"][name]) <= high:
                raise ValueError(
                    f"--search=pbt with {name} in {low:g} to {high:g}, and a member starts with "
                    f"hparams.{name}={config['hparams'][name]:g}; widen the range, or sweep inside it."
                )


Search = Halving | Population


def read_search(text: str) -> Search | None:
    """The value of --search; None for none.

    Raises:
      KeyError: an unknown kind or option.
      ValueError: an option that is no number, or a range that is none.
    """
    if not text:
        return None
    kind, *words = text.split(",")
    options = dict(_option(word) for word in words)
    if kind == "halving":
        known = {"reduction": float, "rungs": int}
        for name in options:
            if name not in known:
                raise unknown_name("option of --search=halving", name, known)
        return Halving(**{name: known[name](_number(name, value)) for name, value in options.items()})
    if kind != "pbt":
        raise unknown_name("search", kind, ("halving", "pbt"))
    plain = {name: _number(name, options.pop(name)) for name in ("quantile", "resample") if name in options}
    if not options:
        raise ValueError("--search=pbt names no hyperparameter; say for example --search=pbt,lr=1e-4:1e-2.")
    return Population(tuple((name, _range(name, value)) for name, value in options.items()), **plain)


def check_search(search: Search | None, packs: Sequence[sweep.Pack]) -> None:
    """Tells before anything is trained what a search cannot work with.

    Raises:
      KeyError, ValueError: members of one program in several packs, or what the search's own `check` raises.
    """
    if search is None:
        return
    groups = [sweep.group_id(pack.members[0]) for pack in packs]
    for group in set(groups):
        mine = [pack for pack, found in zip(packs, groups, strict=True) if found == group]
        count = sum(len(pack.members) for pack in mine)
        if len(mine) > 1:
            raise ValueError(
                f"--search compares members within a pack, and {count} members of one program lie in {len(mine)}; "
                f"give --max_lanes={count}."
            )
        if isinstance(search, Population):
            by_seed(mine[0].members)
    for pack in packs:
        for member in pack.members:
            search.check(member.config)


def settings_of(members: Sequence[sweep.Member]) -> np.ndarray:
    """[L] ints, equal for members that differ in their seed alone."""
    settings = [sweep.content_hash({**member.config, "seed": None}) for member in members]
    return np.asarray([settings.index(setting) for setting in settings])


def by_seed(members: Sequence[sweep.Member]) -> np.ndarray:
    """[S, P] indices of the members of each population: those that share a seed.

    Raises:
      ValueError: seeds have different numbers of members, or one alone.
    """
    seeds = np.asarray([member.seed for member in members])
    populations = [np.flatnonzero(seeds == seed) for seed in dict.fromkeys(seeds.tolist())]
    sizes = {len(population) for population in populations}
    if len(sizes) != 1 or sizes == {1}:
        raise ValueError(
            f"--search=pbt: the members of one seed are a population, and here they number {sorted(sizes)} under one "
            "program; give every seed the same settings, at least 2."
        )
    return np.stack(populations)


def evolved(
    search: Population, lanes: Any, scores: np.ndarray, members: Sequence[sweep.Member], step: int
) -> tuple[Any, np.ndarray]:
    """One round of population-based training in each population; (lanes, parents [L]).

    Draws are those of the population's seed at this step, so populations are independent and repeat.
    """
    index = by_seed(members)
    seeds = np.asarray([members[first].seed for first in index[:, 0]], np.int32)
    place = np.argsort(index.ravel())
    scores = np.asarray(scores, np.float32)[index]
    lanes, parents = _round(search)(seeds, np.int32(step), lanes, scores, index, place)
    chosen = np.take_along_axis(index, np.asarray(parents), axis=1)
    return lanes, chosen.ravel()[place]


@functools.cache
def _round(search: Population) -> Callable[..., Any]:
    """Who takes over from whom: lanes [S P, ...] -> (lanes in the same order, parents [S, P] within each population).

    Its arguments are seeds [S], step, lanes, scores [S, P], index [S, P] of each population's lanes, and the way back:
    place [S P].
    """

    def of_one(seed: Any, step: Any, lanes: Any, scores: Any) -> Any:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), STREAM), step)
        options = {"quantile": search.quantile, "resample": search.resample}
        return adaptive.evolve(key, lanes, scores, ranges=dict(search.ranges), **options)

    @jax.jit
    def of_all(seeds: Any, step: Any, lanes: Any, scores: Any, index: Any, place: Any) -> Any:
        inside = jax.tree.map(lambda leaf: leaf[index], lanes)
        inside, parents = jax.vmap(of_one, in_axes=(0, None, 0, 0))(seeds, step, inside, scores)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[place], inside), parents

    return of_all


def _option(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise ValueError(f"--search: {word!r} must be NAME=VALUE.")
    return name.strip().removeprefix("hparams."), value.strip()


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"--search: {name}={text} must be a number, not negative.")
    return value


def _range(name: str, text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    if not colon:
        raise ValueError(f"--search: {name}={text} must be a range LOW:HIGH, for example {name}=1e-4:1e-2.")
    found = _number(name, low), _number(name, high)
    if not 0 < found[0] < found[1]:
        raise ValueError(f"--search: {name}={text} must ascend from above 0, since steps are factors.")
    return found
