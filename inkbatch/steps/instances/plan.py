"""Plan of `inkbatch instances`: units of all pictures, their stages, and what the first pass of a picture found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from inkbatch.data.instances.answers import read_answers
from inkbatch.data.instances.ascent import Limits
from inkbatch.data.instances.fates import RegionFates, region_fates
from inkbatch.data.instances.joining import Joined, join
from inkbatch.data.instances.objects import Objects, Refined, of_regions, refined_objects
from inkbatch.data.instances.proposals import Proposal, limits_of, proposed
from inkbatch.data.instances.selection import Choice, Instance, Rejection, from_region
from inkbatch.data.instances.unit_facts import BasinFacts
from inkbatch.errors import DataError
from inkbatch.geometry import Box, Unit, cut
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.instances.network import identity, open_network, require_pictures
from inkbatch.steps.instances.settings import Form, InstancesConfig
from inkbatch.steps.instances.sources import Source, Sources, open_sources

if TYPE_CHECKING:
    from inkbatch.models.prompting import PromptableBundle

ALL_FORMS: tuple[Form, ...] = ("geojson", "coco", "csv", "parquet", "npy", "overlay")
KEPT_PICTURES = 2  # whose joined first pass stays in memory


@dataclass(frozen=True)
class Part:
    """A unit in its picture.

    Attributes:
        number: Number of the picture.
        source: The picture.
        write_box: Write box in pixels of the picture.
        read_box: The same with the halo, inside the picture.
    """

    number: int
    source: Source
    write_box: Box
    read_box: Box

    @property
    def sides(self) -> tuple[bool, bool, bool, bool]:
        """Tell if the top, bottom, left and right side of the write box is a seam."""
        height, width = self.source.shape_yx
        box = self.write_box
        return box.y0 > 0, box.y1 < height, box.x0 > 0, box.x1 < width


@dataclass(frozen=True)
class FirstPass:
    """First pass of one picture, joined.

    Attributes:
        joined: Its regions and components.
        fates: What becomes of the regions.
        proposals: All proposals, in their order.
    """

    joined: Joined
    fates: RegionFates
    proposals: list[Proposal]


@dataclass(frozen=True)
class InstancesPlan:
    """Everything that is known before a pixel is read.

    Attributes:
        config: The job's settings.
        sources: Maps and pictures.
        limits: The rules for proposals in pixels.
        choice: The rules for rejections in pixels.
        forms: Files to write.
        network: The network that refines, or None.
        units: Units of all passes: those of all pictures below each other, each picture at a multiple of `unit_px`.
        parts: Per unit: its place in its picture.
        folder: ``ROOT/instances/{subject}/{result}``.
        manifest: Of the last pass; the earlier ones differ in their job's name.
    """

    config: InstancesConfig
    sources: Sources
    limits: Limits
    choice: Choice
    forms: tuple[Form, ...]
    units: list[Unit]
    parts: list[Part]
    folder: Location
    manifest: RunManifest
    network: PromptableBundle | None = None

    @property
    def record(self) -> RunFolder:
        """The run that measures instances and writes tables."""
        return RunFolder(self.folder, self.manifest)

    @property
    def facts_record(self) -> RunFolder:
        """The run that finds basins."""
        return self._stage("instances-components", "components")

    @property
    def labels_record(self) -> RunFolder:
        """The run that writes pictures of labels."""
        return self._stage("instances-maps", "labels")

    @property
    def regions_record(self) -> RunFolder:
        """The run that writes the regions of the first pass, where they are refined."""
        return self._stage("instances-regions", "regions")

    @property
    def answers_record(self) -> RunFolder:
        """The run that asks the network."""
        return self._stage("instances-answers", "answers")

    def _stage(self, job: str, folder: str) -> RunFolder:
        return RunFolder(self.folder / folder, self.manifest.of_pass(job))

    def facts_place(self, unit: Unit) -> Location:
        """Return the place of a unit's facts on basins."""
        return self.folder / f"components/facts/{unit.name}.npz"

    def basins_place(self, unit: Unit) -> Location:
        """Return the place of a unit's basins, pixel by pixel."""
        return self.folder / f"components/basins/{unit.name}.npz"

    def points_place(self, unit: Unit) -> Location:
        """Return the place of the regions at the points of a unit's proposals."""
        return self.folder / f"{'labels' if self.network is None else 'regions'}/points/{unit.name}.json"

    def answers_place(self, unit: Unit) -> Location:
        """Return the place of the network's answers to a unit's proposals."""
        return self.folder / f"answers/masks/{unit.name}.npz"

    def rows_place(self, unit: Unit) -> Location:
        """Return the place of a unit's measured instances."""
        return self.folder / f"rows/{unit.name}.json"

    def labels_place(self, source: Source) -> Location:
        """Return the folder that holds ``labels.zarr`` of a picture."""
        return self.folder / f"labels/{source.name}"

    def regions_place(self, source: Source) -> Location:
        """Return the folder that holds the regions of a picture, where they are refined."""
        return self.folder / f"regions/{source.name}"

    def units_of(self, number: int) -> list[Unit]:
        """List the units of one picture."""
        return [unit for unit in self.units if self.parts[unit.index].number == number]

    @cached_property
    def _passes(self) -> Any:
        return lru_cache(maxsize=KEPT_PICTURES)(self._joined)

    def first_pass(self, number: int) -> FirstPass:
        """Join the facts of a picture; all of them must be stored."""
        found: FirstPass = self._passes(number)
        return found

    def _joined(self, number: int) -> FirstPass:
        source = self.sources.pictures[number]
        joined = join([BasinFacts.read(self.facts_place(unit)) for unit in self.units_of(number)], self.limits.neck)
        fates = region_fates(joined, source.shape_yx, self.choice, source.name)
        return FirstPass(joined, fates, proposed(joined, self.limits))

    @cached_property
    def _points(self) -> Any:
        return lru_cache(maxsize=KEPT_PICTURES)(self._read_points)

    def region_at(self, number: int) -> dict[tuple[int, int], int]:
        """Return the region at the pixel of each proposal of a picture, -1 outside; all of them must be stored."""
        found: dict[tuple[int, int], int] = self._points(number)
        return found

    def _read_points(self, number: int) -> dict[tuple[int, int], int]:
        places = (self.points_place(unit) for unit in self.units_of(number))
        return {(y, x): region for place in places for y, x, region in place.read_json()}

    def objects(self, number: int) -> Objects:
        """Return the instances of a picture; every pass before that of labels must be whole."""
        if self.network is not None:
            return self.refined(number).objects
        found = self.first_pass(number)
        return of_regions(found.joined, found.fates)

    @cached_property
    def _settled(self) -> Any:
        return lru_cache(maxsize=KEPT_PICTURES)(self._resolved)

    def refined(self, number: int) -> Refined:
        """Settle the network's answers of a picture; all of them must be stored."""
        found: Refined = self._settled(number)
        return found

    def _resolved(self, number: int) -> Refined:
        source, found, region_at = self.sources.pictures[number], self.first_pass(number), self.region_at(number)
        regions = Multiscale.open(self.regions_place(source) / "labels.zarr").levels[0]

        def taken(one: Proposal) -> Instance | Rejection:
            region = region_at.get(one.pixel, -1)
            if region < 0:
                return Rejection(one, "outside")
            reason = found.fates.reasons[region]
            if reason is not None:
                return Rejection(one, reason)
            box = Box(*found.joined.regions.extent[region].tolist())
            return from_region(one, regions.read(box.slices).astype(np.int64) - 1, box)

        places = [self.answers_place(unit) for unit in self.units_of(number)]
        answers = [answer for place in places for answer in read_answers(place, found.proposals)]
        return refined_objects(answers, found.proposals, taken, self.choice, source.name)

    def create(self, folder: Location, source: Source) -> Multiscale:
        """Write the metadata of a picture of numbers; equal ones that are there are used on."""
        return Multiscale.create(
            folder / "labels.zarr",
            source.shape_yx,
            dtype="uint32",
            chunk=(min(256, self.config.unit_px),) * 2,
            shard_px=self.config.unit_px,
            voxel_size_um=self.sources.pixel_um or 1.0,
            provenance={"kind": "instances", "digest": self.manifest.digest, "picture": source.name},
            codec="zstd",
            pooling="first",
        )


