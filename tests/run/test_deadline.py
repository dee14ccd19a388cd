"""Stopping ahead of a time limit."""

from __future__ import annotations

import time

import pytest

from inkbatch.errors import ConfigError
from inkbatch.run.deadline import watch_deadline
from inkbatch.run.signals import StopFlag


def test_the_flag_is_set_when_the_time_is_over(monkeypatch):
    monkeypatch.setenv("INKBATCH_DEADLINE_S", "0.05")
    stop = StopFlag()
    timer = watch_deadline(stop)
    assert timer is not None
    assert timer.daemon  # a finished job does not wait for it
    timer.join(timeout=30)
    assert stop.is_set
    assert "INKBATCH_DEADLINE_S" in stop.reason


def test_without_a_deadline_nothing_ticks(monkeypatch):
    monkeypatch.delenv("INKBATCH_DEADLINE_S", raising=False)
    assert watch_deadline(StopFlag()) is None


@pytest.mark.parametrize("text", ["soon", "0", "-5", "nan", "1e300"])
def test_a_deadline_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("INKBATCH_DEADLINE_S", text)
    started = time.monotonic()
    with pytest.raises(ConfigError, match="INKBATCH_DEADLINE_S"):
        watch_deadline(StopFlag())
    assert time.monotonic() - started < 5
