"""Stopping ahead of a time limit: an engine's own time-out is often not retried, code 75 is."""

from __future__ import annotations

import os
import threading

from inkbatch.errors import ConfigError
from inkbatch.run.signals import StopFlag

DEADLINE_VARIABLE = "INKBATCH_DEADLINE_S"


def watch_deadline(stop: StopFlag) -> threading.Timer | None:
    """Ask for a stop when the seconds of ``INKBATCH_DEADLINE_S`` are over, counted from now.

    Returns:
        The timer, or None where no deadline is set.

    Raises:
        ConfigError: The variable is not a positive number.
    """
    text = os.environ.get(DEADLINE_VARIABLE)
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise ConfigError(f"{DEADLINE_VARIABLE}={text!r}: expected a number of seconds above 0")
    timer = threading.Timer(seconds, stop.set, [f"the deadline of {seconds:g} s ({DEADLINE_VARIABLE})"])
    timer.daemon = True
    timer.start()
    return timer
