"""Several tasks in one study: which keys of its points make the task, and what tasks and settings are then called.

Plain text and no JAX: status asks here too. A study is of several tasks where its points set `env` or `maze` and come
to two tasks or more. What goes along with `env` then, `dataset` first of all, is part of the task, and so is every key
that has one value on each task, as a weight that was tuned for each.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any

TASK = ("env", "maze", "env_backend", "env_options", "mpe", "vec")  # keys of a config that make the task
NAMERS = ("env", "maze")  # without one of these a swept key of TASK is a knob like others
NOT_SET = "not set"


@dataclasses.dataclass(frozen=True)
class Naming:
    """How a study's tasks and settings are told apart."""

    keys: tuple[str, ...]  # swept, and make the task
    bound: Mapping[str, frozenset[str]]  # algorithm -> other swept keys whose value follows from the task
    base: Mapping[str, Any]  # the config before the points
    planned: tuple[str, ...]  # tasks, in the order of the points

    def task(self, config: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
        """As "hopper dataset=h": the environment, then the other keys that make the task and are swept."""
        env = str(_value("env", overrides, config, self.base))
        words = [word(key, _value(key, overrides, config, self.base)) for key in self.keys if key != "env"]
        return " ".join([env, *(found for found in words if found not in ("", f"dataset={env}"))])

    def setting(self, label: str, algorithm: str, overrides: Mapping[str, Any]) -> str:
        """The label without the words of the task."""
        for key in (*self.keys, *sorted(self.bound.get(algorithm, ()))):
            if key in overrides:
                label = f"{label} ".replace(f" {word(key, overrides[key])} ", " ", 1).rstrip()
        return label

    def following(self, algorithm: str, overrides: Mapping[str, Any]) -> list[str]:
        """What an algorithm is given on a task because it is this task: "bc_weight=10"."""
        return [word(key, overrides[key]) for key in sorted(self.bound.get(algorithm, ())) if key in overrides]

    @property
    def is_several(self) -> bool:
        """Whether the study is of several tasks."""
        return any(key in NAMERS for key in self.keys) and len(self.planned) > 1


def naming(config: Mapping[str, Any], members: Iterable[Mapping[str, Any]] = ()) -> Naming:
    """How the tasks of a study are named.

    Args:
      config: that of run.json, the points among it.
      members: overrides of members; read where the config has no points.
    """
    points = [point for point in config.get("points") or members if isinstance(point, Mapping)]
    swept = list(dict.fromkeys(key for point in points for key in point))
    keys = [key for key in swept if key.split(".")[0] in TASK]
    keys += ["dataset"] if "env" in keys and "dataset" in swept else []
    plain = Naming(tuple(keys), {}, config, ())
    tasks = [plain.task({}, point) for point in points]
    bound = _bound(points, tasks, keys, str(config.get("algorithm")))
    return dataclasses.replace(plain, bound=bound, planned=tuple(dict.fromkeys(tasks)))


def of_stamp(stamp: Mapping[str, Any], members: Iterable[Mapping[str, Any]] = ()) -> Naming:
    """`naming` of a run.json."""
    config = stamp.get("config")
    plain = dict(config) if isinstance(config, Mapping) else {}
    return naming({**plain, "env": plain.get("env", stamp.get("env"))}, members)


def word(key: str, value: Any) -> str:
    """How a label writes a swept key; nothing for one that is not known."""
    if value is NOT_SET:
        return ""
    if isinstance(value, list | tuple):
        value = "x".join(map(str, value))
    return f"{key.split('.')[-1]}={value:g}" if isinstance(value, float) else f"{key.split('.')[-1]}={value}"


def _bound(
    points: Sequence[Mapping[str, Any]], tasks: Sequence[str], keys: Sequence[str], algorithm: str
) -> dict[str, frozenset[str]]:
    """Of each algorithm, the keys that have one value on each task, and not the same on all."""
    if len(set(tasks)) < 2:
        return {}
    seen: dict[str, dict[str, list[Mapping[str, Any]]]] = {}  # algorithm -> task -> points
    for point, task in zip(points, tasks, strict=True):
        seen.setdefault(str(point.get("algorithm", algorithm)), {}).setdefault(task, []).append(point)
    bound = {}
    for name, by_task in seen.items():
        own = dict.fromkeys(key for found in by_task.values() for point in found for key in point)
        free = [key for key in own if key not in ("algorithm", "seed", *keys)]
        bound[name] = frozenset(key for key in free if _follows(key, list(by_task.values())))
    return bound


def _follows(key: str, by_task: Sequence[Sequence[Mapping[str, Any]]]) -> bool:
    values = [{repr(point.get(key, NOT_SET)) for point in points} for points in by_task]
    return all(len(found) == 1 for found in values) and len(set.union(*values)) > 1


def _value(key: str, *places: Mapping[str, Any]) -> Any:
    """The first place's value: in points keys are dotted, in configs groups are nested."""
    for place in places:
        if key in place:
            return place[key]
        found: Any = place
        for part in key.split("."):
            found = found.get(part, NOT_SET) if isinstance(found, Mapping) else NOT_SET
        if found is not NOT_SET:
            return found
    return NOT_SET
