"""The loop: bounded, in order, honest about errors and stops."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from inkbatch.errors import Preempted, StorageError
from inkbatch.geometry import Box, Unit
from inkbatch.run.pipeline import Overlap, StageSeconds, UnitWork, run_units
from inkbatch.run.signals import StopFlag

UNITS = [Unit(i, Box(0, i, 1, i + 1), Box(0, i, 1, i + 1)) for i in range(12)]


class Recorder:
    """Work that counts what is alive and what was marked."""

    def __init__(self, fail_stage="", fail_at=-1, slow_store=0.0):
        self.fail_stage, self.fail_at, self.slow_store = fail_stage, fail_at, slow_store
        self.marked, self.stored, self.alive, self.most_alive = [], [], 0, 0
        self.lock = threading.Lock()

    def _maybe_fail(self, stage, unit):
        if stage == self.fail_stage and unit.index == self.fail_at:
            raise StorageError(f"{stage} {unit.name}")

    def load(self, unit):
        with self.lock:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        self._maybe_fail("load", unit)
        return unit.index

    def compute(self, unit, loaded):
        self._maybe_fail("compute", unit)
        return loaded * 10

    def store(self, unit, computed):
        time.sleep(self.slow_store)
        self._maybe_fail("store", unit)
        self.stored.append((unit.index, computed))
        with self.lock:
            self.alive -= 1
        return {"value": computed}

    def mark(self, unit, facts):
        assert (unit.index, facts["value"]) in self.stored
        self.marked.append(unit.index)

    @property
    def work(self):
        return UnitWork(self.load, self.compute, self.store, self.mark)


@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
@pytest.mark.parametrize("behind", [0, 1, 2])
def test_every_unit_is_stored_then_marked_and_memory_is_bounded(ahead, behind):
    recorder = Recorder(slow_store=0.002)
    work = dataclasses.replace(recorder.work, overlap=Overlap(ahead, behind))
    assert run_units(UNITS, work, stop=StopFlag()) == len(UNITS)
    assert sorted(recorder.marked) == list(range(len(UNITS)))
    assert sorted(recorder.stored) == [(i, i * 10) for i in range(len(UNITS))]
    assert recorder.most_alive <= ahead + 1 + behind + (1 if behind == 0 and ahead == 0 else 0)


def test_a_job_without_a_device_hands_over_what_it_loaded():
    recorder, seconds = Recorder(), StageSeconds()
    work = dataclasses.replace(recorder.work, compute=None)
    assert run_units(UNITS, work, stop=StopFlag(), seconds=seconds) == len(UNITS)
    assert sorted(recorder.stored) == [(unit.index, unit.index) for unit in UNITS]
    assert sorted(recorder.marked) == [unit.index for unit in UNITS]
    assert seconds.compute == 0


def test_reading_computing_and_writing_overlap():
    running, together = set(), set()

    def stage(name):
        def act(unit, *_):
            running.add(name)
            time.sleep(0.01)
            together.add(frozenset(running))
            running.discard(name)
            return {}

        return act

    work = UnitWork(stage("load"), stage("compute"), stage("store"), lambda unit, facts: None)
    run_units(UNITS, work, stop=StopFlag())
    assert frozenset({"load", "compute", "store"}) in together


@pytest.mark.parametrize("stage", ["load", "compute", "store"])
@pytest.mark.parametrize("at", [0, 5, 11])
def test_the_first_error_of_any_stage_is_raised_and_its_unit_is_not_marked(stage, at):
    recorder = Recorder(stage, at)
    work = dataclasses.replace(recorder.work, overlap=Overlap(2, 2))
    with pytest.raises(StorageError, match=stage):
        run_units(UNITS, work, stop=StopFlag())
    assert at not in recorder.marked
    assert all(index < at or stage == "store" for index in recorder.marked)


def test_a_stop_keeps_what_is_stored_and_starts_nothing_new():
    recorder, stop = Recorder(slow_store=0.01), StopFlag()

    def compute(unit, loaded):
        if unit.index == 4:
            stop.set("SIGTERM")
        return loaded * 10

    work = UnitWork(recorder.load, compute, recorder.store, recorder.mark)
    with pytest.raises(Preempted, match="SIGTERM"):
        run_units(UNITS, work, stop=stop)
    assert sorted(recorder.marked) == [0, 1, 2, 3, 4]


def test_the_stop_is_watched_before_the_first_unit_is_read():
    stop, watched = StopFlag(), []

    def load(unit):
        watched.append(stop.watched)
        return 0

    work = UnitWork(load, lambda unit, loaded: 0, lambda unit, computed: {}, lambda unit, facts: None)
    run_units(UNITS[:2], work, stop=stop)
    assert watched == [True, True]


def test_a_stop_does_not_wait_for_a_hanging_read():
    stop, release = StopFlag(), threading.Event()

    def load(unit):
        stop.set("SIGTERM")
        release.wait(3)
        return 0

    work = UnitWork(load, lambda unit, loaded: 0, lambda unit, computed: {}, lambda unit, facts: None)
    timer = threading.Timer(1.0, release.set)
    timer.start()
    with pytest.raises(Preempted):
        run_units(UNITS[:1], work, stop=stop)
    timer.join()
