"""The memory allocator of the C library, told what a loop over steps or units does."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
LARGEST = 1 << 30  # bytes; a larger block still goes back at once
KEPT = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Let the process keep what it frees: the next step or unit takes blocks of the same sizes.

    By default the GNU C library gives large blocks back to the system when they are freed, and every step touches
    fresh pages, which costs up to a fifth of a step on a CPU. The peak stays what it was; it is given back at the end.

    Returns:
        Whether the C library took it; others than GNU's have no such setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(set_option(M_MMAP_THRESHOLD, LARGEST) and set_option(M_TRIM_THRESHOLD, KEPT))
