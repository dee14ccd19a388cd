"""The device is computed on and its results are compared; a GPU that was asked for is never replaced by the CPU."""

from __future__ import annotations

import pytest
import torch

from inkbatch.errors import EXIT_DATA
from inkbatch.predict import doctor

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def test_the_best_device_computes_right():
    findings = doctor.check_device("auto", None)
    assert [finding.error for finding in findings] == [None] * len(findings)
    assert "float32 product right" in findings[0].detail
    assert "bfloat16" in findings[0].detail


@needs_no_gpu
@pytest.mark.parametrize(("device", "gpus"), [("cuda", None), ("cuda", 1), ("auto", 1), ("cpu", 1)])
def test_a_gpu_that_is_asked_for_and_not_there_is_exit_65(device, gpus):
    codes = [finding.error.exit_code for finding in doctor.check_device(device, gpus) if finding.error]
    assert codes == [EXIT_DATA]


def test_a_device_that_computes_wrong_fails(monkeypatch):
    monkeypatch.setattr(doctor, "synchronize", lambda device: None)
    monkeypatch.setattr(doctor, "TOLERANCE", {torch.float32: -1.0})
    (finding,) = doctor.check_device("cpu", None)
    assert finding.error.exit_code == EXIT_DATA
    assert "product differs by" in finding.detail


def test_a_device_that_breaks_fails_with_its_own_words(monkeypatch):
    def broken(device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore lines")

    monkeypatch.setattr(doctor, "synchronize", broken)
    (finding,) = doctor.check_device("cpu", None)
    assert finding.error.exit_code == EXIT_DATA
    assert "no kernel image" in finding.detail
    assert "more lines" not in finding.detail
