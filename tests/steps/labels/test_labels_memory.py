"""labels on a mask of 30,000 × 11,000 pixels: exact counts, in a memory that does not follow its size."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from inkbatch.geometry import Box, cut
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.record import RunFolder, RunManifest

SHAPE = (30_000, 11_000)
PITCH, LARGE, SMALL, HOLE = 1_024, 60, 20, 25
MEMORY_BYTES = 400 << 20  # one byte per pixel alone would be 330 MB, its labels 1,320 MB

RUN = """
import json, sys
from inkbatch.run.job import RunContext
from inkbatch.steps.labels.job import LabelsConfig, run
config = LabelsConfig(segment="wide", root=sys.argv[1], prediction="net", clean={"max_hole_px": None})
report = run(config, RunContext())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024  # getrusage would count the parent's memory at the fork, too
print(json.dumps({"complete": report.complete, "peak": peak}))
"""


def centres(shape):
    """Letters on every corner of four units and between, a speck beside each."""
    return [(y, x) for y in range(PITCH, shape[0], PITCH) for x in range(PITCH, shape[1], PITCH)]


def paint(box: Box) -> np.ndarray:
    """Rings of area ~9,300 px, specks of ~1,250 px, and one line along the whole surface."""
    block = np.zeros(box.shape, np.float32)
    for y, x in centres(SHAPE):
        for dx, radius, hole in ((0, LARGE, HOLE), (300, SMALL, 0)):
            area = box.intersect(Box(max(0, y - radius), x + dx - radius, y + radius + 1, x + dx + radius + 1))
            if area.area:
                yy, xx = np.ogrid[area.y0 : area.y1, area.x0 : area.x1]
                square = (yy - y) ** 2 + (xx - x - dx) ** 2
                ring = (square <= radius**2) & (square >= hole**2)
                block[area.within(box)][ring] = 0.9
    line = box.intersect(Box(0, 500, SHAPE[0], 503))
    if line.area:
        block[line.within(box)] = 0.9
    return block


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_large_mask_is_cleaned_in_bounded_memory_and_counted_exactly(tmp_path):
    segment = Location.parse(tmp_path) / "segments/wide"
    common = {"shard_px": 2048, "voxel_size_um": 8.0, "dtype": "uint8"}
    provenance = {
        "segment": "wide",
        "source": "none",
        "source_dtype": "uint8",
        "source_layers": [0, 1],
        "depth_order": "forward",
        "intensity": "keep",
        "voxel_size_um": 8.0,
        "mask": "derived",
    }
    Multiscale.create(segment / "surface.zarr", (1, *SHAPE), chunk=(1, 256, 256), provenance=provenance, **common)
    Multiscale.create(segment / "mask.zarr", SHAPE, chunk=(256, 256), provenance=provenance, **common)
    folder = Location.parse(tmp_path) / "predictions/wide/net"
    for record in (
        RunFolder(segment / "prepare", RunManifest("prepare", {"segment": "wide"}, {}, 1)),
        RunFolder(folder, RunManifest("infer", {"segment": "wide"}, {}, 1)),
    ):
        record.begin()
        record.complete()
    prediction = Prediction.create(folder, SHAPE, 2048, 8.0, {})
    for box in cut(SHAPE, 2048, 2048):
        prediction.write(box, paint(box))
    done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["complete"]
    assert answer["peak"] < MEMORY_BYTES
    found = json.loads((segment / "labels/components.json").read_bytes())
    letters = len(centres(SHAPE))
    assert found["components"] == letters + 1
    assert found["removed_components"] == letters
    assert found["largest"][0] == {
        "area": 90_000,
        "box": [0, 500, 30_000, 503],
        "seed": [0, 500],
        "touches_border": True,
    }
    yy, xx = np.ogrid[-LARGE : LARGE + 1, -LARGE : LARGE + 1]
    disc = np.count_nonzero(yy**2 + xx**2 <= LARGE**2)
    assert found["ink_px"] == letters * disc + 90_000
