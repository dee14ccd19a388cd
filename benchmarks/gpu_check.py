"""Everything that only a GPU can tell, in eight minutes: one step after the other, in order of value.

    python -m benchmarks.gpu_check --out gpu.jsonl
    python -m benchmarks.gpu_check --device cpu --quick

Each step runs in a process of its own under its own limit. What it finds is printed, and written to --out, as a line of
JSON as soon as it is known; a last line says how the step ended. A step that fails, hangs or crashes says so, and the
next one is run. The exit code is 1 where one did not end well. A missed target fails nothing: it is ``"met": false``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import machine
from benchmarks.gpu_runner import CPU_PATIENCE, Row, Step, run_steps
from inkbatch.cli.outcome import run_script
from inkbatch.run.run_file import software

MINUTES = 8.0
PRELOADED = ["benchmarks.gpu_networks", "benchmarks.gpu_jobs"]  # imported once for all steps, without touching a GPU

STEPS = (
    Step("doctor", 40, "benchmarks.gpu_jobs:doctor"),
    Step("golden", 75, "benchmarks.gpu_networks:golden"),
    Step("demo", 60, "benchmarks.gpu_jobs:demo"),
    Step("whole-timesformer", 60, "benchmarks.gpu_jobs:whole_timesformer"),
    Step("whole-ink-9um", 60, "benchmarks.gpu_jobs:whole_ink_9um"),
    Step("whole-unet-resnet34", 45, "benchmarks.gpu_jobs:whole_unet_resnet34"),
    Step("whole-resnet3d-152", 75, "benchmarks.gpu_jobs:whole_resnet3d_152"),
    Step("forward", 60, "benchmarks.gpu_networks:forward"),
    Step("batch", 40, "benchmarks.gpu_networks:batch"),
    Step("training", 90, "benchmarks.gpu_jobs:training"),
    Step("windows", 30, "benchmarks.gpu_jobs:windows"),
    Step("compiled", 120, "benchmarks.gpu_networks:golden_compiled"),
)
"""In order of value. Limits are for steps that go wrong; whatever happens, `MINUTES` end the whole."""


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    known = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    known.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    known.add_argument("--out", type=Path, metavar="FILE", help="append the lines to FILE, too")
    known.add_argument("--minutes", type=float, help="time for all steps: 8, on a CPU 48")
    names = [step.name for step in STEPS]
    known.add_argument("--only", nargs="+", choices=names, metavar="STEP", default=names, help=", ".join(names))
    found = known.parse_args(arguments)
    if found.minutes is None:
        found.minutes = MINUTES * (CPU_PATIENCE if found.device == "cpu" else 1)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    found = parsed(arguments)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # who forks after cuInit has no GPU in its children
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    if found.out is not None:
        found.out.parent.mkdir(parents=True, exist_ok=True)

    def tell(row: Row) -> None:
        line = json.dumps(row, default=str)
        print(line, flush=True)
        if found.out is not None:
            with found.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    began = time.monotonic()
    packages = software()["packages"]
    tell({"step": "begin", "device": found.device, "quick": found.quick, **machine(), "packages": packages})
    steps = [step for step in STEPS if step.name in found.only]
    failed = run_steps(steps, {"device": found.device, "quick": found.quick}, found.minutes, tell)
    tell({"step": "end", "seconds": round(time.monotonic() - began, 1), "failed": failed})
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(run_script(main, "python -m benchmarks.gpu_check"))
