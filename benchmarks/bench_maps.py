"""Finished maps: how fast `ensemble`, `clean` and `evaluate` stream, beside merely reading the same predictions.

Three predictions made of blurred layers of real papyrus, float16, zstd, on the local disk. Stated twice: streaming, the
pixels of a job's members over the seconds of its units, from the first read to the last marker, with the target; and
the whole job, from opening the predictions to ``complete.json``, with previews and page, which cost the same for any
size.
The floor of an ensemble is what it physically does: reading and decoding the same predictions and writing as many maps
with their pyramids, without combining anything. Evaluate and clean have reading and decoding alone as their floor,
unit by unit, one unit ahead; it counts neither what clean writes nor the labels and the mask that `evaluate` reads
beside its map; the last row has a floor that reads these, too. Labels are specks over half of the map, the dearest to
decode, and once strokes as wide as letters' over a sixth.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import Report, Sample, best, cpu, in_turn, median, parser, real_layers, scratch, timed
from inkbatch.data.maps.stored import open_map
from inkbatch.geometry import Box, Unit, cut
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.job import JobReport, RunContext
from inkbatch.steps.ensemble import job as ensemble
from inkbatch.steps.evaluate import job as evaluate
from inkbatch.steps.labels import clean
from inkbatch.testing.maps import store_map, store_picture

MEMBERS = ("a", "b", "c")
UNIT_PX = 2048
METHODS = ("mean", "weighted-mean", "median", "maximum", "odds", "ranks", "zscore")
WEIGHTS = (3.0, 2.0, 1.0)


def make_maps(root: Path, edge: int, layers: Path | None) -> None:
    """Make three maps that agree in part, a mask and labels of specks; one map again with labels of strokes."""
    stack = real_layers(len(MEMBERS), (edge, edge), layers)
    unit_px = min(UNIT_PX, 1 << (edge - 1).bit_length())
    for name, layer in zip(MEMBERS, stack, strict=True):
        blurred = cv2.GaussianBlur(layer.astype(np.float32), (0, 0), 4)
        values = 1 / (1 + np.exp(-(blurred - blurred.mean()) / blurred.std() * 2))
        store_map(root, "s", name, values.astype(np.float32), unit_px=unit_px)
        if name == "a":
            store_map(root, "strokes", name, values.astype(np.float32), unit_px=unit_px)
    specks = (stack[0] > np.median(stack[0])).astype(np.uint8) * 255
    for segment, labels in (("s", cv2.medianBlur(specks, 5)), ("strokes", _strokes(stack[0]))):
        store_picture(root, segment, "mask", np.full((edge, edge), 255, np.uint8), shard_px=unit_px, pooling="max")
        store_picture(root, segment, "ink_labels", labels, shard_px=unit_px)


def _strokes(layer: np.ndarray) -> np.ndarray:
    """Make labels with about as much ink in as wide areas as letters have: a sixth of all, where layers are bright."""
    height, width = layer.shape
    small = cv2.resize(layer, (max(1, width // 8), max(1, height // 8)), interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(cv2.GaussianBlur(small.astype(np.float32), (0, 0), 4), (width, height))
    return (smooth > np.quantile(smooth, 5 / 6)).astype(np.uint8) * 255


def reading(root: Path, names: Sequence[str]) -> Callable[[], Sample]:
    """Read predictions unit by unit, one ahead; nothing is done with them."""

    def run() -> None:
        maps = [open_map(str(root), "s", name) for name in names]
        boxes = list(cut(maps[0].shape_yx, UNIT_PX, UNIT_PX))
        with ThreadPoolExecutor(1) as reader:
            ahead = None
            for box in boxes:
                following = reader.submit(lambda box=box: [found.prediction.read(box) for found in maps])
                if ahead is not None:
                    ahead.result()
                ahead = following
            if ahead is not None:
                ahead.result()

    return lambda: timed(run)


def moving(root: Path, outputs: int) -> Callable[[], Sample]:
    """Read the members and write `outputs` maps as an ensemble does, chunk by chunk; the first member is written."""

    def run() -> None:
        maps = [open_map(str(root), "s", name) for name in MEMBERS]
        shape, um = maps[0].shape_yx, maps[0].pixel_um
        folder = Location.parse(str(root / f"moved-{time.monotonic_ns()}"))
        stored = [
            Prediction.create(folder, shape, UNIT_PX, um, {"kind": "floor"}, f"{number}.zarr", ensemble.CODEC)
            for number in range(outputs)
        ]

        def move(box: Box) -> None:
            opened = [found.opened(box) for found in maps]
            second = np.empty(box.shape, np.float16)

            def make(part: Box, out: np.ndarray) -> None:
                codes = [found.codes_of(region, part) for found, region in zip(maps, opened, strict=True)]
                out[...] = codes[0].view(np.float16)
                if outputs > 1:
                    second[part.within(box)] = codes[1].view(np.float16)

            stored[0].pyramid.write_made(box, make)
            for region in opened:
                region.close()
            if outputs > 1:
                stored[1].write(box, second)

        with opencv_threads(1), ThreadPoolExecutor(ensemble.UNITS_STORED) as writers:
            list(writers.map(move, cut(shape, UNIT_PX, UNIT_PX)))

    return lambda: timed(run)


def reading_judged(config: evaluate.EvaluateConfig) -> Callable[[], Sample]:
    """Read what `evaluate` reads: the map, the labels and the mask, one unit ahead; nothing is done with them."""

    def run() -> None:
        with evaluate.make_plan(config).comparison as compared, ThreadPoolExecutor(1) as reader:

            def load(unit: Unit) -> object:
                return compared.maps[0].prediction.read(unit.write_box), compared.truth.read(unit.write_box)

            ahead: deque[Future[object]] = deque()
            for unit in compared.units:
                ahead.append(reader.submit(load, unit))
                if len(ahead) > 1:
                    ahead.popleft().result()
            ahead.pop().result()

    return lambda: timed(run)


def job(folder: Path, run: Callable[[], JobReport], loops: list[float]) -> Callable[[], Sample]:
    """Run a whole job, its former result moved aside; the seconds of its units alone go to `loops`.

    Files are emptied, not removed: for minutes after a removal ext4 looks for an inode that was not freed lately, which
    made each new file cost 0.6 ms.
    """

    def once() -> Sample:
        if folder.exists():
            for path in folder.rglob("*"):
                if path.is_file():
                    os.truncate(path, 0)
            folder.rename(folder.with_name(f"{folder.name}-{time.monotonic_ns()}"))
        return timed(lambda: loops.append(run().facts["loop_s"]))

    return once


def main(arguments: Sequence[str] | None = None) -> int:
    known = parser(__doc__)
    known.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="methods of the ensembles")
    found = known.parse_args(arguments)
    found.rounds = found.rounds or (1 if found.quick else 5)
    edge = 600 if found.quick else 16384
    report = Report("maps", found, {"edge_px": edge, "members": len(MEMBERS), "unit_px": UNIT_PX})
    with scratch(found) as folder:
        root = folder / "root"
        make_maps(root, edge, found.layers)
        where = {"segment": "s", "root": str(root)}
        place = root / "predictions" / "s"
        loops: dict[str, list[float]] = defaultdict(list)
        actions: dict[str, Callable[[], Sample]] = {
            "read three": reading(root, MEMBERS),
            "read one": reading(root, "a"),
            "move, one map": moving(root, 1),
            "move, two maps": moving(root, 2),
        }
        for method in found.methods:
            for spread in (False, True):
                config = ensemble.EnsembleConfig(
                    predictions=MEMBERS,
                    method=method,
                    weights=WEIGHTS if method == "weighted-mean" else None,
                    disagreement=spread,
                    name="result",
                    **where,
                )
                label = f"ensemble, {method}{', with disagreement' if spread else ''}"
                run = partial(ensemble.run, config, RunContext())
                actions[label] = job(place / "result", run, loops[label])
        judged = evaluate.EvaluateConfig(name="a", to=str(folder / "evaluation"), **where)
        actions["read judged"] = reading_judged(judged)
        actions["evaluate"] = job(folder / "evaluation", partial(evaluate.run, judged, RunContext()), loops["evaluate"])
        name = "evaluate, labels of strokes"
        lettered = evaluate.EvaluateConfig(segment="strokes", name="a", root=str(root), to=str(folder / "strokes"))
        actions[name] = job(folder / "strokes", partial(evaluate.run, lettered, RunContext()), loops[name])
        cleaned = clean.CleanConfig(name="a", result="cleaned", **where)
        actions["clean"] = job(place / "cleaned", partial(clean.run, cleaned, RunContext()), loops["clean"])
        samples = in_turn(actions, found.rounds)
    report.keep(samples)
    megapixels = edge * edge / 1e6
    for name, runs in samples.items():
        if name.startswith(("read", "move")):
            continue
        count, floor, floor_is = 1, "read one", "reading the same prediction"
        target: float | None = None if name == "clean" else 0.5
        if name.startswith("ensemble"):
            written = "two maps" if name.endswith("disagreement") else "one map"
            count, floor, floor_is = 3, f"move, {written}", f"reading the same 3 predictions and writing {written}"
            target = 0.6
        read = count * megapixels / best(samples[floor])
        streamed, whole = (count * megapixels / seconds for seconds in (min(loops[name]), best(runs)))
        report.row(f"{name}, streaming", streamed, "Mpx/s", read, floor_is, at_least=target)
        report.row(f"{name}, whole job", whole, "Mpx/s", read, floor_is)
        medians = [count * megapixels / seconds for seconds in (statistics.median(loops[name]), median(runs))]
        report.note(
            f"{name}: medians {medians[0]:,.0f} and {medians[1]:,.0f} Mpx/s; CPU {cpu(runs):.2f} s, the floor "
            f"{cpu(samples[floor]):.2f} s"
        )
    rate, read = megapixels / best(samples["evaluate"]), megapixels / best(samples["read judged"])
    report.row("evaluate, whole job", rate, "Mpx/s", read, "reading the map, the labels and the mask")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
