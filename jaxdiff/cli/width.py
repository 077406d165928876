"""How many members a pack should have: `--max_lanes=auto`.

A group's update loop is measured at widths 1, 4, 16, ... until wider packs do not fit the memory or train slower, and
the widest of the fastest widths is taken: wider packs are fewer, so fewer evaluations, checkpoints and folders. What it
costs is that updates of a pack come more slowly, and with them its checkpoints.

It is no default. A list of packs should follow from the study alone, whoever prepares it and wherever, often on a
machine without the workers' accelerator; and each width costs a compile of 2 to 10 s per lane mode on a CPU, where 2 to
16 lanes differ by less than what that costs a study of minutes. So it is for those who ask, and even then groups of up
to 16 members (`MEASURED_ABOVE`) are not measured: they are one pack, which any device that trains one of them in
reasonable time is likely to take.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import sys
from typing import Any, NamedTuple

import jax

from jaxdiff import sweep
from jaxdiff.cli.memory import device_bytes, num_bytes, pack_bytes
from jaxdiff.cli.plan import AUTO, Plan, cut, fresh_groups, widest_for
from jaxdiff.cli.programs import make_programs, seconds_per_update
from jaxdiff.cli.task import Task
from jaxdiff.io.packlist import Width

MEASURED_ABOVE = 16  # members of a group
STEP = 4  # from one width to the next
ROOM = 0.8  # of the device's memory may be filled
WORTH = 0.9  # of the best throughput: below, wider packs or a lane mode are not tried any further
REPEATS = 2  # of a measurement, of which the faster one counts: other processes only ever slow one down
NEAR = 0.95  # of the best throughput: as good as the best

Probe = Callable[[int, str], tuple[float, int]]  # (width, mode) -> member-updates per second, bytes held


class TooWide(Exception):
    """A pack did not fit the device's memory."""


class Point(NamedTuple):
    """One measured width."""

    mode: str  # the best one
    rate: float  # member-updates per second
    held: int  # bytes of state, workspace and data


def measured(plan: Plan, get_task: Callable[[Mapping[str, Any]], Task]) -> Plan:
    """The plan with the widths of its large new groups, and its new packs cut by them.

    What the folder knows is not measured again: its packs stay, and new members of a group get the width that it had.

    Args:
      plan: as it goes on in its folder; without --max_lanes=auto, or as a rerun, it comes back as it is.
      get_task: config of a member -> its task.
    """
    groups = [members for members in fresh_groups(plan) if len(members) > MEASURED_ABOVE]
    groups = [members for members in groups if sweep.group_id(members[0]) not in plan.widths]
    if plan.max_lanes != AUTO or plan.repeats is not None or not groups:
        return plan
    widths, limit = dict(plan.widths), device_bytes(plan.workers)
    for members in reversed(groups):  # a caller that keeps the last task then has that of the first packs
        found = measure(get_task(members[0].config), members, plan.lanes, limit, widest_for(len(members), plan.workers))
        widths[sweep.group_id(members[0])] = found
        print(f"jaxdiff: packs of {members[0].label} and its group: {in_words(found)}", file=sys.stderr)
    fresh = [member for members in fresh_groups(plan) for member in members]
    packs = plan.packs[: plan.num_listed] + cut(fresh, plan.max_lanes, widths, plan.workers)
    return dataclasses.replace(plan, packs=packs, widths=widths)


def measure(
    task: Task, members: Sequence[sweep.Member], lanes: str, limit: int | None, largest: int | None = None
) -> Width:
    """Compiles and times a group's update loop at growing widths, and chooses one.

    Args:
      task: of the group.
      members: of one program.
      lanes: the lane mode, or auto for the best at each width.
      limit: bytes of the device; None for no limit but its own.
      largest: widest pack to try; None for the whole group.
    """
    fixed, devices = num_bytes(task.dataset), jax.device_count()

    def probe(width: int, mode: str) -> tuple[float, int]:
        try:
            programs = make_programs(task, members[:width], mode)
            seconds = min(seconds_per_update(programs) for _ in range(REPEATS))
            return width / seconds, pack_bytes(programs)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TooWide from error

    def modes(width: int) -> Sequence[str]:
        return sweep.candidate_modes(width, devices) if lanes == AUTO else (lanes,)

    points = climb(probe, largest or len(members), modes, fixed, limit)
    return choose(points, fixed, limit, modes(1)[0])


