"""Floor 0: studies put together out of smaller ones, for the `sweep_<name>()` functions of config files.

A study is an iterable of points, and a point is a flat dict from dotted keys of a config to values, as
`{"hparams.lr": 1e-3, "seed": 2}`. Every function here returns a new list and leaves what it was given alone.

What is drawn depends on the arguments alone, on every machine, and of a larger count the first points are the same: a
study can be widened. Real numbers have six significant digits, which is what a label shows of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import itertools
import math
import random
from typing import Any

Point = Mapping[str, Any]  # dotted key -> value
Study = Iterable[Point]
Bounds = tuple[float, float, str]  # (low, high, one of SCALES)
Space = Mapping[str, Bounds | Sequence[Any]]  # dotted key -> bounds, or a list of choices

SCALES = ("linear", "log")
DIGITS = 6


def values(key: str, given: Iterable[Any]) -> list[dict[str, Any]]:
    """A point for each value of one key.

    Raises:
      ValueError: no values, or a text, which would be taken apart into letters.
    """
    if isinstance(given, str):
        raise ValueError(f"values of {key!r} are the text {given!r}; give a list of values: [{given!r}].")
    points = [{key: value} for value in given]
    if not points:
        raise ValueError(f"values of {key!r} are empty; give at least one.")
    return points


def seeds(count: int, first: int = 0) -> list[dict[str, Any]]:
    """The seeds first, first + 1, ..., first + count - 1.

    Raises:
      ValueError: count below 1, or first below 0.
    """
    _check_count(count)
    if first < 0:
        raise ValueError(f"first={first}; a seed is at least 0.")
    return values("seed", range(first, first + count))


def linspace(key: str, low: float, high: float, count: int) -> list[dict[str, Any]]:
    """A grid of equal differences from low to high, both included, as `numpy.linspace`.

    Raises:
      ValueError: count below 2, or bounds that are not finite and rising.
    """
    return _grid(key, (low, high, "linear"), count)


def geomspace(key: str, low: float, high: float, count: int) -> list[dict[str, Any]]:
    """A grid of equal ratios from low to high, both included, as `numpy.geomspace`.

    Raises:
      ValueError: count below 2, or bounds that are not finite, rising and positive.
    """
    return _grid(key, (low, high, "log"), count)


def product(*studies: Study, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every combination of one point from each study, merged, the last study fastest; no study gives the empty point.

    Args:
      *studies: of different keys.
      names: what errors call the studies; their numbers if left out.

    Raises:
      ValueError: two studies set the same key, or one has no points.
    """
    lists = [list(study) for study in studies]
    names = names or [f"study {i + 1}" for i in range(len(lists))]
    for name, points in zip(names, lists, strict=True):
        if not points:
            raise ValueError(f"{name} has no points, so a product with it has none; give it at least one.")
    _check_apart(lists, names)
    return [_merged(combination) for combination in itertools.product(*lists)]


def zipped(*studies: Study) -> list[dict[str, Any]]:
    """The first points of all studies merged, the second points, and so on.

    Args:
      *studies: of one length and of different keys.

    Raises:
      ValueError: the lengths differ, or two studies set the same key.
    """
    lists = [list(study) for study in studies]
    lengths = [len(points) for points in lists]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"studies of {', '.join(map(str, lengths[:-1]))} and {lengths[-1]} points cannot be zipped; give as many "
            "points of each, or take their product."
        )
    _check_apart(lists, [f"study {i + 1}" for i in range(len(lists))])
    return [_merged(combination) for combination in zip(*lists, strict=True)]


def chain(*studies: Study) -> list[dict[str, Any]]:
    """The points of the first study, then those of the second, and so on; they may set different keys."""
    return [dict(point) for study in studies for point in study]


