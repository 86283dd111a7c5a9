"""What commands tell while they work."""

import itertools
import logging

import pytest

from pipeline.cli import say


def test_without_a_terminal_there_is_a_line_each_half_minute_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = itertools.count(step=20.0)
    monkeypatch.setattr(say.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, say.__name__):
        tell = say.progress("evaluated {} of {} scans")
        for done in range(1, 7):
            tell(done, 6)
    # After 40 s the rest of two takes another 80, after 80 s that of four 40; the end is told by the command itself.
    assert caplog.messages == ["evaluated 2 of 6 scans, 1 min left", "evaluated 4 of 6 scans, 1 min left"]
