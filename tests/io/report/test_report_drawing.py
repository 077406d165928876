import math
import re

import numpy as np
import pytest

from jaxdiff.io.report import markup, svg


def test_tag_escapes_what_is_not_markup():
    made = markup.tag("p", "<b>&", markup.tag("i", "x"), title='a"b', data_none=None)
    assert made == '<p title="a&quot;b">&lt;b&gt;&amp;<i>x</i></p>'


def test_a_coordinate_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="must be finite"):
        markup.tag("circle", cx=math.nan)


@pytest.mark.parametrize("low, high", [(0, 1), (-3.7, 12.2), (0, 1e6), (1e-5, 3e-5), (98.1, 98.4), (-1e4, -10)])
def test_linear_ticks_are_round_and_inside(low, high):
    ticks = svg.linear_ticks(low, high, 5)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= 11
    assert min(ticks) >= low - 1e-9 * abs(low) and max(ticks) <= high + 1e-9 * abs(high)
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)
    np.testing.assert_allclose(np.diff(ticks), step, rtol=1e-6)


@pytest.mark.parametrize("low, high", [(0.1, 10), (1e-7, 1e7), (2, 70), (3.0, 4.0), (1e-4, 3e-3)])
def test_log_ticks_are_inside(low, high):
    ticks = svg.log_ticks(low, high, 5)
    assert 2 <= len(ticks) <= 9
    assert all(low * 0.99 <= tick <= high * 1.01 for tick in ticks)
    assert ticks == sorted(ticks)


def test_scale_meets_its_ends_and_puts_the_geometric_middle_in_the_middle():
    linear, log = svg.Scale(-2, 6, 10, 90), svg.Scale(0.01, 100, 10, 90, "log")
    assert [linear(-2), linear(6), linear(2)] == pytest.approx([10, 90, 50])
    assert [log(0.01), log(100), log(1)] == pytest.approx([10, 90, 50])


@pytest.mark.parametrize(
    "value, written",
    [(0, "0"), (0.5, "0.5"), (20, "20"), (999, "999"), (1500, "1.5k"), (1e6, "1M"), (3e-4, "3e-4"), (-2000, "-2k")],
)
def test_short_numbers(value, written):
    assert svg.short(value) == written


@pytest.mark.parametrize("values", [[], [3.0], [2.0, 2.0], [0.0], [math.nan, 1.0]])
def test_span_is_never_empty(values):
    for kind in ("linear", "log"):
        low, high = svg.span(values, kind)
        assert low < high and (kind == "linear" or low > 0)


def test_a_line_has_a_gap_where_a_point_is_missing():
    frame = svg.Frame.make(200, 100, (0, 3), (0, 3))
    drawn = svg.line(frame, [0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])
    assert re.findall("[ML]", re.search(' d="([^"]*)"', drawn)[1]) == ["M", "M", "L"]
