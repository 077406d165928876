"""From a checked command line to members: the points of a study applied to a config."""

from collections.abc import Iterable, Mapping, Sequence
import itertools
from typing import Any

from ml_collections import ConfigDict

from jaxdiff import sweep
from jaxdiff.cli.overrides import apply_overrides
from jaxdiff.cli.settings import check_sizes, make_settings, with_algorithm

Point = Mapping[str, Any]  # dotted key -> value


def product_of(studies: Sequence[Iterable[Point]]) -> list[dict[str, Any]]:
    """Every combination of one point from each study, merged; no study gives the one empty point.

    Raises:
      ValueError: two studies set the same key, or a study has no points.
    """
    lists = [list(study) for study in studies]
    if not all(lists):
        raise ValueError("a sweep has no points: its sweep_<name>() yielded nothing.")
    points = []
    for combination in itertools.product(*lists):
        keys = [key for point in combination for key in point]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"two of the sweeps both set {twice[0]!r}; give sweeps that touch different keys.")
        points.append({key: value for point in combination for key, value in point.items()})
    return points


def make_members(config: ConfigDict, points: Iterable[Point]) -> list[sweep.Member]:
    """Members of a study, every key and value checked before anything runs.

    Raises:
      KeyError, ValueError: a key or value the config or the algorithm does not take.
      ValueError: two points differ only in how a run is organised, and would be one member.
    """
    members = [sweep.make_member(resolve(config, point), point) for point in points]
    for member in members:
        check_sizes(member.config)
        make_settings(member.config)
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


def resolve(config: ConfigDict, point: Point) -> dict[str, Any]:
    """The config with a point applied, as plain nested dicts. A changed algorithm brings its own settings.

    A decay of the learning rate over the whole run stays that when the point changes the run's length; it is known by
    its value, since neither JSON nor another algorithm's settings keep a reference.
    """
    spans_run = config.hparams.get("lr_decay_steps") == config.num_updates
    if "algorithm" in point and point["algorithm"] != config.algorithm:
        config = ConfigDict(with_algorithm(config.to_dict(), point["algorithm"])).lock()
    resolved: dict[str, Any] = apply_overrides(config, point).to_dict()
    if spans_run and "hparams.lr_decay_steps" not in point and "lr_decay_steps" in resolved["hparams"]:
        resolved["hparams"]["lr_decay_steps"] = float(resolved["num_updates"])
    return resolved
