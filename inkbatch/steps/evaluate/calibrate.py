"""`inkbatch evaluate --calibrate`: the threshold of a bundle, from finished evaluations of several scrolls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.datasets.trained_pixels import trained_scrolls
from inkbatch.data.maps.calibration import NAME, Calibration, calibrated, read_calibration
from inkbatch.data.maps.comparison import decode_counts
from inkbatch.data.maps.scoring import BINS, ScoreHistogram
from inkbatch.data.maps.stored import StoredMap, open_map
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.run.record import require_complete

SHIPPED = "demo"


class CalibrateConfig(JobConfig):
    """Settings of `inkbatch evaluate --calibrate`.

    Attributes:
        calibrate: Evaluated segments, by scroll.
        name: Name of their predictions, the same on every segment; None takes the only one of each.
        beta: Of F-beta.
        to: The bundle's folder; None is the one that made the predictions.
        root: ROOT: a folder or ``s3://bucket/prefix``.
    """

    calibrate: dict[str, tuple[str, ...]]
    name: str | None = None
    beta: float = Field(0.5, gt=0, le=100)
    to: str | None = None
    root: str = "root"


def scrolls_of(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read ``SCROLL=SEGMENT,SEGMENT`` texts.

    Raises:
        ConfigError: Another form, or a segment that is named twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        scroll, _, listed = text.partition("=")
        segments = tuple(part for part in listed.split(",") if part)
        if not scroll or not segments:
            raise ConfigError(f"--calibrate {text!r}: expected SCROLL=SEGMENT,SEGMENT, as in PHerc0332=s1,s2")
        found[scroll] = (*found.get(scroll, ()), *segments)
    named = [segment for segments in found.values() for segment in segments]
    if twice := sorted({segment for segment in named if named.count(segment) > 1}):
        raise ConfigError(f"--calibrate: segment {twice[0]} is named twice; a segment is part of one scroll")
    return found


@dataclass(frozen=True)
class _Evaluated:
    """A finished evaluation of one map.

    Attributes:
        map: The map.
        counts: Its pixels that count, per stored value.
        digest: Of the evaluation's manifest.
    """

    map: StoredMap
    counts: ScoreHistogram
    digest: str

    @property
    def weights(self) -> str:
        """Digest of the weights that made the map; empty where they are not one bundle's."""
        return str(self.map.manifest.get("inputs", {}).get("weights_sha256", ""))


def run(config: CalibrateConfig, context: RunContext) -> Iterator[str]:
    """Calibrate, and store ``calibration.json`` in the bundle; yields lines for the user.

    Raises:
        DataError: Fewer than two scrolls; a segment or scroll that trained the network; no finished evaluation.
        MismatchError: Maps of different weights, or a calibration of other evaluations without ``--replace``.
    """
    found = {segment: _evaluated(config, segment) for segments in config.calibrate.values() for segment in segments}
    folder = _bundle_folder(config, found)
    training = (folder / "bundle.json").read_mapping().get("training", {})
    scrolls, all_known = trained_scrolls(training, str(folder))
    _require_unseen(config, found, scrolls, folder)
    weights = _one_network(found)
    counts = {
        scroll: {segment: found[segment].counts for segment in segments}
        for scroll, segments in config.calibrate.items()
    }
    digests = {segment: one.digest for segment, one in found.items()}
    result = calibrated(counts, config.beta, weights, digests)
    before = read_calibration(folder, "")
    if before is not None and before != result and not context.replace:
        raise MismatchError(
            f"{folder / NAME}: is of other evaluations (threshold {before.threshold:.4f}, now {result.threshold:.4f}); "
            "give --replace"
        )
    (folder / NAME).write_json(result.model_dump(mode="json"))
    yield from lines(result)
    if not all_known:
        yield "careful: the bundle does not say which scrolls trained it; if one of these did, its row is no score"
    yield f"stored in {folder / NAME}: infer takes {result.threshold:.4f} as the threshold of this bundle from now on"
    if (folder.parent / "complete.json").exists():
        yield f"inkbatch report {folder.parent} makes the page of its training again, with this table"


