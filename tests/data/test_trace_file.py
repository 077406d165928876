"""Traces of vehicles: what is written is read, in both formats, and every mistake by its line."""

import numpy as np
import pytest

from jaxdiff.data.sources import trace_file

TABLE = "time,id,x,y\n0,b,-10,1\n0,a,5.5,2\n1,b,-8.0,1\n1,a,30,2\n"
HEAD = '<?xml version="1.0"?>\n<!-- by hand -->\n'
XML = (
    HEAD
    + """<fcd-export>
<timestep time="0.00"><vehicle id="b" x="-10" y="1" speed="2"/>
<vehicle id="a" x="5.5" y="2"/><person id="p" x="9"/></timestep>
<timestep time="1.00"><vehicle id="b" x="-8.0" y="1"/><vehicle id="a" x="30" y="2"/></timestep>
</fcd-export>
"""
)
BOMB = HEAD + '<!DOCTYPE fcd-export [<!ENTITY a "aaaa">]>\n<fcd-export/>'
OUTSIDE = HEAD + '<!DOCTYPE fcd-export SYSTEM "other.dtd">\n<fcd-export/>'


@pytest.fixture
def save(tmp_path):
    def write(text):
        path = tmp_path / "trace"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("text", [TABLE, "\ufeff" + TABLE, XML, TABLE.replace("\n", "\r\n") + "\n"])
def test_both_formats_are_the_same_positions(save, text):
    positions, vehicles = trace_file.read(save(text), coverage=30.0)
    assert vehicles == ("b", "a")
    np.testing.assert_array_equal(positions, [[-10.0, 5.5], [-8.0, 30.0]])


def test_a_written_trace_comes_back_whatever_the_order_of_its_rows(save):
    rng = np.random.default_rng(0)
    positions = rng.uniform(-300, 300, (6, 4))
    rows = [f"{0.5 * s},v{n},{float(positions[s, n])!r}" for s in range(6) for n in range(4)]
    first, rest = rows[:4], rows[4:]
    rng.shuffle(rest)
    read = trace_file.read(save("\n".join(["time,id,x", *first, *rest])), slot_seconds=0.5)
    np.testing.assert_array_equal(read.positions, positions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column time, id, x"),
        ("time,id,x\n", "no vehicle in it"),
        (b"time,id,x\n\xff", "no text"),
        (TABLE.replace("time", "t"), "line 1: no column time in 't,id,x,y'"),
        (TABLE.replace("5.5,2", "5.5"), "line 3: 3 cells under 4 columns"),
        (TABLE.replace("5.5", "five"), "line 3: x='five' must be a finite number"),
        (TABLE.replace("5.5", "nan"), "line 3: x='nan' must be a finite number"),
        (TABLE.replace("1,b", "inf,b"), "line 4: time='inf' must be a finite number"),
        (TABLE.replace("0,a", "0,"), "line 3: a vehicle without id"),
        (TABLE + "1,a,3,2\n", "line 6: vehicle 'a' is at time 1 a second time, after line 5"),
        (TABLE + "2,a,3,2\n", r"vehicle 'b' has no row at time 2 \(its first is line 2\).*at all times"),
        (TABLE.replace("\n1", "\n3"), "line 4: time 3 comes 3 s after 0, and a slot lasts 1 s"),
        (TABLE.replace("30", "31"), "line 5: vehicle 'a' is at x=31 at time 1, out of the coverage of 30 m"),
        (XML.replace('x="30"', 'x="-31"'), "line 6: vehicle 'a' is at x=-31"),
        (XML.replace('x="30"', ""), "line 6: <vehicle> without x"),
        (XML.replace('time="1.00"', ""), "line 6: <timestep> without time"),
        (HEAD + '<a><vehicle id="a" x="1"/></a>', "line 3: <vehicle> outside of a <timestep>"),
        (XML[:-5], "no XML: .*line"),
        (BOMB, "line 3: refused, it declares a document type"),
        (OUTSIDE, "line 3: refused, it declares a document type"),
    ],
)
def test_mistakes_are_told_with_their_line(save, text, message):
    with pytest.raises(ValueError, match=message):
        trace_file.read(save(text), coverage=30.0)
