"""Steps of the GPU check that run jobs: doctor, the demo, whole jobs beside their passes, training, depth windows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.common import REPOSITORY, best, in_turn, real_layers, timed, write_stack
from benchmarks.gpu_runner import Given, Row
from benchmarks.network_jobs import Floor, batches_in_memory, job, prepared, shapes_of_passes
from benchmarks.networks import NETWORKS, VOXEL_SIZE_UM
from inkbatch.geometry import Box
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.predict.device import choose_device, choose_precision
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.segments import network_bundle
from inkbatch.testing.training import tiny_dataset, tiny_run

EDGE_PX = {"timesformer": 3000, "ink-9um": 4096, "unet-resnet34": 6000, "resnet3d-152-3d-decoder": 2048}
"""Edges of segments that keep a fast GPU busy for seconds."""

QUICK_PX = 96
LIKE_CPU = {"fp32": 0.01, "auto": 0.15}  # largest difference of one probability of the demo's map
JOB_OF_PASSES = 0.95  # of the rate of the same passes, at least
READ_ONCE = 1.2  # bytes read for many windows, over those for one, at most


class CommandFailed(Exception):  # noqa: N818  # what happened, not what it is
    """A command of inkbatch failed."""


def inkbatch(*words: object) -> str:
    """Run the command line in a process of its own; returns what it printed.

    Raises:
        CommandFailed: Its exit code is not 0.
    """
    line = [sys.executable, "-m", "inkbatch", *map(str, words)]
    done = subprocess.run(line, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailed(f"{' '.join(line[2:])} ended with {done.returncode}: {done.stderr[-1500:]}")
    return done.stdout


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}


def doctor(given: Given) -> Iterator[Row]:
    """Ask inkbatch doctor whether the device computes, and computes right."""
    said = json.loads(inkbatch("doctor", "--device", given.device, "--root", given.folder, "--log", "json"))
    yield {"report": said}


def demo(given: Given) -> Iterator[Row]:
    """Make the demo's map through the command line, on the device and on the CPU, and compare them."""
    root = given.folder / "root"
    inkbatch("prepare", "demo", "--root", root)
    runs = {"cpu": ("cpu", "fp32"), "fp32": (given.device, "fp32"), "auto": (given.device, "auto")}
    if given.quick:
        del runs["auto"]
    maps = {}
    for name, (device, precision) in runs.items():
        began = time.perf_counter()
        words = ("--bundle", "demo", "--root", root, "--device", device, "--precision", precision, "--name", name)
        inkbatch("infer", "demo", *words)
        maps[name] = _map(root, name)
        if name == "cpu":
            continue
        apart = np.abs(maps[name] - maps["cpu"])
        yield {
            **{"precision": name, "largest_difference": float(apart.max()), "mean_difference": float(apart.mean())},
            **{"seconds": round(time.perf_counter() - began, 1), "allowed": LIKE_CPU[name]},
            "ok": bool(apart.max() <= LIKE_CPU[name]),
        }