def _evaluated(config: CalibrateConfig, segment: str) -> _Evaluated:
    made = open_map(config.root, segment, config.name)
    folder = made.folder / "evaluation"
    place = f"evaluation of {segment}/{made.name}"
    manifest = require_complete(folder, place, f"run inkbatch evaluate {segment} --name {made.name}")
    if manifest["inputs"]["predictions"] != [made.identity]:
        raise MismatchError(f"{place}: is of another map than is there now; evaluate {segment} again with --replace")
    total = ScoreHistogram()
    for name in (folder / "counts").names():
        if name.endswith(".blosc"):
            bare, ink = _counts(folder / "counts" / name)
            total.merge(ScoreHistogram(ink, bare))
    return _Evaluated(made, total, str(manifest["digest"]))


def _counts(place: Location) -> Any:
    try:
        return decode_counts(place.read_bytes()).reshape(-1, 2, BINS).sum(axis=0, dtype=np.int64)
    except (RuntimeError, ValueError) as error:
        raise CorruptDataError(f"{place}: these counts are damaged; evaluate again with --replace") from error


def _one_network(found: Mapping[str, _Evaluated]) -> str:
    weights = {segment: one.weights for segment, one in found.items()}
    first = next(iter(weights))
    for segment, digest in weights.items():
        if not digest or digest != weights[first]:
            made_by = f"weights {digest[:12]}…" if digest else "several networks"
            raise MismatchError(
                f"calibrate: expected maps of one network, got {found[first].map.name} of {first} from weights "
                f"{weights[first][:12]}… and {found[segment].map.name} of {segment} from {made_by}; state --name"
            )
    return weights[first]


def _bundle_folder(config: CalibrateConfig, found: Mapping[str, _Evaluated]) -> Location:
    asked = config.to
    for one in found.values():
        asked = asked or one.map.manifest.get("request", {}).get("bundle")
    if asked is None or asked == SHIPPED:
        whose = "the shipped bundle is part of the program" if asked else "the maps do not say which bundle made them"
        raise ConfigError(f"calibrate: {whose}; state the folder of a bundle with --to")
    folder = Location.parse(asked)
    if not (folder / "bundle.json").exists():
        raise DataError(f"{folder}: no bundle here (bundle.json is missing); state where it lies now with --to")
    return folder


def _require_unseen(
    config: CalibrateConfig, found: Mapping[str, _Evaluated], trained: frozenset[str], folder: Location
) -> None:
    """Refuse segments, and scrolls, that trained the network.

    Raises:
        DataError: One did.
    """
    for scroll, segments in config.calibrate.items():
        for segment in segments:
            if len(found[segment].map.trained_on.train):
                raise DataError(
                    f"calibrate: pixels of segment {segment} trained the network of {found[segment].map.name}; what it "
                    f"remembers is no score: leave {segment} out"
                )
        if scroll in trained:
            raise DataError(
                f"calibrate: a segment of scroll {scroll} trained the network ({folder}); its score there says nothing "
                f"about a scroll that is new to it: leave {scroll} out"
            )


def lines(result: Calibration) -> Iterator[str]:
    """Put a calibration into lines of text."""
    beta = f"F{result.beta:g}"
    yield f"left out       threshold of the others   {beta} there   its own best threshold   {beta} there"
    for one in result.scrolls:
        yield (
            f"{one.scroll:<14} {one.threshold:<25.4f} {one.f_beta:<12.4f} {one.best_threshold:<24.4f} "
            f"{one.best_f_beta:.4f}"
        )
    yield f"mean {beta} of left-out scrolls {result.mean_score:.4f}, thresholds spread by {result.spread:.4f}"
    yield f"threshold {result.threshold:.4f}: {result.fitted_on}"
