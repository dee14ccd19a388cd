"""Cost of refinement: prompts per second of `refine` beside the same network calls on tensors in memory.

The floor encodes as many tiles and answers as many batches of prompts as the job does, on tensors that lie on the
device already. Above it: cutting and resizing tiles, enlarging masks to pixels, and the choice of one per proposal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Report, best, cpu, in_turn, median, parser, timed
from inkbatch.data.instances.ascent import Evidence
from inkbatch.data.instances.proposals import first_pass_of, limits_of, proposed
from inkbatch.data.instances.selection import Choice, FirstPassTile
from inkbatch.data.instances.settings import ProposalRules, RefinementRules, SelectionRules
from inkbatch.data.labels.objects import boundary_classes
from inkbatch.data.synthetic.grains import GrainConfig, make_section
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.models.prompting import (
    Features,
    Kind,
    PromptableBundle,
    PromptableDocument,
    TransformersSegmenter,
    build_promptable,
)
from inkbatch.predict.device import choose_device
from inkbatch.predict.refining import cells_of, refine

TARGET = 1.1
DISC_SHARE = 1 / 64  # radius of a made mask, as a share of the tile
SHAPES: dict[str, Kind] = {"sam2.1-hiera-tiny": "sam2", "sam-vit-base": "sam"}  # the smallest ones that were published


def published(name: str) -> PromptableDocument:
    """Describe a published shape, which is transformers' default; its speed does not depend on its weights."""
    return PromptableDocument(name=name, kind=SHAPES[name], config={}, image_px=1024, licence="Apache-2.0")


class Fresh(TransformersSegmenter):
    """A network of fresh weights, whose masks are noise: discs around the points take their place.

    Masks that fill the tile would make all that follows slower than a trained network does.
    """

    @torch.inference_mode()
    def answer(self, features: Features, points: Tensor, corners: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `TransformersSegmenter.answer`."""
        logits, predicted = super().answer(features, points, corners)
        rows, columns = logits.shape[2:]
        at = points[0, :, 0] * (columns / self.document.image_px)
        x = torch.arange(columns, device=self.device) - at[:, :1]
        y = torch.arange(rows, device=self.device) - at[:, 1:]
        away = torch.hypot(y[:, :, None], x[:, None, :])[:, None]
        return DISC_SHARE * rows - away.expand_as(logits), predicted


def main(arguments: Sequence[str] | None = None) -> int:
    known = parser(__doc__)
    known.add_argument("--promptable", help="bundle; its weights and shape in place of --shape")
    known.add_argument("--shape", choices=sorted(SHAPES), default="sam2.1-hiera-tiny", help="with fresh weights")
    known.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    known.add_argument("--edge", type=int, default=1024, help="of the made section, in pixels")
    found = known.parse_args(arguments)
    found.rounds = found.rounds or (1 if found.quick else 3)
    device = choose_device(found.device)
    report = Report("prompts", found, {"device": device.type})
    if found.quick:
        from inkbatch.testing.prompting import tiny_sam2

        document, edge = tiny_sam2(), 160
    else:
        document, edge = published(found.shape), found.edge
    if found.promptable:
        segmenter = PromptableBundle.open(Location.parse(found.promptable)).build(device)
        document = segmenter.document
    else:
        net = build_promptable(document.kind, document.config).eval().to(device)
        segmenter = Fresh(net, document)
    section = make_section(GrainConfig(shape_yx=(edge, edge), radius_px=(10, 20)), 0)
    classes = boundary_classes(section.instances, 1, "made section")
    values = np.stack([classes == number for number in range(3)]).astype(np.float32)
    limits = limits_of(ProposalRules(), None)
    joined, regions = first_pass_of(values, limits)
    asked, choice = proposed(joined, limits), Choice.of(SelectionRules(), limits.min_px, None)
    rules = RefinementRules(cell_px=document.image_px // 2, halo_px=document.image_px // 4)
    per_cell = [len(members) for members in cells_of(asked, rules.cell_px).values()]
    batches = sum(-(-count // segmenter.at_once) for count in per_cell)
    whole = FirstPassTile(Box(0, 0, edge, edge), (edge, edge), Evidence.of(values), regions)
    tile = torch.zeros((1, 3, document.image_px, document.image_px), device=device)
    points = torch.full((1, segmenter.at_once, 1, 2), document.image_px / 2, device=device)
    corners = torch.full((1, segmenter.at_once, 4), document.image_px / 2, device=device)

    def floor() -> None:
        features = [segmenter.encode(tile, (1, 1)) for _ in per_cell]
        for _ in range(batches):
            segmenter.answer(features[0], points, corners)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def job() -> None:
        refine(segmenter, section.picture, whole, asked, choice, rules)

    job()
    floor()
    samples = in_turn({"job": lambda: timed(job), "floor": lambda: timed(floor)}, found.rounds)
    report.keep(samples)
    report.facts["network"] = document.name
    report.facts["section"] = {"edge_px": edge, "prompts": len(asked), "tiles": len(per_cell), "batches": batches}
    report.note(f"{len(asked)} prompts in {len(per_cell)} tiles, {batches} batches of {segmenter.at_once}")
    words = "the same network calls, in memory"
    target, on_cpu = None if found.quick else TARGET, device.type == "cpu"
    by_cpu, by_clock = (target, None) if on_cpu else (None, target)  # the clock of a CPU also counts other programs
    report.row("refinement, CPU seconds", cpu(samples["job"]), "s", cpu(samples["floor"]), words, at_most=by_cpu)
    report.row("refinement, best", best(samples["job"]), "s", best(samples["floor"]), words, at_most=by_clock)
    report.row("refinement, median", median(samples["job"]), "s", median(samples["floor"]), words)
    rates = [len(asked) / best(samples[name]) for name in ("job", "floor")]
    report.row("prompts per second", rates[0], "1/s", rates[1], words)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
