"""From a checked command line to members: the points of a study applied to a config."""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdiff import points as combine
from jaxdiff import sweep
from jaxdiff.cli.overrides import Overrider
from jaxdiff.cli.settings import check_sizes, make_settings, with_algorithm
from jaxdiff.points import Point


def product_of(studies: Mapping[str, Iterable[Point]]) -> list[dict[str, Any]]:
    """Every combination of one point from each named study, merged; no study gives the one empty point.

    Keys may be written as on the command line, with a leading `config.`; numpy's scalars become Python's.

    Raises:
      ValueError: two studies set the same key, a study has no points, or one is no dict of dotted keys.
    """
    names = [f"sweep {name!r}" for name in studies]
    plain = [[_plain(name, point) for point in study] for name, study in zip(names, studies.values(), strict=True)]
    return combine.product(*plain, names=names)


def _plain(name: str, point: Any) -> dict[str, Any]:
    if not isinstance(point, Mapping) or not all(isinstance(key, str) for key in point):
        raise ValueError(f'{name} has the point {point!r}; a point is a flat dict such as {{"hparams.lr": 1e-3}}.')
    plain = {
        key.removeprefix("config."): value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value
        for key, value in point.items()
    }
    if len(plain) < len(point):
        raise ValueError(f"{name} has the point {dict(point)!r}, which sets a key twice, with config. and without.")
    return plain


def make_members(config: ConfigDict, points: Iterable[Point], study: str | None = None) -> list[sweep.Member]:
    """Members of a study, every key and value checked before anything runs.

    Args:
      config: before the points.
      points: one for each member.
      study: what errors call it.

    Raises:
      KeyError, ValueError: a key or value the config or the algorithm does not take; the point is named.
      ValueError: two points differ only in how a run is organised, and would be one member.
    """
    members, resolver = [], Resolver(config)
    for number, point in enumerate(points, start=1):
        try:
            resolved = resolver.resolve(point)
            check_sizes(resolved)
            make_settings(resolved)
        except (KeyError, ValueError) as error:
            # The error goes on as it is, since its traceback tells a request from a bug.
            if point and error.args and isinstance(error.args[0], str):
                where = f"point {number}{f' of sweep {study}' if study else ''}, {dict(point)}"
                error.args = (f"{error.args[0]} It is in {where}.", *error.args[1:])
            raise
        members.append(sweep.make_member(resolved, point))
    _check_distinct(members)
    return members


def _check_distinct(members: Iterable[sweep.Member]) -> None:
    known: dict[str, sweep.Member] = {}
    for member in members:
        other = known.setdefault(member.id, member)
        for key in sweep.ORGANISATION:
            if other.config[key] != member.config[key]:
                raise ValueError(
                    f"two points differ only in {key!r} ({other.config[key]} and {member.config[key]}), which does not "
                    "change what is computed; sweep another key, or train twice with different --workdir."
                )


class Resolver:
    """A config with points applied, one after another.

    A config is slow to copy, so points of the same static choices and the same keys share a copy, in which each of them
    sets all of the keys anew.
    """

    def __init__(self, config: ConfigDict):
        self._config = config
        # A decay of the learning rate over the whole run stays that when a point changes the run's length; it is known
        # by its value, since neither JSON nor another algorithm's settings keep a reference.
        self._spans_run = config.hparams.get("lr_decay_steps") == config.num_updates
        self._copies: dict[tuple[Any, ...], Overrider] = {}

    def resolve(self, point: Point) -> dict[str, Any]:
        """The config with the point applied, as plain nested dicts. A changed algorithm brings its own settings.

        Raises:
          KeyError: unknown key or algorithm.
          ValueError: a value of the wrong type, or a key that names a group.
        """
        shared = tuple((key, "" if sweep.is_traced(key) else repr(value)) for key, value in point.items())
        if shared not in self._copies:
            self._copies[shared] = Overrider(self._of_algorithm(point), point)
        resolved: dict[str, Any] = self._copies[shared].apply(point).to_dict()
        if self._spans_run and "hparams.lr_decay_steps" not in point and "lr_decay_steps" in resolved["hparams"]:
            resolved["hparams"]["lr_decay_steps"] = float(resolved["num_updates"])
        return resolved

    def _of_algorithm(self, point: Point) -> ConfigDict:
        if point.get("algorithm", self._config.algorithm) == self._config.algorithm:
            return self._config
        return ConfigDict(with_algorithm(self._config.to_dict(), point["algorithm"])).lock()


def resolve(config: ConfigDict, point: Point) -> dict[str, Any]:
    """`Resolver.resolve` of one point."""
    return Resolver(config).resolve(point)
