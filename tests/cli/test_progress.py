"""Progress: a bar in a terminal, else a line every half minute, with what is known of the rate and the time left."""

import io
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from safetyfilter.cli import progress
from safetyfilter.cli.progress import LINE_EVERY_S, Bar, sample_progress, step
from safetyfilter.progress import Tally


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=60)


def fail_after(seconds: float, console: Console, clock: Clock) -> None:
    """Report some samples at once, and fail some time later."""
    with sample_progress("exporting", 10, unit="samples", console=console, clock=clock) as progress:
        progress({"seen": 7})
        clock.now += seconds
        raise ZeroDivisionError


def lines(console: Console) -> Iterator[str]:
    assert isinstance(console.file, io.StringIO)
    return iter(console.file.getvalue().splitlines())


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end(clock: Clock, log: Console) -> None:
    with sample_progress("scanning", 1000, console=log, clock=clock) as progress:
        for _ in range(8):
            clock.now += LINE_EVERY_S / 4
            progress({"seen": 100, "unscored": 1})
        progress({"kept": 700, "excluded": 100})
    assert list(lines(log)) == [
        "scanning: 400 of 1,000 images (40%), 13 images/s, 0:00:45 left; unscored 4",
        "scanning: 800 of 1,000 images (80%), 13 images/s, 0:00:15 left; unscored 8",
        "scanning: 800 images, 13 images/s, took 0:01:00; kept 700, excluded 100, unscored 8",
    ]


def test_the_time_that_the_start_takes_says_nothing_of_the_rest(clock: Clock) -> None:
    tally = Tally(what="scanning", total=1000, clock=clock)
    clock.now += 100
    tally.add({"seen": 10})
    clock.now += 10
    tally.add({"seen": 490})
    assert tally.line() == "scanning: 500 of 1,000 images (50%), 49 images/s, 0:00:10 left"


def test_an_unknown_total_is_said_and_estimated_from_finished_parts(clock: Clock) -> None:
    tally = Tally(what="scanning", parts=4, clock=clock)
    clock.now += 10
    tally.add({"seen": 120})
    assert tally.line() == "scanning: 120 images, total not known yet, 12 images/s"
    tally.add({"kept": 90, "excluded": 10})
    assert tally.line() == ("scanning: 120 of about 400 images (30%), 12 images/s, 0:00:23 left; kept 90, excluded 10")
    for _ in range(3):
        tally.add({"seen": 100, "kept": 100, "excluded": 0})
    assert tally.estimate == tally.seen == 420


def test_what_was_done_before_counts_for_no_rate(clock: Clock, log: Console) -> None:
    with sample_progress("scanning", 60, console=log, clock=clock) as progress:
        progress({"seen": 50, "resumed": 50, "kept": 50, "excluded": 0, "unscored": 0})
        clock.now += LINE_EVERY_S
        progress({"seen": 5, "unscored": 0})
    first, last = lines(log)
    assert first == "scanning: 55 of 60 images (92%), 0.2 images/s, 0:00:30 left; kept 50, excluded 0, unscored 0"
    assert last == "scanning: 55 images, 0.2 images/s, took 0:00:30; kept 50, excluded 0, unscored 0"


def test_all_done_before_is_no_rate_of_zero(clock: Clock, log: Console) -> None:
    with sample_progress("scanning", 50, console=log, clock=clock) as progress:
        clock.now += 1
        progress({"seen": 50, "resumed": 50})
    assert list(lines(log)) == ["scanning: 50 images, took 0:00:01"]


def test_a_step_without_counts_tells_how_long_it_took(clock: Clock, log: Console) -> None:
    with sample_progress("measuring", None, console=log, clock=clock):
        clock.now += 3700
    assert list(lines(log)) == ["measuring: took 1:01:40"]


@pytest.mark.parametrize("seconds", [29, 35])
def test_an_error_comes_after_what_was_done_and_alone_if_it_comes_soon(
    clock: Clock, log: Console, seconds: float
) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_after(seconds, log, clock)
    shown = ["exporting: 7 of 10 samples (70%), 0.2 samples/s, 0:00:15 left"] if seconds > 30 else []
    assert list(lines(log)) == shown


@pytest.mark.parametrize("total", [60_000, None], ids=["known", "unknown"])
def test_the_bar_fits_a_terminal(clock: Clock, total: int | None) -> None:
    screen = Console(file=io.StringIO(), width=80)
    tally = Tally(what="scanning", total=total, parts=6, clock=clock)
    clock.now += 60
    tally.add({"seen": 12_345, "unscored": 321})
    tally.add({"kept": 9_000, "excluded": 1_000})
    screen.print(Bar(tally))
    first, second = (line.rstrip() for line in lines(screen))
    assert first.startswith("scanning ━")
    assert first.endswith(f" 12,345 of {'' if total else 'about '}60,000 images (21%)")
    assert second == "  kept 9,000  excluded 1,000  unscored 321  206 images/s, 0:03:52 left"
    assert len(first) <= 80


@pytest.mark.parametrize("seconds", [29, 35])
def test_in_a_terminal_an_error_that_comes_soon_leaves_no_bar(clock: Clock, seconds: float) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with pytest.raises(ZeroDivisionError):
        fail_after(seconds, screen, clock)
    assert isinstance(screen.file, io.StringIO)
    erased = screen.file.getvalue().endswith("\x1b[1A\x1b[2K")
    assert "exporting" in screen.file.getvalue()
    assert erased is (seconds < 30)


def end_timers() -> None:
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()


def test_a_log_is_told_of_a_step_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(io.StringIO):
        there = threading.Event()

        def write(self, text: str) -> int:
            self.there.set()
            return super().write(text)

    log = Console(file=Told())
    with step("loading the encoder", log):
        pass
    assert log.file.getvalue() == ""
    monkeypatch.setattr(progress, "LINE_AFTER_S", 0)
    with step("loading [the] encoder", log):
        assert log.file.there.wait(60)
    end_timers()
    assert log.file.getvalue() == "loading [the] encoder …\n"


def test_an_error_in_a_step_goes_on_and_nothing_is_said_after_it() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="no such file"), step("loading the encoder", Console(file=io.StringIO())):
        raise ValueError("no such file")
    end_timers()
    assert threading.active_count() <= before
