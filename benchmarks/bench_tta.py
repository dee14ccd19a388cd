"""Cost of quarter turns: the whole `infer` step with four views of every tile against one forward pass per tile.

Four passes cannot cost less than four; turning tiles, turning maps back and everything that is no network must fit in
the tenth of a pass that is left. The floor makes one pass per tile, on batches of the job's shape that lie in memory
already. The same job without turns stands beside it. All run in turn.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.common import Report, best, in_turn, scratch, timed
from benchmarks.network_jobs import Floor, job, network_parser, prepared, rows_beside_passes, shapes_of_passes
from inkbatch.models.bundle import TTA_AXES
from inkbatch.predict.device import choose_device

EDGE_PX = {
    "unet-resnet34": {"cpu": 1800, "cuda": 6000},
    "demo": {"cpu": 3000, "cuda": 8000},
}
TARGET = 4.1  # forward passes per tile


def measure(report: Report, name: str, found: Any, device: torch.device) -> None:
    """Measure one network."""
    with scratch(found) as folder:
        edge = 96 if found.quick else EDGE_PX[name][device.type]
        plain, bundle = prepared(folder, name, edge, found.layers, device, found.quick)
        turned = plain.model_copy(update={"tta": ("turns",), "override": {"tta_axes": list(TTA_AXES)}})
        shapes: list[tuple[int, ...]] = []
        reports: list[Any] = []
        with shapes_of_passes(shapes):
            job(plain, reports)()
        floor = Floor.of(bundle, shapes, device)
        job(turned, reports)()
        facts = reports[-1].facts
        actions = {
            "turned": job(turned, reports),
            "passes": lambda: timed(lambda: floor.side_by_side(len(shapes))),
            "plain": job(plain, reports),
        }
        samples = in_turn(actions, found.rounds)
    tiles, passes = int(facts["tiles"]), int(facts["tile_passes"])
    report.keep({f"{name} {key}": taken for key, taken in samples.items()})
    report.facts[name] = {"edge_px": edge, "tiles": tiles, "tile_passes": passes, "batch": shapes[-1]}
    report.note(f"{name}: {tiles} tiles, {passes} forward passes of a tile, batches of {shapes[-1]}")
    one = "one forward pass per tile, in memory"
    target = None if name == "demo" else TARGET  # what is no network weighs more beside so small a one
    rows_beside_passes(report, f"{name}, job with four turns", samples["turned"], samples["passes"], one, target)
    without = best(samples["plain"])
    report.row(
        f"{name}, job with four turns, best", best(samples["turned"]), "s", without, "the job without", at_most=TARGET
    )


def main(arguments: Sequence[str] | None = None) -> int:
    found = network_parser(__doc__, EDGE_PX).parse_args(arguments)
    found.rounds = found.rounds or (1 if found.quick else 3)
    device = choose_device(found.device)
    report = Report("tta", found, {"device": device.type})
    for name in ["demo"] if found.quick else found.networks:
        measure(report, name, found, device)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