def climb(
    probe: Probe, largest: int, modes: Callable[[int], Sequence[str]], fixed: int, limit: int | None
) -> dict[int, Point]:
    """Measures growing widths up to `largest`, until the next one does not fit or the last was slower than the best.

    A width and mode is tried unless the narrower ones, extended linearly, say that it would fill more than `ROOM` of
    the memory. A mode that was slower than `WORTH` of the best at its width, or did not fit, is not tried again.

    Args:
      probe: raises TooWide where memory runs out.
      modes: width -> lane modes to compare.
      fixed: bytes that every width holds: the data.
      limit: bytes of the device, or None.

    Returns:
      Width -> what was measured with its best mode, narrow to wide; empty where not even width 1 fits.
    """
    points: dict[int, Point] = {}
    held: dict[str, dict[int, int]] = {}
    dropped: set[str] = set()
    for width in rungs(largest):
        before = {w: point.held for w, point in points.items()}
        rates: dict[str, float] = {}
        for mode in modes(width):
            if mode in dropped or not is_room(held.get(mode, before), width, fixed, limit):
                continue
            try:
                rates[mode], filled = probe(width, mode)
                held.setdefault(mode, {})[width] = filled
            except TooWide:
                dropped.add(mode)
        if not rates:
            break
        best = sweep.choose_mode({mode: 1 / rate for mode, rate in rates.items()})
        points[width] = Point(best, rates[best], held[best][width])
        dropped |= {mode for mode, rate in rates.items() if rate < WORTH * rates[best]}
        if rates[best] < WORTH * max(point.rate for point in points.values()):
            break
    return points


def rungs(largest: int) -> list[int]:
    """Widths to measure: powers of `STEP` and, where it is at least twice the last of these, the largest itself."""
    widths = [1]
    while widths[-1] * STEP <= largest:
        widths.append(widths[-1] * STEP)
    return [*widths, largest] if largest >= 2 * widths[-1] else widths


def is_room(held: Mapping[int, int], width: int, fixed: int, limit: int | None) -> bool:
    """Whether a width fits into `ROOM` of the limit; yes where nothing narrower is known to tell.

    bytes(width) lies on the line through the two widest that were measured, or through the only one and `fixed` at 0.
    """
    if limit is None or not held:
        return True
    (low, low_bytes), (high, high_bytes) = sorted({0: fixed, **held}.items())[-2:]
    slope = max(high_bytes - low_bytes, 0) / (high - low)
    return high_bytes + slope * (width - high) <= ROOM * limit


def choose(points: Mapping[int, Point], fixed: int, limit: int | None, mode: str = "vmap") -> Width:
    """The widest width of nearly the best throughput that fits; width 1 under `mode` where nothing could be measured.

    max {w: rate(w) >= NEAR max rate, held(w) <= ROOM limit or w = 1}
    """
    curve = {width: point.rate for width, point in points.items()}
    inside = [w for w, point in points.items() if limit is None or point.held <= ROOM * limit or w == 1]
    if not inside:
        return Width(1, mode, curve, None, limit)
    best = max(curve[width] for width in inside)
    width = max(w for w in inside if curve[w] >= NEAR * best)
    return Width(width, points[width].mode, curve, -(-(points[width].held - fixed) // width), limit)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on the device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def in_words(width: Width) -> str:
    """A measured width as one line for a terminal."""
    rates = ((lanes, f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}") for lanes, rate in sorted(width.curve.items()))
    curve = ", ".join(f"{lanes}: {rate}" for lanes, rate in rates) or "not even 1 fits"
    return f"at most {width.width} members by {width.mode}; member-updates/s by width {curve}"
