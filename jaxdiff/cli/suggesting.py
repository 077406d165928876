"""Where a search over a space looks next: spaces as values, and Optuna behind a function of what is known.

A space is that of `points.sobol`. Values are a choice, or a number within bounds, for each key.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import math
from typing import Any

from jaxdiff.points import Bounds, Space

Values = dict[str, Any]
Known = Sequence[tuple[Values, float]]  # what was tried, and its score, minus infinity where it has none
Suggest = Callable[[Space, Known, int], Values]  # (space, known, seed) -> where to look next, also again


def point_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The point of a study that values mean: a choice that is a dict sets its own keys."""
    point: dict[str, Any] = {}
    for key, value in values.items():
        point |= value if isinstance(value, Mapping) else {key: value}
    return point


def choices(given: Bounds | Sequence[Any]) -> list[Any]:
    """A key's choices, or the two ends of its range."""
    return list(given[:2]) if isinstance(given, tuple) else list(given)


def num_points(space: Space) -> float:
    """How many points a space has; infinity with a range of numbers."""
    return math.prod(math.inf if isinstance(given, tuple) else len(given) for given in space.values())


def same(first: Any, second: Any) -> bool:
    """Whether values are the same, one of them perhaps read from JSON, which has no tuples."""
    return _plain(first) == _plain(second)


def from_optuna(space: Space, known: Known, seed: int) -> Values:
    """The next values by Optuna's tree-structured Parzen estimator: a function of its arguments.

    Numbers, and tuples of them, that are listed in rising order are taken as a scale; other choices have no order.
    Of what is known, points that the space does not have (any more) are left out.

    Raises:
      ImportError: the extra is not installed.

    Reference: Bergstra et al. 2011, Algorithms for hyper-parameter optimization, NeurIPS 24.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError('Optuna is not installed; run: pip install "jaxdiff[optuna]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    wanted = {key: _distribution(optuna, given) for key, given in space.items()}
    for values, score in known:
        codes = {key: _code(given, values.get(key)) for key, given in space.items()}
        if None not in codes.values():
            study.add_trial(optuna.trial.create_trial(params=codes, distributions=wanted, value=score))
    asked = study.ask(wanted).params
    return {key: _value(given, asked[key]) for key, given in space.items()}


def _distribution(optuna: Any, given: Bounds | Sequence[Any]) -> Any:
    if isinstance(given, tuple):
        return optuna.distributions.FloatDistribution(given[0], given[1], log=given[2] == "log")
    if _is_scale(given):
        return optuna.distributions.IntDistribution(0, len(given) - 1)
    return optuna.distributions.CategoricalDistribution(range(len(given)))


def _is_scale(given: Sequence[Any]) -> bool:
    rows = [tuple(choice) if isinstance(choice, tuple | list) else (choice,) for choice in given]
    return all(type(number) in (int, float) for row in rows for number in row) and rows == sorted(rows)


def _code(given: Bounds | Sequence[Any], value: Any) -> float | int | None:
    """The number that stands for a value: itself, or its place among the choices; None if it is not there."""
    if isinstance(given, tuple):
        return float(value) if type(value) in (int, float) and given[0] <= value <= given[1] else None
    return next((place for place, choice in enumerate(given) if same(choice, value)), None)


def _value(given: Bounds | Sequence[Any], code: float | int) -> Any:
    """What a number stands for; in a range with six digits, as all numbers of studies have."""
    if isinstance(given, tuple):
        return min(max(float(f"{code:.6g}"), given[0]), given[1])
    return given[int(code)]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
