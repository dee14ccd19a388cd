"""Cost of a job beside its network: the whole `infer` step against the same forward passes on tensors in memory.

Networks as users run them (TimeSformer, the 3-D ResNet-152 with its 3-D decoder, ``ink_9um``, a U-Net with a ResNet-34;
on CUDA, and where named, the large TimeSformer, Hecate and ``ink-8um-v8in``) and, as the hard case, the shipped
demo bundle: it is so small that reading, tiling, blending and writing weigh most beside it. Each reads as many real
layers as it takes, from a local store.

The floor runs the same network in this process: as many passes as the job made, on batches of the same shape that lie
in memory already, as many side by side as there are threads, like the job. On a CPU the same passes one by one, each
cut among all threads, stand beside it. Job and floor run in turn.

At last, normalising a batch by each tile's own statistics (robust MAD, percentile range) stands beside one forward pass
of a small network over the same batch.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.common import (
    Report,
    Sample,
    best,
    in_turn,
    parser,
    real_layers,
    scratch,
    timed,
)
from benchmarks.network_jobs import Floor, job, prepared, rows_beside_passes, shapes_of_passes
from benchmarks.networks import NETWORKS, bundle_of
from inkbatch.models.bundle import Contract
from inkbatch.models.rules import BY_STATISTICS, Normaliser
from inkbatch.predict.device import autocast, choose_device, choose_precision, synchronize
from inkbatch.predict.normalise import normalise_tiles
from inkbatch.predict.passes import Passes, cpu_threads
from inkbatch.run.signals import StopFlag

NORMALISER_SHARE = 0.03  # of a forward pass, at most
SMALLEST = "ink-9um"  # of the networks whose tiles may be normalised one by one
REPLACED = ("clip", "divisor", "scaling", "mean", "std", "normaliser")  # by statistics of a tile
ONE_BY_ONE = 32  # passes; the time of all is reckoned from them


def measure(report: Report, name: str, found: Any, device: torch.device) -> dict[str, float]:
    """Measure one network; returns tiles/s of job and floor."""
    edge = 96 if found.quick else NETWORKS[name].edge_px[device.type]
    with scratch(found) as folder:
        config, bundle = prepared(folder, name, edge, found.layers, device, found.quick)
        shapes: list[tuple[int, ...]] = []
        reports: list[Any] = []
        with shapes_of_passes(shapes):
            job(config, reports)()
        floor = Floor.of(bundle, shapes, device)
        few = min(len(shapes), ONE_BY_ONE)
        actions = {
            "job": job(config, reports),
            "passes": lambda: timed(lambda: floor.side_by_side(len(shapes))),
        }
        if device.type == "cpu":
            actions["one by one"] = lambda: timed(lambda: floor.one_by_one(few))
        samples = in_turn(actions, found.rounds)
    report.keep({f"{name} {kind}": taken for kind, taken in samples.items()})
    tiles, seconds = int(reports[-1].facts["tiles"]), best(samples["passes"])
    report.facts[name] = {"edge_px": edge, "tiles": tiles, "passes": len(shapes), "batch": shapes[-1]}
    report.note(f"{name}: {tiles} tiles in {len(shapes)} passes of {shapes[-1]}; {torch.get_num_threads()} thread(s)")
    target = NETWORKS[name].target
    same = f"the same {len(shapes)} passes on tensors in memory"
    rows_beside_passes(report, f"{name}, job", samples["job"], samples["passes"], same, target)
    if device.type == "cpu":
        slow = best(samples["one by one"]) * len(shapes) / few
        report.row(f"{name}, job, best", best(samples["job"]), "s", slow, "the same passes one by one on all threads")
    return {"job_tiles_per_s": tiles / best(samples["job"]), "forward_tiles_per_s": tiles / seconds}


def measure_normalisers(report: Report, name: str, found: Any, device: torch.device) -> None:
    """Measure normalising a batch by each tile's own statistics beside one forward pass of the same batch.

    As `infer` does it: on the device, grey values as stored, on a CPU by the one thread that makes the pass.
    """
    with scratch(found) as folder:
        bundle = bundle_of(name, folder, quick=found.quick)
        model, dtype = bundle.build(device), choose_precision("auto", device)
    depth, edge = bundle.contract.layers.count, bundle.contract.tile_px
    count = Passes(model, bundle.contract, device, dtype, StopFlag()).batch_tiles
    stored = torch.from_numpy(real_layers(depth, (edge, edge * count), found.layers))
    tiles = torch.stack(torch.split(stored, edge, dim=-1))[:, None].to(device)
    plain = {key: value for key, value in bundle.contract.model_dump().items() if key not in REPLACED}
    fed = normalise_tiles(tiles, Contract(**plain, divisor=255))

    @torch.inference_mode()
    def forward() -> None:
        with autocast(device, dtype):
            model(fed)
        synchronize(device)

    def normalise(contract: Contract) -> Sample:
        def run() -> None:
            normalise_tiles(tiles, contract)
            synchronize(device)

        return timed(run)

    actions: dict[str, Callable[[], Sample]] = {"pass": lambda: timed(forward)}
    for kind in BY_STATISTICS:
        actions[kind] = functools.partial(normalise, Contract(**plain, normaliser=Normaliser(kind=kind)))
    with cpu_threads(1):
        in_turn(actions, 1)
        samples = in_turn(actions, found.rounds)
    shape = " x ".join(map(str, tiles.shape))
    for kind in BY_STATISTICS:
        floor = f"one forward pass of {shape}"
        report.row(
            f"{name}, {kind} per tile", best(samples[kind]), "s", best(samples["pass"]), floor, at_most=NORMALISER_SHARE
        )


def main(arguments: Sequence[str] | None = None) -> int:
    known = parser(__doc__)
    known.add_argument("--networks", nargs="*", metavar="NETWORK", help=f"some of {', '.join(NETWORKS)}, or none")
    known.add_argument(
        "--normalisers-of",
        choices=list(NETWORKS),
        default=SMALLEST,
        metavar="NETWORK",
        help="whose forward pass normalisers of tiles are measured beside",
    )
    known.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    found = known.parse_args(arguments)
    device = choose_device(found.device)
    if found.networks is None:
        found.networks = [name for name, one in NETWORKS.items() if device.type != "cpu" or not one.by_name]
    if unknown := set(found.networks) - set(NETWORKS):
        known.error(f"--networks: expected some of {', '.join(NETWORKS)}, or none; got {', '.join(sorted(unknown))}")
    found.rounds = found.rounds or (1 if found.quick else 3)
    report = Report("overhead", found, {"device": device.type})
    for name in ["demo"] if found.quick else found.networks:
        measure(report, name, found, device)
    measure_normalisers(report, found.normalisers_of, found, device)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
