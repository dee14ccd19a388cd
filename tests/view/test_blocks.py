import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from inkbatch.view.blocks import BoundedCache


def test_memory_is_bounded_and_the_oldest_goes_first():
    cache = BoundedCache(100, len)
    made = []

    def get(key, size=40):
        return cache.get(key, lambda: made.append(key) or bytes(size))

    for key in "abacab":
        get(key)
    assert made == ["a", "b", "c", "b"]  # b was the oldest when c came; a was not
    assert cache.used_bytes <= 100
    get("large", 101)
    get("large", 101)
    assert made[-2:] == ["large", "large"]
    assert cache.used_bytes <= 100


def test_whoever_asks_meanwhile_waits_for_the_first():
    cache = BoundedCache(100, len)
    calls, gate = [], threading.Event()

    def make():
        calls.append(1)
        gate.wait(5)
        return b"x"

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache.get, "key", make) for _ in range(4)]
        time.sleep(0.05)
        gate.set()
        assert [one.result() for one in asked] == [b"x"] * 4
    assert len(calls) == 1


def test_a_failure_is_told_and_not_kept():
    cache = BoundedCache(100, len)

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get("key", fail)
    assert cache.get("key", lambda: b"y") == b"y"
