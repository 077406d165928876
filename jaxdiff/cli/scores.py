"""What episodes of saved policies are worth, as tables: one request, or the points of a sweep over acting."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from jaxdiff.io.report import results


@dataclasses.dataclass(frozen=True)
class PackScores:
    """What the episodes of one pack gave; arrays are [L, M]."""

    id: str
    step: int
    env: str
    members: list[dict[str, Any]]  # id, label, seed and whether it was alive
    returns: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray | None  # normalised; None where the task has no reference scores


def sweep_points(texts: Sequence[str]) -> list[list[str]]:
    """The product of `--sweep KEY=V1,V2 ...` as lists of KEY=VALUE; one empty point without any.

    Raises:
      ValueError: not of that form, or one key twice.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not all(values.split(",")) or key in axes:
            raise ValueError(
                f"--sweep={text}: write KEY=VALUE,VALUE,.. once for each key, for example model.num_candidates=1,4,16."
            )
        axes[key] = [f"{key}={value}" for value in values.split(",")]
    return [list(point) for point in itertools.product(*axes.values())]


def summary(points: Sequence[Sequence[str]], found: Sequence[Sequence[PackScores]]) -> str:
    """One line per point and setting: what acting by it is worth, in the order of the sweep."""
    unit = _unit([pack for packs in found for pack in packs])
    body = [["acting with", "setting", "seeds", f"{unit}: mean", "IQM", "95 % interval"]]
    for point, packs in zip(points, found, strict=True):
        for row in settings(packs):
            shown, interval = row[unit], row[unit]["interval"]
            span = "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"
            numbers = [_brief(shown["mean"]), _brief(shown["iqm"]), span]
            body.append([" ".join(point), row["label"], str(row["seeds"]), *numbers])
    return _columns(body, text_columns=2)


def _columns(body: Sequence[Sequence[str]], text_columns: int) -> str:
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    lines = []
    for line in body:
        cells = [
            c.ljust(w) if k < text_columns else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def table(packs: Sequence[PackScores], overrides: Mapping[str, Any]) -> str:
    """One row per setting, best first; a seed's number is the mean over its episodes."""
    unit = _unit(packs)
    body = [["setting", "seeds", "return", f"{unit}: mean", "IQM", "95 % interval", "length", "non-finite"]]
    for row in settings(packs):
        shown = row[unit]
        interval = shown["interval"]
        body.append(
            [
                row["label"],
                str(row["seeds"]),
                _brief(row["return"]["mean"]),
                _brief(shown["mean"]),
                _brief(shown["iqm"]),
                "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}",
                _brief(row["length"]),
                str(row["nonfinite"]),
            ]
        )
    places = ", ".join(sorted({pack.env for pack in packs}))
    steps = " or ".join(f"{step:,}" for step in sorted({pack.step for pack in packs}))
    where = f"{places}: {packs[0].returns.shape[1]} episodes per member, checkpoint after {steps} updates"
    changes = ", ".join(f"{key}={value}" for key, value in overrides.items())
    return "\n".join([f"{where}; acting with {changes}" if changes else where, "", _columns(body, text_columns=1)])


def by_env(packs: Sequence[PackScores]) -> list[list[PackScores]]:
    """Packs that acted in one environment together: returns of different ones have no common unit."""
    found: dict[str, list[PackScores]] = {}
    for pack in packs:
        found.setdefault(pack.env, []).append(pack)
    return list(found.values())


def settings(packs: Sequence[PackScores]) -> list[dict[str, Any]]:
    """The table's numbers: per label the mean, IQM and interval over seeds of returns and scores; best IQM first.

    A member that went non-finite is counted but not scored: its last finite parameters are not a trained policy.
    """
    grouped: dict[str, list[tuple[PackScores, int]]] = {}
    for pack in packs:
        for lane, member in enumerate(pack.members):
            grouped.setdefault(member["label"], []).append((pack, lane))
    rows = []
    for label, lanes in grouped.items():
        alive = [(pack, lane) for pack, lane in lanes if pack.members[lane]["alive"]]
        lengths = [pack.lengths[lane].mean() for pack, lane in alive]
        rows.append(
            {
                "label": label,
                "seeds": len(alive),
                "nonfinite": len(lanes) - len(alive),
                "return": _estimate([pack.returns[lane] for pack, lane in alive]),
                "score": _estimate([pack.scores[lane] for pack, lane in alive if pack.scores is not None]),
                "length": float(np.mean(lengths)) if alive else None,
            }
        )
    unit = _unit(packs)
    return sorted(rows, key=lambda row: (row[unit]["iqm"] is None, -(row[unit]["iqm"] or 0.0), row["label"]))


def _unit(packs: Sequence[PackScores]) -> str:
    return "score" if all(pack.scores is not None for pack in packs) else "return"


def _estimate(episodes: Sequence[np.ndarray]) -> dict[str, Any]:
    found = results.estimate([float(values.mean(dtype=np.float64)) for values in episodes])
    if found is None:
        return {"mean": None, "iqm": None, "interval": None}
    return {"mean": found.mean, "iqm": found.iqm, "interval": None if found.interval is None else [*found.interval]}


def _brief(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