def make_plan(config: InstancesConfig) -> InstancesPlan:
    """Open the maps and cut all pictures into units.

    Raises:
        ConfigError: A length in micrometres where the edge of a pixel is not known.
        DataError: There is no map, or one that is not complete; no promptable network, or no picture for it.
    """
    network, sources = open_network(config), open_sources(config)
    if network is not None:
        require_pictures(sources.pictures)
    limits = limits_of(config.proposals, sources.pixel_um, sources.boundary_px)
    choice = Choice.of(config.selection, limits.min_px, sources.pixel_um)
    forms = config.forms
    if forms is None:
        forms = ALL_FORMS if config.maps is not None else tuple(one for one in ALL_FORMS if one != "npy")
    result = config.result or (sources.result if network is None else f"{sources.result}-{network.document.name}")
    folder = Location.parse(config.output_root or config.root) / "instances" / config.subject / result
    units, parts = _units(sources.pictures, config.unit_px, limits.halo_px)
    keep_out = {"root", "output_root", "name", "result", "maps", "pictures", "forms", "device"}
    keep_out |= {"refinement"} if network is None else set()
    settings = config.model_dump(mode="json", exclude=keep_out)
    settings |= {"result": result, "forms": sorted(forms), "pixel_um": sources.pixel_um}
    if config.proposals.grow is None:
        settings["proposals"]["grow"] = limits.grow_px
    inputs, asked = dict(sources.inputs), {**sources.request, "result": result}
    if network is not None:
        settings["refine"], inputs["refine"] = network.document.name, identity(network)
        asked["refine"] = network.location.uri
    request = config.request(**asked)
    manifest = RunManifest("instances", settings, inputs, len(units), request, sources.state, sources.now)
    return InstancesPlan(config, sources, limits, choice, forms, units, parts, folder, manifest, network)


