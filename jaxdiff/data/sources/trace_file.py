"""Where vehicles were, slot by slot: a table of times, or what SUMO writes with `--fcd-output`.

    time,id,x                                    <fcd-export>
    0,car1,-12.5                                   <timestep time="0.00">
    0,bus7,80.0                                      <vehicle id="car1" x="-12.5" y="3.2" .../>
    1,car1,12.1                                      ...

x in metres along a straight road; y and all other columns are not used. Vehicles come in the order in which the file
names them first. The rows of a table may be in any order.
"""

from collections.abc import Iterator
import csv
import io
import math
import pathlib
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np

MOST_BYTES = 256 * 2**20
COLUMNS = ("time", "id", "x")
SAME_TIME = 1e-6  # seconds by which a step may differ from a slot


class Trace(NamedTuple):
    """Positions of every vehicle at every time."""

    positions: np.ndarray  # [S, N] float64, metres
    vehicles: tuple[str, ...]  # N names


class _Row(NamedTuple):
    line: int
    time: float
    vehicle: str
    x: float


def read(path: pathlib.Path, *, slot_seconds: float = 1.0, coverage: float | None = None) -> Trace:
    """The file's positions, one row per slot.

    Args:
      path: a table with a head line, or XML; which of them is told by its first character.
      slot_seconds: how far apart the times must be.
      coverage: how far from 0 vehicles may be, in metres; None: anywhere.

    Raises:
      FileNotFoundError: no such file.
      ValueError: with the line: a number that is none or not finite, a vehicle twice at a time or missing at one,
        times that are not slots, a vehicle out of coverage; no table, no XML, or XML with a DTD.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path}: more than {MOST_BYTES >> 20} MB; cut it to the vehicles and times that are needed.")
    rows = _rows_of_xml(content, path) if content.lstrip()[:1] == b"<" else list(_rows_of_table(content, path))
    if not rows:
        raise ValueError(f"{path}: no vehicle in it; it needs a row for each vehicle at each time.")
    for row in rows:
        if coverage is not None and abs(row.x) > coverage:
            raise ValueError(
                f"{path}: line {row.line}: vehicle {row.vehicle!r} is at x={row.x:g} at time {row.time:g}, out of the "
                f"coverage of {coverage:g} m around the roadside unit at x=0; shift x, cut the trace, or let the fleet "
                "be the origin (trace_origin)."
            )
    return _trace(rows, slot_seconds, path)


def _trace(rows: list[_Row], slot_seconds: float, path: pathlib.Path) -> Trace:
    """Rows in any order -> [S, N]; raises as `read`."""
    vehicles = tuple(dict.fromkeys(row.vehicle for row in rows))
    times = sorted({row.time for row in rows})
    place = {vehicle: column for column, vehicle in enumerate(vehicles)}
    when = {time: index for index, time in enumerate(times)}
    positions, lines = np.full((len(times), len(vehicles)), np.nan), np.zeros((len(times), len(vehicles)), int)
    for row in rows:
        at = when[row.time], place[row.vehicle]
        if lines[at]:
            raise ValueError(
                f"{path}: line {row.line}: vehicle {row.vehicle!r} is at time {row.time:g} a second time, after line "
                f"{lines[at]}; keep one of them."
            )
        positions[at], lines[at] = row.x, row.line
    gaps = np.argwhere(lines == 0)
    if len(gaps):
        time, vehicle = times[gaps[0][0]], vehicles[gaps[0][1]]
        seen = lines[:, gaps[0][1]]
        raise ValueError(
            f"{path}: vehicle {vehicle!r} has no row at time {time:g} (its first is line {seen[seen > 0].min()}); all "
            "vehicles must be there at all times: cut the trace to the times when they are, or leave the vehicle out."
        )
    for index, (before, time) in enumerate(zip(times, times[1:], strict=False), start=1):
        if abs(time - before - slot_seconds) > SAME_TIME:
            raise ValueError(
                f"{path}: line {lines[index].min()}: time {time:g} comes {time - before:g} s after {before:g}, and a "
                f"slot lasts {slot_seconds:g} s; write a row for each slot (SUMO: --device.fcd.period)."
            )
    return Trace(positions, vehicles)


def _rows_of_table(content: bytes, path: pathlib.Path) -> Iterator[_Row]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no text ({error.reason}); it must be a table in UTF-8, or SUMO's XML.") from None
    table = csv.reader(io.StringIO(text, newline=""))
    head = [name.strip() for name in next(table, [])]
    missing = [name for name in COLUMNS if name not in head]
    if missing:
        raise ValueError(
            f"{path}: line 1: no column {', '.join(missing)} in {','.join(head)!r}; the head line must be time,id,x "
            "or have these columns among others."
        )
    at = [head.index(name) for name in COLUMNS]
    for cells in table:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            raise ValueError(f"{path}: line {table.line_num}: {len(cells)} cells under {len(head)} columns.")
        time, vehicle, x = (cells[column].strip() for column in at)
        yield _row(table.line_num, time, vehicle, x, path)


def _rows_of_xml(content: bytes, path: pathlib.Path) -> list[_Row]:
    """What expat finds; a document type, where entities would be declared, ends it before anything is done."""
    parser = expat.ParserCreate()
    rows: list[_Row] = []
    time: list[str] = []  # of the timestep that is open

    def refuse(*_: Any) -> None:
        raise ValueError(
            f"{path}: line {parser.CurrentLineNumber}: refused, it declares a document type, and SUMO's files have "
            "none; take the <!DOCTYPE ...> out if you trust the file."
        )

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag not in ("timestep", "vehicle"):
            return
        line = parser.CurrentLineNumber
        needed = ("time",) if tag == "timestep" else ("id", "x")
        missing = [name for name in needed if name not in attributes]
        if missing or (tag == "vehicle" and not time):
            what = f"<{tag}> without {', '.join(missing)}" if missing else "<vehicle> outside of a <timestep>"
            raise ValueError(f"{path}: line {line}: {what}; write it with SUMO's --fcd-output.")
        if tag == "timestep":
            time[:] = [attributes["time"]]
        else:
            rows.append(_row(line, time[0], attributes["id"], attributes["x"], path))

    def end(tag: str) -> None:
        if tag == "timestep":
            time.clear()

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"{path}: no XML: {error}; write it with SUMO's --fcd-output.") from None
    return rows


def _row(line: int, time: str, vehicle: str, x: str, path: pathlib.Path) -> _Row:
    numbers = []
    for name, text in (("time", time), ("x", x)):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{path}: line {line}: {name}={text!r} must be a finite number.")
        numbers.append(number)
    if not vehicle:
        raise ValueError(f"{path}: line {line}: a vehicle without id; give each a name.")
    return _Row(line, numbers[0], vehicle, numbers[1])
