"""Numbers and words as a person says them: sizes, durations, counts, near matches."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def bytes_text(count: float) -> str:
    """Say a number of bytes in powers of 1024, as memory budgets are given: ``12 B``, ``3.4 MiB``, ``1.2 GiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:,.1f} GiB"


def seconds_text(seconds: float) -> str:
    """Say a measured duration to the second: ``3.2 s``, ``4 min 10 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"


def rough_seconds_text(seconds: float) -> str:
    """Say an estimated duration to two digits or so: ``5 s``, ``10 min``, ``2.5 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def rough_range_text(seconds: tuple[float, float]) -> str:
    """Say an estimated range of durations: ``15 min to 40 min``."""
    return " to ".join(rough_seconds_text(value) for value in seconds)


def count_text(count: int, noun: str, plural: str = "") -> str:
    """Say how many there are of something: ``1 unit``, ``12 units``; `plural` is for nouns that take more than an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def done_text(done: int, *, complete: bool) -> str:
    """Say how much of a job is there before it starts: ``already complete``, ``3 already done``."""
    return "already complete" if complete else f"{done:,} already done"


def share_text(share: float) -> str:
    """Write a share from 0 to 1 in per cent, such as ``43 %``; small ones are never 0 and large ones never all."""
    if 0 < share < 0.01:
        return "less than 1 %"
    return f"{min(round(share * 100), 100 if share >= 1 else 99)} %"


def near_matches(word: str, known: Sequence[str]) -> str:
    """Return a hint such as ``; did you mean 'stride_px'?``, or an empty text."""
    found = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"; did you mean {', '.join(repr(name) for name in found)}?" if found else ""