def _units(pictures: Sequence[Source], unit_px: int, halo_px: int) -> tuple[list[Unit], list[Part]]:
    units: list[Unit] = []
    parts: list[Part] = []
    top = 0
    for number, source in enumerate(pictures):
        height, width = source.shape_yx
        for box in cut(source.shape_yx, unit_px, unit_px):
            read = box.grow(halo_px).intersect(Box(0, 0, height, width))
            units.append(Unit(len(units), box.shift(top, 0), read.shift(top, 0)))
            parts.append(Part(number, source, box, read))
        top += -(-height // unit_px) * unit_px
    return units, parts


def require_proposals(plan: InstancesPlan) -> None:
    """Refuse maps in which nothing is proposed, with their statistics.

    Raises:
        DataError: There is no proposal in any picture.
    """
    if any(plan.first_pass(number).proposals for number in range(len(plan.sources.pictures))):
        return
    facts = [BasinFacts.read(plan.facts_place(unit)) for unit in plan.units]
    pixels = sum(height * width for height, width in (one.shape_yx for one in plan.sources.pictures))
    mean = sum(float(one.probabilities[0]) for one in facts) / 65_535 / pixels
    most = max(float(one.probabilities[1]) for one in facts) / 65_535
    small = np.concatenate([one.dropped for one in facts]).astype(np.int64)
    small = np.concatenate(
        [small, *(plan.first_pass(n).joined.components.core for n in range(len(plan.sources.pictures)))]
    )
    rules = plan.config.proposals
    found = (
        f"the largest of {len(small):,} components has {int(small.max()):,} px" if len(small) else "no pixel of object"
    )
    cure = "lower proposals.min_area" if len(small) else "lower proposals.object_from, or look at the maps"
    raise DataError(
        f"instances {plan.config.subject}: expected an object of at least {plan.limits.min_px} px where the "
        f"probability reaches {rules.object_from:g}, got none ({found}; mean probability {mean:.3f}, maximum "
        f"{most:.3f}); {cure}"
    )