def _map(root: Path, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    prediction = Prediction.open(Location.parse(root) / "predictions" / "demo" / name)
    return np.asarray(prediction.read(Box(0, 0, *prediction.shape_yx)), np.float32)


def whole_timesformer(given: Given) -> Iterator[Row]:
    """Run a whole job with TimeSformer."""
    yield from whole_job(given, "timesformer")


def whole_ink_9um(given: Given) -> Iterator[Row]:
    """Run a whole job with ``ink_9um``."""
    yield from whole_job(given, "ink-9um")


def whole_unet_resnet34(given: Given) -> Iterator[Row]:
    """Run a whole job with a U-Net with a ResNet-34."""
    yield from whole_job(given, "unet-resnet34")


def whole_resnet3d_152(given: Given) -> Iterator[Row]:
    """Run a whole job with the 3-D ResNet-152 with its 3-D decoder."""
    yield from whole_job(given, "resnet3d-152-3d-decoder")


def whole_job(given: Given, name: str) -> Iterator[Row]:
    """Run a job from a local store beside the same passes on tensors on the device, in turn."""
    device = choose_device(given.device)  # type: ignore[arg-type]
    edge = QUICK_PX if given.quick else EDGE_PX[name]
    config, bundle = prepared(given.folder, name, edge, None, device, given.quick)
    shapes: list[tuple[int, ...]] = []
    reports: list[Any] = []
    run_job = job(config, reports)
    with shapes_of_passes(shapes):
        run_job()
    dtype = choose_precision("auto", device)
    floor = Floor(bundle.build(device), batches_in_memory(shapes[-1], min(len(shapes), 4), device), dtype)
    floor.one_by_one(2)
    rounds = 1 if given.quick else 2
    passes = len(shapes)
    taken = in_turn({"job": run_job, "passes": lambda: timed(lambda: floor.side_by_side(passes))}, rounds)
    facts = json.loads(((reports[-1].location) / "run.json").read_bytes())
    share, tiles = best(taken["passes"]) / best(taken["job"]), int(reports[-1].facts["tiles"])
    yield {
        **{"network": name if not given.quick else "tiny", "tiles": tiles, "passes": passes, "batch": shapes[-1]},
        "job_tiles_per_s": tiles / best(taken["job"]),
        "loop_tiles_per_s": tiles / max(facts["loop_s"], 1e-9),
        "forward_tiles_per_s": tiles / best(taken["passes"]),
        **{"share_of_passes": share, "target": JOB_OF_PASSES, "met": None if given.quick else share >= JOB_OF_PASSES},
        "share_of_passes_in_loop": best(taken["passes"]) / max(facts["loop_s"], 1e-9),
        "device_waited_share": facts["waited_share"],
        "device_peak_memory_bytes": facts.get("device_peak_memory_bytes"),
        "peak_memory_bytes": facts["peak_memory_bytes"],
        "bytes_read": facts["bytes_read"],
    }


def training(given: Given) -> Iterator[Row]:
    """Train 200 steps, killed on the way and started again."""
    epochs, steps, saved = (2, 4, 2) if given.quick else (4, 50, 20)
    root, batch = given.folder / "root", 4 if given.quick else 32
    changes: dict[str, Any] = {}
    if not given.quick:
        changes = {
            "model": {"architecture": "smp", "config": {"family": "Unet", "encoder": "resnet34"}},
            **{"tile_px": 128, "optimiser": {"rate": 1e-3}},
        }
    tiny_dataset(root, **({} if given.quick else {"layers": 16, "size_px": 768, "sample_px": 192}))
    sampler = {"samples_per_epoch": steps * batch}
    asked = {"epochs": epochs, "batch": batch, "sampler": sampler, "save_every_steps": saved, "device": given.device}
    config = given.folder / "train.yaml"
    config.write_text(yaml.safe_dump(tiny_run(root, **asked, **changes)), encoding="utf-8")
    killed_at = _killed_after(config, root / "runs" / "first", epochs * steps // 2)
    began = time.perf_counter()
    inkbatch("train", "--config", config)
    folder = root / "runs" / "first"
    losses = (folder / "losses.csv").read_text(encoding="utf-8").splitlines()[1:]
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    scores = json.loads((folder / "complete.json").read_text(encoding="utf-8"))["scores"]
    yield {
        **{"steps": len(losses), "killed_after_step": killed_at, "seconds_after": time.perf_counter() - began},
        **{"first_loss": losses[0], "last_loss": losses[-1], "scores": scores, "device": facts["device"]},
        "device_waited_share": facts["waited_share"],
        "steps_per_s": (epochs * steps - killed_at) / max(facts["loop_s"], 1e-9),
        "device_peak_memory_bytes": facts.get("device_peak_memory_bytes"),
        "ok": len(losses) == epochs * steps and 0 < killed_at < epochs * steps,
    }


def _killed_after(config: Path, run: Path, step: int) -> int:
    """Start a training and kill it once a checkpoint of `step` or later is stored; returns that step.

    Raises:
        CommandFailed: It ended before.
    """
    line = [sys.executable, "-m", "inkbatch", "train", "--config", str(config)]
    pointer = run / "checkpoints" / "pointer.json"
    with (run.parent.parent / "killed.log").open("w+") as log:
        process = subprocess.Popen(line, cwd=REPOSITORY, env=environment(), stdout=log, stderr=log)
        while process.poll() is None:
            stored = json.loads(pointer.read_text(encoding="utf-8"))["last"][0]["step"] if pointer.exists() else 0
            if stored >= step:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return int(stored)
            time.sleep(0.05)
        log.seek(0)
        raise CommandFailed(f"train ended with {process.returncode} before it was killed: {log.read()[-1500:]}")


def windows(given: Given) -> Iterator[Row]:
    """Infer many windows of depth in one run, and compare what was read with a run of one window."""
    edge, layers = (96, 9) if given.quick else (2048, 13)
    write_stack(given.folder / "layers", real_layers(layers, (edge, edge)))
    bundle = network_bundle(given.folder / "bundle", 5, voxel_size_um=VOXEL_SIZE_UM)
    place = {"segment": "real", "root": str(given.folder / "root")}
    stated = {"depth_order": "forward", "voxel_size_um": VOXEL_SIZE_UM, "source": str(given.folder / "layers")}
    prepare.run(PrepareConfig(**place, **stated), RunContext())
    asked = {**place, "bundle": str(bundle.location), "device": given.device}
    asked["batch_tiles"] = 0 if given.device == "cpu" else NETWORKS["demo"].batch_tiles
    starts = (0, layers - 4, 2)
    read, seconds = {}, {}
    for name, chosen in (("one", {}), ("many", {"layer_starts": starts})):
        report = infer.run(infer.InferConfig.checked({**asked, **chosen, "name": name}, "windows"), RunContext())
        facts = json.loads((report.location / "run.json").read_bytes())
        read[name], seconds[name] = facts["bytes_read"], facts["loop_s"]
    ratio = read["many"] / max(read["one"], 1)
    yield {
        **{"windows": len(range(*starts)), "bytes_read": read, "loop_s": seconds, "ratio": ratio},
        **{"allowed": READ_ONCE, "ok": ratio <= READ_ONCE, "cuda": torch.cuda.is_available()},
    }
