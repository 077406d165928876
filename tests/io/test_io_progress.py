import io

import pytest

from jaxdiff.io.progress import Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_tell_share_speed_time_and_losses():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(10_000, 4, stream=stream, seconds_between_lines=5.0, clock=clock)
    progress.update(0)
    clock.now += 10.0
    progress.update(2_500, nonfinite=1, note="best 71.2")
    first, second = stream.getvalue().splitlines()
    assert first == "  0.0%  0/10,000 member-updates"
    # 2500 in 10 s is 250/s; the 7500 left take 30 s.
    assert second == (
        " 25.0%  2,500/10,000 member-updates  250.0/s  0:00:30 left  1 of 4 members non-finite  best 71.2"
    )


def test_plain_lines_are_rationed_and_the_last_one_is_printed():
    stream, clock = io.StringIO(), Clock()
    with Progress(100, 1, stream=stream, seconds_between_lines=30.0, clock=clock) as progress:
        for done in range(0, 101, 10):
            progress.update(done)
            clock.now += 10.0
    shares = [line.split("%")[0].strip() for line in stream.getvalue().splitlines()]
    assert shares == ["0.0", "30.0", "60.0", "90.0", "100.0"]
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_closing_twice_prints_once():
    stream = io.StringIO()
    progress = Progress(10, 1, stream=stream)
    progress.update(10)
    progress.close()
    progress.close()
    assert len(stream.getvalue().splitlines()) == 1


def test_resumed_work_does_not_count_as_speed():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(1_000_000, 1, stream=stream, seconds_between_lines=0.0, clock=clock)
    progress.update(900_000)
    clock.now += 1.0
    progress.update(901_000)
    assert "1.0k/s" in stream.getvalue().splitlines()[-1]


def test_speed_forgets_the_distant_past():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(1_000_000, 1, stream=stream, seconds_between_lines=0.0, clock=clock)
    progress.update(0)
    clock.now += 1000.0  # a slow start
    for done in range(100, 5_100, 100):
        progress.update(done)
        clock.now += 1.0
    assert "100.0/s" in stream.getvalue().splitlines()[-1]


def test_a_terminal_gets_one_line_that_redraws_itself(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream, clock = Terminal(), Clock()
    with Progress(1_000, 2, stream=stream, clock=clock) as progress:
        progress.update(0)
        clock.now += 1.0
        progress.update(500, nonfinite=2, note="[b]note")
    text = stream.getvalue()
    assert "\r" in text
    assert text.count("\n") == 1
    last = text.rsplit("\r", 1)[-1]
    for part in ("50%", "500/1,000", "500.0/s", "0:00:01 left", "2 of 2 members non-finite", "[b]note"):
        assert part in last


def test_a_terminal_narrower_than_the_line_stays_one_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "50")
    stream = Terminal()
    with Progress(1_000, 2, stream=stream) as progress:
        progress.update(500, nonfinite=2, note="a long note " * 20)
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(("total", "members"), [(0, 1), (1, 0)])
def test_nothing_to_do_is_refused(total, members):
    with pytest.raises(ValueError, match="at least 1"):
        Progress(total, members)
