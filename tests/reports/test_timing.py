"""Time of a run: stages add up to the wall clock, whatever a job has."""

import pytest

from inkbatch.reports.timing import STAGES, spent

ROW = {"seconds": 10.0, "setup_s": 1.0, "loop_s": 7.0, "compute_s": 5.0, "device": "cpu", "cores": 2, "usd_stated": 1.0}


def test_four_stages_share_the_wall_clock_and_the_money():
    found = spent([ROW, ROW])
    assert [stage.name for stage in found.stages] == list(STAGES)
    assert [stage.seconds for stage in found.stages] == [2, 10, 4, 4]
    assert found.usd == pytest.approx(2)


def test_a_job_that_needs_no_device_has_three_and_loses_no_second():
    names = ("opening", None, "reading and counting", "drawing")
    found = spent([ROW, {**ROW, "compute_s": 0.0}], names)
    assert [(stage.name, stage.seconds) for stage in found.stages] == [
        ("opening", 2),
        ("reading and counting", 14),
        ("drawing", 4),
    ]
    assert found.seconds == 20
    assert found.usd == pytest.approx(2)


def test_without_rows_nothing_is_said():
    assert spent([]) is None
