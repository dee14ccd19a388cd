"""Proof of a sweep: segments of known truth through the whole job, and what was found beside what is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.depth_agreement import Doubles
from inkbatch.data.maps.discovery import Q_CALLED, p_values, q_values
from inkbatch.data.maps.sweep import BLOCK_PX, MAXIMUM, MEAN, StoredSweep
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.sweep import job as sweep
from inkbatch.steps.sweep.settings import SweepConfig
from inkbatch.testing.proof_segments import SPOILED, Kind, Papyrus, ProofSegment
from inkbatch.testing.segments import write_layers
from inkbatch.testing.thin_layer_net import VOXEL_UM

INKED_SHARE = 0.1  # of a window's pixels that hold ink
READ_PX = 12  # so far around a pixel a reader looks: a window with ink nearer than that is not bare
DEPTH_OFF = 1.0  # layers
SWEEP, DEFAULT_DEPTH, MEAN_MAP, MAXIMUM_MAP = "sweep", "default depth", "mean of depths", "maximum"
METHODS = (SWEEP, DEFAULT_DEPTH, MEAN_MAP, MAXIMUM_MAP)
INK_SEEDS, BLANK_SEEDS, SPOILED_SEEDS = 9, 30, 2
FIRST_SEED = 5000  # the score was chosen on seeds below 40 and mended on 3000 to 4029, which prove nothing


@dataclass(frozen=True)
class Found:
    """Windows of a segment that one method called.

    Attributes:
        inked: Of them, those that hold ink.
        bare: Those without any, nor near them.
        called: All; a window with a little ink, or beside some, is neither of the two.
    """

    inked: int
    bare: int
    called: int


@dataclass(frozen=True)
class Outcome:
    """Outcome of one segment.

    Attributes:
        name: Of the segment.
        kind: Its kind.
        papyrus: Its papyrus.
        amplitude: Of its ink.
        inked: Windows that hold ink.
        bare: Windows without any, in them or within `READ_PX`.
        found: By method; of segments that are not of kind ``ink``, whose nulls are not swept, by the sweep alone.
        depth_right: Inked windows that the sweep called and placed within `DEPTH_OFF` of the ink.
    """

    name: str
    kind: Kind
    papyrus: Papyrus
    amplitude: float
    inked: int
    bare: int
    found: Mapping[str, Found]
    depth_right: int

    def document(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @staticmethod
    def of(row: Mapping[str, Any]) -> Outcome:
        """Read what `document` wrote."""
        return Outcome(**{**row, "found": {name: Found(**found) for name, found in row["found"].items()}})


def cases() -> Iterator[tuple[Kind, Papyrus, int]]:
    """List all segments of the proof: kind, papyrus, seed; a part of it from the start holds some of every kind."""
    papyri: tuple[Papyrus, ...] = ("real", "made")
    kinds: list[tuple[Kind, int]] = [("ink", INK_SEEDS), ("blank", BLANK_SEEDS)]
    kinds += [(kind, SPOILED_SEEDS) for kind in SPOILED]
    for seed in range(max(count for _, count in kinds)):
        for kind, count in kinds:
            if seed < count:
                yield from ((kind, papyrus, FIRST_SEED + seed) for papyrus in papyri)


def outcome(segment: ProofSegment, root: Path, bundles: Sequence[Path]) -> Outcome:
    """Prepare and sweep a segment, compare, and remove both again."""
    source = write_layers(root / "layers" / segment.name, segment.stack)
    where = {"segment": segment.name, "root": str(root)}
    stated = {"source": str(source), "depth_order": "forward", "voxel_size_um": VOXEL_UM}
    prepare.run(PrepareConfig.checked({**where, **stated}, "proof"), RunContext())
    asked = {**where, "bundles": [str(place) for place in bundles], "device": "cpu", "control_windows": 0}
    if segment.kind != "ink":
        asked["nulls"] = []
    sweep.run(SweepConfig.checked({**asked, "window_mm": BLOCK_PX * VOXEL_UM / 1000}, "proof"), RunContext())
    found = compared(StoredSweep.open(str(root), segment.name, "sweep"), segment)
    for room in ("layers", "segments", "sweeps"):
        shutil.rmtree(root / room / segment.name)
    return found


def compared(stored: StoredSweep, segment: ProofSegment) -> Outcome:
    """Compare a finished sweep, whose windows are one block each, with the truth."""
    evidence = stored.document["evidence"]
    share = _windows(segment.truth.astype(np.float32))
    near = cv2.dilate(segment.truth.astype(np.uint8), np.ones((2 * READ_PX + 1, 2 * READ_PX + 1), np.uint8))
    inked, bare = share >= INKED_SHARE, _windows(near) == 0
    called = {SWEEP: np.array(evidence["q"]) <= Q_CALLED}
    if any(row["null"] for row in stored.document["series"]):
        called |= {name: _called(stored, scores) for name, scores in _simple(stored).items()}
    right = 0
    if segment.ink_layer is not None:
        start, stop = stored.document["bundles"][0]["layers"]
        depth = np.array([evidence["series"][way]["depth"][n] for n, way in enumerate(evidence["direction"])])
        off = np.abs((start + stop - 1) / 2 + depth - segment.ink_layer)
        right = int((called[SWEEP] & inked & (off <= DEPTH_OFF)).sum())
    found = {
        name: Found(int((calls & inked).sum()), int((calls & bare).sum()), int(calls.sum()))
        for name, calls in called.items()
    }
    return Outcome(
        segment.name,
        segment.kind,
        segment.papyrus,
        segment.amplitude,
        int(inked.sum()),
        int(bare.sum()),
        found,
        right,
    )


def _simple(stored: StoredSweep) -> dict[str, dict[str, Doubles]]:
    """Score windows by their brightness in plain maps, by method and series."""
    found: dict[str, dict[str, Doubles]] = {name: {} for name in METHODS[1:]}
    zero = stored.depths.index(0)
    for series in stored.series:
        one_depth = [stored.block_profiles(bundle, series)[0][zero] for bundle in stored.bundles]
        found[DEFAULT_DEPTH][series] = np.mean(one_depth, axis=0).ravel()
        for method, name in ((MEAN_MAP, MEAN), (MAXIMUM_MAP, MAXIMUM)):
            level = stored.map(series, name).levels[0]
            found[method][series] = _windows(level.read([slice(0, size) for size in level.layout.shape]))
    return found


def _called(stored: StoredSweep, scores: Mapping[str, Doubles]) -> NDArray[np.bool_]:
    """Hold the brightest direction of every window against that of every null."""
    rows = stored.document["series"]
    kinds: dict[str | None, list[Doubles]] = {}
    for row in rows:
        kinds.setdefault(row["null"], []).append(scores[row["name"]])
    brightest = {kind: np.max(found, axis=0) for kind, found in kinds.items()}
    null = np.concatenate([found for kind, found in brightest.items() if kind is not None])
    return q_values(p_values(brightest[None], null)) <= Q_CALLED


def _windows(values: NDArray[Any]) -> Doubles:
    """Average over windows of one block, row-major; the maps are whole blocks."""
    height, width = (side // BLOCK_PX for side in values.shape)
    blocks = values.astype(np.float64).reshape(height, BLOCK_PX, width, BLOCK_PX)
    found: Doubles = blocks.mean(axis=(1, 3)).ravel()
    return found


@dataclass(frozen=True)
class Tally:
    """Sums over segments.

    Attributes:
        segments: Their number.
        touched: Segments in which a window was called.
        inked: Windows that hold ink.
        found: Windows called, by method.
        depth_right: See `Outcome`.
    """

    segments: int
    touched: int
    inked: int
    found: Mapping[str, Found]
    depth_right: int


def tally(outcomes: Sequence[Outcome]) -> Tally:
    """Add up outcomes."""
    by_method = {method: [one.found[method] for one in outcomes if method in one.found] for method in METHODS}
    found = {
        method: Found(sum(one.inked for one in some), sum(one.bare for one in some), sum(one.called for one in some))
        for method, some in by_method.items()
    }
    return Tally(
        len(outcomes),
        sum(one.found[SWEEP].called > 0 for one in outcomes),
        sum(one.inked for one in outcomes),
        found,
        sum(one.depth_right for one in outcomes),
    )


def broken_promises(outcomes: Sequence[Outcome]) -> list[str]:
    """List what does not hold: false windows among those called, blank segments, depth."""
    inked = tally([one for one in outcomes if one.kind == "ink"])
    blank = tally([one for one in outcomes if one.kind == "blank"])
    found, broken = inked.found[SWEEP], []
    if not found.inked:
        broken.append("no window with ink was found")
    if found.bare > Q_CALLED * found.called:
        broken.append(f"{found.bare} of {found.called} windows called are false, expected at most {Q_CALLED:.0%}")
    if blank.touched > Q_CALLED * blank.segments:
        broken.append(f"{blank.touched} of {blank.segments} blank segments have a window called")
    if inked.depth_right < 0.95 * found.inked:
        broken.append(f"{inked.depth_right} of {found.inked} windows found lie within {DEPTH_OFF:g} layer of the ink")
    return broken