def sobol(space: Space, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Points of a scrambled Sobol sequence, which fills a space more evenly than independent draws.

    Evenest where count is a power of 2.

    Args:
      space: for each key (low, high, "linear" or "log"), or a list of choices; choices may be of any type.
      count: number of points, >= 1.
      seed: of the scrambling; another one is another, equally even, set of points.

    Raises:
      ValueError: an empty space, bounds that are not finite and rising (and positive for "log"), no choices.

    Reference: Owen 1998, Scrambling Sobol' and Niederreiter-Xing points, J. Complexity 14.
    """
    draws = _drawers(space, count)
    import numpy as np
    from scipy.stats import qmc

    sampler = qmc.Sobol(len(draws), scramble=True, rng=np.random.default_rng(seed))
    rows = sampler.random_base2(math.ceil(math.log2(count)))[:count].tolist()
    return [{key: draw(u) for (key, draw), u in zip(draws.items(), row, strict=True)} for row in rows]


def random_search(space: Space, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Independent draws, uniform on each scale and among choices. Arguments and errors as of `sobol`.

    Reference: Bergstra and Bengio 2012, Random search for hyper-parameter optimization, JMLR 13.
    """
    draws = _drawers(space, count)
    source = random.Random(seed)
    return [{key: draw(source.random()) for key, draw in draws.items()} for _ in range(count)]


def subsample(study: Study, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` of the study's points, drawn without replacement, in the order they were drawn.

    Raises:
      ValueError: the study has fewer points, or count is below 1.
    """
    _check_count(count)
    points = [dict(point) for point in study]
    if count > len(points):
        raise ValueError(f"count={count}, but the study has {len(points)} points; draw at most as many.")
    source = random.Random(seed)
    # The numbers of random.random() are promised to stay the same in later Pythons, those of random.sample() are not.
    places = [source.random() for _ in points]
    order = sorted(range(len(points)), key=places.__getitem__)
    return [points[i] for i in order[:count]]


def _grid(key: str, bounds: Bounds, count: int) -> list[dict[str, Any]]:
    draw = _drawer(key, bounds)
    if count < 2:
        raise ValueError(f"count={count} for {key!r}; a grid has at least its two ends.")
    return [{key: draw(i / (count - 1))} for i in range(count)]


def _drawers(space: Space, count: int) -> dict[str, Callable[[float], Any]]:
    _check_count(count)
    if not space:
        raise ValueError("the space is empty; give at least one key with bounds or choices.")
    return {key: _drawer(key, given) for key, given in space.items()}


def _drawer(key: str, given: Bounds | Sequence[Any]) -> Callable[[float], Any]:
    """The function from u in [0, 1] to a value of the key."""
    if isinstance(given, list | range) and given:
        return lambda u: given[min(int(u * len(given)), len(given) - 1)]
    if not isinstance(given, tuple) or len(given) != 3 or given[2] not in SCALES:
        raise ValueError(
            f"the space of {key!r} is {given!r}; give bounds as (low, high, 'linear' or 'log'), or choices as a "
            "list of at least one value."
        )
    low, high, scale = given
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"bounds of {key!r} are {low} and {high}; they must be finite, and the first the lower one.")
    if scale == "log" and low <= 0:
        raise ValueError(f"bounds of {key!r} are {low} and {high}; a log scale wants them above 0, or use 'linear'.")
    if scale == "log":
        return lambda u: _rounded(math.exp((1 - u) * math.log(low) + u * math.log(high)))
    return lambda u: _rounded((1 - u) * low + u * high)


def _rounded(value: float) -> float:
    """Six digits, so that machines whose exp differs in the last bit make the same members."""
    return float(f"{value:.{DIGITS}g}")


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"count={count}; it must be at least 1.")


def _check_apart(lists: Sequence[Sequence[Point]], names: Sequence[str]) -> None:
    setters: dict[str, str] = {}
    for name, points in zip(names, lists, strict=True):
        for key in dict.fromkeys(key for point in points for key in point):
            if key in setters:
                raise ValueError(f"{setters[key]} and {name} both set {key!r}; give sweeps that touch different keys.")
            setters[key] = name


def _merged(points: Iterable[Point]) -> dict[str, Any]:
    return {key: value for point in points for key, value in point.items()}
