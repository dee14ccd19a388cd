"""The GPU check, rehearsed on a CPU: its steps find what they say, and one that goes wrong stops none of the others."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check, gpu_jobs, gpu_networks, gpu_pack, gpu_trim
from benchmarks.gpu_runner import Given, Step, run_steps
from inkbatch.models.bundle import Contract, LayerRule
from inkbatch.models.identity import Identity, IdentityConfig

TROUBLE = """
import os, subprocess, sys, time

def well(given):
    yield {"device": given.device, "folder": str(given.folder)}

def wrong(given):
    yield {"ok": False, "difference": 9}

def raising(given):
    yield {"first": 1}
    raise ValueError("no such kernel")

def crashing(given):
    os._exit(7)
    yield {}

def hanging(given):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield {"child": child.pid}
    time.sleep(60)

def silent(given):
    return iter(())
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Run steps of the module above on nothing; returns what they told, by step, and the names that failed."""
    (tmp_path / "trouble.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*names: str, limit_s: float = 60.0, minutes: float = 8.0):
        rows: list[dict] = []
        steps = [Step(name, limit_s, f"trouble:{name}") for name in names]
        failed = run_steps(steps, {"device": "cuda", "quick": True}, minutes, rows.append)
        return {name: [row for row in rows if row["step"] == name] for name in names}, failed

    return run


def test_a_step_that_goes_wrong_says_so_and_the_next_one_is_run(told):
    found, failed = told("wrong", "raising", "crashing", "silent", "well")
    assert failed == ["wrong", "raising", "crashing", "silent"]
    assert [rows[-1]["ended"] for rows in found.values()] == ["FAILED"] * 4 + ["well"]
    assert found["raising"][0]["first"] == 1
    assert found["raising"][1]["error"] == "ValueError: no such kernel"
    assert found["crashing"][-1]["error"] == "crashed with exit code 7"
    assert found["silent"][-1]["error"] == "found nothing"
    assert found["well"][0]["device"] == "cuda"
    assert not Path(found["well"][0]["folder"]).exists()


def test_a_step_that_hangs_is_ended_with_all_that_it_started(told):
    found, failed = told("hanging", limit_s=4.0)
    first, last = found["hanging"]
    assert failed == ["hanging"]
    assert last["error"] == "not done after 4 s; ended"
    state = Path(f"/proc/{first['child']}/stat")
    for _ in range(100):
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the process that the step started lives on")


def test_what_the_time_does_not_reach_is_not_begun(told):
    found, failed = told("well", minutes=0.01)
    assert failed == ["well"]
    assert "not begun" in found["well"][0]["error"]


def test_limits_and_names_are_as_the_page_says():
    names = [step.name for step in gpu_check.STEPS]
    assert names[:3] == ["doctor", "golden", "demo"]
    page = (Path(__file__).parents[1] / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in names)
    assert all(callable(step.function()) for step in gpu_check.STEPS)


@pytest.fixture
def given(tmp_path) -> Given:
    return Given("cpu", True, tmp_path)


def test_golden_logits_are_compared_in_both_precisions(given, monkeypatch):
    rows = list(gpu_networks.golden(given))
    assert [(row["precision"], row["ok"]) for row in rows] == [("fp32", True), ("bf16", True)]
    assert rows[0]["difference_std"] < 1e-4 < rows[1]["difference_std"]


def test_a_network_that_answers_otherwise_fails_the_step(given, monkeypatch):
    monkeypatch.setattr(gpu_networks.Golden, "fill", lambda fixture, model: None)
    rows = gpu_networks.golden(given, lambda model, subvolume, dtype: torch.full((2, 1, 16, 16), 9.0))
    assert not any(row["ok"] for row in rows)


def test_batches_are_found_and_memory_that_runs_out_is_survived(given):
    found, recovered = gpu_networks.batch(given)
    assert found["batch_tiles"] >= 1
    assert recovered["ok"]
    assert recovered["went_on_with_tiles"] < recovered["asked_tiles"]


def test_a_crowded_network_takes_no_more_tiles_than_it_says():
    crowded = gpu_networks.Crowded(Identity(IdentityConfig(depth_layers=3, layer=1)), 2)
    contract = Contract(layers=LayerRule(count=3), voxel_size_um=8, tile_px=8, stride_px=4)
    passes = gpu_networks.passes_of(crowded, contract, torch.device("cpu"), 8)
    assert passes.maps(torch.rand(8, 1, 3, 8, 8)).shape == (8, 8, 8)
    assert passes.batch_tiles == 2


def test_a_whole_job_stands_beside_its_passes_and_says_how_long_the_device_waited(given):
    (row,) = gpu_jobs.whole_job(given, "ink-9um")
    assert row["share_of_passes"] == pytest.approx(row["job_tiles_per_s"] / row["forward_tiles_per_s"])
    assert 0 <= row["device_waited_share"] < 1
    assert row["met"] is None
    assert min(row["tiles"], row["peak_memory_bytes"], row["bytes_read"]) > 0


def test_windows_of_depth_are_read_once(given):
    (row,) = gpu_jobs.windows(given)
    assert row["windows"] > 1
    assert row["ok"]


@pytest.mark.slow
def test_the_whole_check_runs_on_a_cpu(tmp_path):
    place = tmp_path / "new" / "lines.jsonl"
    code = gpu_check.main(["--device", "cpu", "--quick", "--out", str(place)])
    lines = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    assert (code, lines[-1]["failed"]) == (0, [])
    ended = {line["step"]: line["ended"] for line in lines if "ended" in line}
    assert ended == {step.name: "well" for step in gpu_check.STEPS}
    training = next(line for line in lines if line["step"] == "training")
    assert training["steps"] == 8
    assert 0 < training["killed_after_step"] < 8


LOCK = """\
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:00
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:01
torch==2.15.0
nvidia-cublas==13.4.1.3 ; sys_platform == 'linux'
colorama==0.4.6 ; sys_platform == 'win32'
tifffile==2026.3.3 ; python_full_version < '3.12' \\
tifffile==2026.11.8 ; python_full_version >= '3.12' \\
zarr==3.1.6 \\
botocore==1.43.117
torchvision==0.30.0
transformers==5.23.0
"""


def test_what_a_machine_lacks_is_the_lock_for_its_python_less_what_is_there():
    versions = gpu_pack.locked(LOCK)
    assert (versions["numpy"], versions["tifffile"]) == ("2.5.5", "2026.11.8")
    assert "colorama" not in versions
    assert gpu_pack.missing(versions, ()) == {
        **{"tifffile": "2026.11.8", "zarr": "3.1.6"},
        "torchvision": gpu_pack.TORCHVISION,  # the one of that machine's torch, not of the lock's
    }
    there = gpu_pack.names_in("Package Version\n------- ----\nTiffFile 2026.1\ntorchvision 0.26\n")
    assert gpu_pack.missing(versions, there) == {"zarr": "3.1.6"}


def test_a_pack_that_is_too_large_is_refused(tmp_path, capsys):
    archive = tmp_path / "a.tar.xz"
    archive.write_bytes(bytes(2_500_000))
    assert gpu_pack.report(archive, 60) == 0
    assert "a.tar.xz: 2.5 MB, fits 60 MB" in capsys.readouterr().out
    assert gpu_pack.report(archive, 2) == 1
    assert "expected less than 2 MB: name what is there with --there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "member", "kept"),
    [
        ("imagecodecs", "imagecodecs/_imcd.abi3.so", True),
        ("imagecodecs", "imagecodecs/_jpegxl.abi3.so", False),
        ("imagecodecs", "imagecodecs-2026.dist-info/METADATA", True),
        ("opencv-python-headless", "cv2/cv2.abi3.so", True),
        ("opencv-python-headless", "opencv_python_headless.libs/libavcodec-c4204469.so.62.28.101", False),
        ("opencv-python-headless", "opencv_python_headless.libs/libavif-43e630fc.so.16.4.2", True),
        ("zarr", "zarr/core/array.py", True),
        ("zarr", "zarr/core/array.pyi", False),
    ],
)
def test_of_large_wheels_the_check_packs_what_it_opens(package, member, kept):
    assert gpu_trim.is_kept(package, member) is kept


@pytest.mark.skipif(shutil.which("gcc") is None or shutil.which("readelf") is None, reason="needs gcc and binutils")
def test_a_library_that_is_only_named_becomes_a_stand_in(tmp_path):
    (tmp_path / "cv2").mkdir()
    libraries = tmp_path / gpu_trim.OPENCV_LIBRARIES
    libraries.mkdir()
    codec = libraries / "libavcodec-1.so.62"
    gpu_trim.compile_library(codec, "LIBAVCODEC_62", ["avcodec_open"])
    source = tmp_path / "cv2.c"
    source.write_text(
        "extern void avcodec_open(void); void play(void) { avcodec_open(); } int seven(void) { return 7; }"
    )
    module = tmp_path / "cv2" / "cv2.abi3.so"
    path = f"-Wl,-rpath,$ORIGIN/../{libraries.name}"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", module, source, codec, path], check=True)
    codec.unlink()
    assert gpu_trim.stand_in_for_video(tmp_path) == [codec.name]
    assert sorted(libraries.iterdir()) == [codec]
    assert ctypes.CDLL(str(module), mode=os.RTLD_NOW).seven() == 7
