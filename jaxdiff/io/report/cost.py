"""What failed, what has not finished, and what every pack took."""

from jaxdiff.io.report.markup import Child, Markup, tag
from jaxdiff.io.report.results import Results
from jaxdiff.io.report.tables import duration, shortened
from jaxdiff.io.runs import Pack

MAX_NAMED = 4  # settings of a pack that are named


def total(results: Results) -> str:
    """Packs, members, wall clock, device-hours and the speed of all packs together, in words."""
    packs, members = results.run.packs, len(results.members)
    seconds = sum(wall_seconds(pack) or 0.0 for pack in packs)
    words = f"{len(packs)} packs, {members} members, {duration(seconds)} of pack wall clock in all"
    if not members or not seconds:
        return f"{words}."
    updates = sum(len(pack.members) * pack.last_step for pack in packs)
    devices = int(results.run.stamp.get("device_count") or 1)
    hours = seconds * devices / 3600
    shown = f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"
    words += f": {seconds / members:,.1f} s per member, {updates / seconds:,.0f} member-updates/s."
    return f"{words} With {devices} {'device' if devices == 1 else 'devices'} to a pack: {shown} device-hours."


def failures(results: Results) -> Markup | None:
    """Members that went non-finite; None where there are none."""
    failed = [result for result in results.members if result.status == "non-finite"]
    if not failed:
        return None
    rows = [
        [result.member.label, result.member.seed, f"{result.failed_at:,}", result.pack, tag("code", result.member.id)]
        for result in failed
    ]
    heads = ["setting", "seed", "found at update", "pack", "member"]
    return shortened(heads, rows, "Non-finite members", numbers={1, 2})


def unfinished(results: Results) -> Markup | None:
    """Packs without a done.json, and what damaged files were met; None where there are none."""
    rows: list[list[Child]] = []
    for pack in results.run.packs:
        if pack.status != "finished":
            done = f"{pack.last_step:,} of {pack.num_updates:,}"
            labels = list(dict.fromkeys(member.label for member in pack.members))
            settings = ", ".join(labels[:MAX_NAMED])
            settings += f" and {len(labels) - MAX_NAMED} more" if len(labels) > MAX_NAMED else ""
            rows.append([pack.id, pack.status, done, len(pack.members), settings])
    if not rows:
        return None
    return shortened(["pack", "state", "updates", "members", "settings"], rows, "Unfinished packs", numbers={2, 3})


def packs(results: Results) -> Markup:
    """What every pack took."""
    rows = [_cost_row(pack) for pack in results.run.packs]
    heads = ["pack", "lanes", "members", "updates", "wall clock", "compile", "member-updates/s", "seconds per member"]
    return shortened(heads, rows, "Cost of each pack", numbers=set(range(2, 8)))


def wall_seconds(pack: Pack) -> float | None:
    """The pack's wall clock so far: from done.json, else from the newest logged row; None when nothing was logged."""
    if pack.done is not None and pack.done.get("wall_seconds") is not None:
        return float(pack.done["wall_seconds"])
    clocks = [t["wall_seconds"] for t in (pack.train, pack.eval) if t is not None and len(t.get("wall_seconds", ()))]
    return max((float(clock[-1]) for clock in clocks), default=None)


def _cost_row(pack: Pack) -> list[Child]:
    seconds, done = wall_seconds(pack), pack.done or {}
    members = len(pack.members)
    speed = done.get("member_updates_per_second")
    return [
        pack.id,
        pack.lanes or "–",
        members,
        f"{pack.last_step:,}",
        duration(seconds),
        duration(done.get("compile_seconds")),
        "–" if speed is None else f"{speed:,.0f}",
        "–" if seconds is None or not members else f"{seconds / members:,.1f}",
    ]
