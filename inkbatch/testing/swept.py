"""A segment of random papyrus that two small bundles swept, and the settings that tests change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.series import series_of
from inkbatch.data.maps.sweep import BEST, BEST_DEPTH, DEVIATION, MAXIMUM, MEAN, StoredSweep, Z
from inkbatch.io.multiscale import Multiscale
from inkbatch.run.job import JobReport, RunContext
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.sweep.job import run
from inkbatch.steps.sweep.settings import SweepConfig
from inkbatch.testing.segments import VOXEL_SIZE_UM, identity_bundle, network_bundle, random_papyrus, write_layers

SHAPE = (7, 70, 100)
FIRST = 2  # layer that both bundles begin with at depth 0
DEPTHS_ASKED = (-1, 0, 1)
COUNT = 3  # layers of both bundles
UNIT_PX = 64
SERIES = series_of("both", ("shuffled", "repeated"))
BUNDLES = ("tiny-identity", "tiny-smp")


@dataclass(frozen=True)
class Swept:
    """A segment, two bundles, and the finished sweep of both.

    Attributes:
        folder: Holds ROOT as ``root``, and the bundles ``identity`` and ``network``.
        layers: Layers of the segment ``page``, (z, y, x).
        sweep: The sweep.
        report: Report of the job.
    """

    folder: Path
    layers: NDArray[Any]
    sweep: StoredSweep
    report: JobReport

    @property
    def root(self) -> str:
        """ROOT."""
        return str(self.folder / "root")


def swept_segment(folder: Path) -> Swept:
    """Prepare the segment, save the bundles, and sweep below `folder`."""
    layers = random_papyrus(SHAPE)
    prepared(folder, "page", layers)
    identity_bundle(folder / "identity", COUNT)
    network_bundle(folder / "network", COUNT)
    report = run(config_for(folder, keep_depths=True), RunContext())
    return Swept(folder, layers, opened(folder), report)


def prepared(folder: Path, segment: str, layers: NDArray[Any], voxel_size_um: float = VOXEL_SIZE_UM) -> None:
    """Prepare layers (z, y, x) as a segment."""
    source = write_layers(folder / f"layers-{segment}", layers)
    stated = {"depth_order": "forward", "voxel_size_um": voxel_size_um, "shard_px": UNIT_PX}
    values = {"segment": segment, "root": str(folder / "root"), "source": str(source), **stated}
    prepare.run(PrepareConfig.model_validate(values), RunContext())


def config_for(folder: Path, **changes: Any) -> SweepConfig:
    """Make the settings of the sweep, with changes."""
    values = {"segment": "page", "root": str(folder / "root"), "depths": "-1:2", "unit_px": UNIT_PX, "device": "cpu"}
    bundles = [str(folder / "identity"), str(folder / "network")]
    return SweepConfig.checked({**values, "bundles": bundles, **changes}, "test")


def opened(folder: Path, name: str = "sweep") -> StoredSweep:
    """Open a sweep of the segment."""
    return StoredSweep.open(str(folder / "root"), "page", name)


def read(pyramid: Multiscale) -> NDArray[Any]:
    """Read all of an array at full resolution."""
    return pyramid.levels[0].read(tuple(slice(0, size) for size in pyramid.shape))


def maps_of(sweep: StoredSweep) -> dict[str, NDArray[Any]]:
    """Read every map of a sweep, of all bundles together and of each by itself."""
    places = {f"{one}/{name}": sweep.map(one, name) for one in sweep.series for name in (Z, MEAN, MAXIMUM, BEST_DEPTH)}
    for bundle in sweep.bundles:
        places |= {
            f"{bundle}/{one}/{name}": sweep.bundle_map(bundle, one, name)
            for one in sweep.series
            for name in (MEAN, DEVIATION, BEST, BEST_DEPTH)
        }
    return {key: read(place) for key, place in places.items()}


def assert_equal_maps(one: StoredSweep, other: StoredSweep) -> None:
    """Compare every map of two sweeps, to the bit."""
    found = maps_of(other)
    for key, values in maps_of(one).items():
        np.testing.assert_array_equal(values, found[key], err_msg=key)
