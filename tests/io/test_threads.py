"""Thread pools: a wait that could become a circle is refused, a failure leaves nothing running."""

from __future__ import annotations

import threading
import time

import pytest

from inkbatch.io.threads import CircularWaitError, Tasks, WorkerPool, codec_pool, decode_pool, layer_pool

INNER = WorkerPool("test-inner", 1)
OUTER = WorkerPool("test-outer", 1, waits_for=[INNER])


def test_a_task_waits_for_the_pools_that_it_names():
    assert OUTER.submit(lambda: INNER.submit(lambda: 7).result(5)).result(5) == 7


@pytest.mark.parametrize(("caller", "callee"), [(OUTER, OUTER), (INNER, OUTER), (INNER, INNER)])
def test_a_task_that_would_wait_in_a_circle_is_refused(caller, callee):
    with pytest.raises(CircularWaitError, match=f"{caller.name}.*must not wait for.*{callee.name}"):
        caller.submit(lambda: callee.submit(int).result(5)).result(5)
    with pytest.raises(CircularWaitError):
        caller.submit(lambda: callee.map(int, ["1"])).result(5)
    assert caller.submit(int).result(5) == 0


def test_pools_of_the_package_lead_one_way():
    def below(pool: WorkerPool) -> set[str]:
        return {pool.name}.union(*(below(other) for other in pool.waits_for))

    assert [below(pool) for pool in (codec_pool, layer_pool, decode_pool)] == [
        {"codec", "layer", "decode", "chunk", "remote-chunk"},
        {"layer", "decode", "chunk", "remote-chunk"},
        {"decode", "chunk", "remote-chunk"},
    ]


def test_after_a_failure_nothing_runs_and_what_has_not_begun_never_does():
    done = []

    def fail():
        raise ArithmeticError("the first")

    def slow():
        time.sleep(0.1)
        done.append("slow")

    def all_of_them():
        with Tasks(INNER) as tasks:
            tasks.start(fail)
            tasks.start(slow)
            tasks.start(done.append, "last")

    with pytest.raises(ArithmeticError, match="the first"):
        all_of_them()
    seen = list(done)
    assert INNER.submit(int).result(5) == 0
    assert done == seen
    assert "last" not in done


def test_an_error_of_the_block_itself_waits_for_what_runs():
    begun, done = threading.Event(), []

    def slow():
        begun.set()
        time.sleep(0.05)
        done.append("slow")

    def broken():
        with Tasks(INNER) as tasks:
            tasks.start(slow)
            begun.wait(5)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert done == ["slow"]


def test_the_newest_tasks_may_go_on():
    release = threading.Event()
    with Tasks(INNER) as tasks:
        tasks.start(int)
        tasks.start(release.wait, 5)
        tasks.finish(newest=1)
        assert len(tasks) == 1
        release.set()
