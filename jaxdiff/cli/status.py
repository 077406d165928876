"""`jaxdiff status DIR... [--watch[=SECONDS]]`: what of a study is finished, running, failed or waiting.

Only small files are read, so it may be asked while others work on the folder, on any machine that sees it.

`running` has a lock that a process is seen to hold, or was written to a short while ago (locks of other machines are
not seen on every file system); `stopped` has begun, and neither is so: its worker is gone, `jaxdiff work DIR` goes on.
With --watch the lines are drawn anew every SECONDS (10) until everything is finished.

Exit codes: 0, or 1 where a pack has failed.
"""

from collections.abc import Sequence
import shutil
import sys
import time

from absl import flags

from jaxdiff.cli import places, watching
from jaxdiff.io.standing import QUIET_SECONDS, STATES, PackStanding, Standing, read_standing

MOST_PACKS = 8  # running packs that are listed
MOST_FAILURES = 20
MOST_SETTINGS = 5
CLEAR = "\x1b[H\x1b[2J"


def main(argv: list[str]) -> int:
    """`jaxdiff status`.

    Raises:
      ValueError: no folder was named, or one is not a run folder.
    """
    values = flags.FlagValues()
    watching.define_watch("Draw anew every so many seconds (10) until everything is finished.", values)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    folders = values(["jaxdiff status", *watching.with_seconds(argv)])[1:]
    if values["help"].value:
        print(f"usage: jaxdiff status DIR [DIR ...] [flags]\n\n{__doc__}\n{values.main_module_help() or values}")
        return 0
    if not folders:
        raise ValueError("no run folder was named; give the --workdir of a study, e.g. jaxdiff status runs/demo.")
    found: dict[str, Standing] = {}

    there = {folder: places.to_read(folder) for folder in folders}

    def look() -> bool:
        for folder, place in there.items():
            if folder in found:
                place.refresh()
            found[folder] = read_standing(place.folder, found.get(folder))
        text = "\n\n".join(describe(found[folder], time.time()) for folder in folders)
        print(_redrawn(text) if values["watch"].value is not None and sys.stdout.isatty() else text, flush=True)
        return all(standing.is_done() for standing in found.values())

    if values["watch"].value is None:
        look()
    else:
        watching.repeat(look, values["watch"].value)
    return int(any(standing.count("failed") for standing in found.values()))


def describe(standing: Standing, now: float) -> str:
    """How a study stands, as lines.

    Args:
      standing: what was read.
      now: seconds since 1970.
    """
    counts = ", ".join(f"{standing.count(state)} {state}" for state in STATES if standing.count(state))
    share = f" ({100 * standing.done / standing.total:.1f} %)" if standing.total else ""
    lost = f", {standing.nonfinite:,} non-finite" if standing.nonfinite else ""
    lines = [
        f"{standing.path}",
        f"  packs       {counts or 'none'} of {len(standing.packs):,}",
        f"  members     {standing.members_finished:,} finished of {standing.members:,}{lost}",
        f"  updates     {standing.done:,} of {standing.total:,} member-updates{share}",
    ]
    if standing.speed is not None and standing.seconds_left is not None:
        lines.append(f"  speed       {_rate(standing.speed)} member-updates/s")
        lines.append(f"  time left   {spoken_time(standing.seconds_left)} at this speed")
    if standing.written is not None:
        lines.append(f"  last write  {_age(standing, now)}")
    lines += [*_running(standing, now), *_failed(standing)]
    tasks = standing.by_task()
    most = max(MOST_SETTINGS // len(tasks), 1)
    lines += [line for of_task in tasks for line in _best(of_task, most)]
    problems = [f"  unreadable: {pack.id}: {problem}" for pack in standing.packs for problem in pack.problems]
    return "\n".join(lines + _shortened(problems, MOST_FAILURES, "files"))


def _redrawn(text: str) -> str:
    """The text on an empty screen, each line cut where the screen ends."""
    width = shutil.get_terminal_size().columns
    return CLEAR + "\n".join(line[:width] for line in text.splitlines())


def spoken_time(seconds: float) -> str:
    """'12 s', '12 min', '3 h 20 min' or '2 d 4 h'."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{hours // 24} d {hours % 24} h"


def _age(standing: Standing, now: float) -> str:
    seconds = now - (standing.written or now)
    if standing.is_done() or seconds <= QUIET_SECONDS:
        return f"{spoken_time(seconds)} ago"
    if any(pack.is_held for pack in standing.packs):
        return f"quiet for {spoken_time(seconds)}; a process still holds a pack"
    return f"quiet for {spoken_time(seconds)}; no worker is seen: `jaxdiff work {standing.path}` goes on"


def _running(standing: Standing, now: float) -> list[str]:
    packs = [pack for pack in standing.packs if pack.state in ("running", "stopped")]
    packs.sort(key=lambda pack: (pack.state != "stopped", pack.written or now))  # the quietest are news
    return _shortened([f"  {pack.state}: {_at_work(pack, now)}" for pack in packs], MOST_PACKS, "packs at work")


def _at_work(pack: PackStanding, now: float) -> str:
    parts = [f"{pack.id}  update {pack.step:,} of {pack.num_updates:,}" if pack.step else f"{pack.id}  no rows yet"]
    if pack.speed is not None:
        parts.append(f"{_rate(pack.speed)}/s")
    if pack.written is not None:
        parts.append(f"written {spoken_time(now - pack.written)} ago")
    if not pack.is_held:
        parts.append("no process here holds it")
    return ", ".join([*parts, pack.label])


def _failed(standing: Standing) -> list[str]:
    lines = [f"  failed: {pack.id}  {pack.error}" for pack in standing.packs if pack.state == "failed"]
    return _shortened(lines, MOST_FAILURES, "failed packs")


def _best(standing: Standing, most: int) -> list[str]:
    settings = standing.settings()
    if not settings:
        return []
    name = "normalised score" if standing.quantity == "scores" else "return"
    where = f" on {standing.packs[0].task}" if standing.packs[0].task else ""
    lines = [f"  best of {len(settings):,} settings{where}, mean of the newest evaluation ({name}):"]
    for setting in settings[:most]:
        seeds = f"{setting.seeds} seed{'s' * (setting.seeds != 1)}"
        when = "" if setting.is_finished else f"  (at {setting.step:,} updates)"
        lines.append(f"  {setting.mean:10.2f}  {seeds:>9}  {setting.label}{when}")
    return lines


def _shortened(lines: Sequence[str], most: int, what: str) -> list[str]:
    if len(lines) <= most:
        return list(lines)
    return [*lines[:most], f"  and {len(lines) - most:,} more {what}"]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
