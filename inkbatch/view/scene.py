"""Content of a viewer: segments with surface, predictions, labels and ignore mask, found by name or by URI."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inkbatch.data.maps.sweep import BEST_DEPTH, DOCUMENT_NAME, Z
from inkbatch.data.segments.catalog import SEGMENT_ID, check_segment_id
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.steps.instances.sources import photographs
from inkbatch.view.objects import ShownObjects, open_objects, pictures_in, results_of
from inkbatch.view.photograph import Photograph
from inkbatch.view.scale import PROBABILITY, Z_VALUES, Scale, depth_scale

OVERLAYS = ("ink_labels", "ignore_mask")


@dataclass(frozen=True)
class ShownMap:
    """A prediction that can be shown.

    Attributes:
        name: Name on the page; unique in its group.
        pyramid: (Y, X), float16 probability, or what `scale` says.
        version: Changes when the stored map does; part of every cache key.
        units: Units of the plan, 0 without a manifest.
        done: Units that are stored.
        complete: True if all are stored.
        facts: Facts for the page: model, tile, stride.
        scale: How stored values are shown.
    """

    name: str
    pyramid: Multiscale
    version: str
    units: int = 0
    done: int = 0
    complete: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    scale: Scale = PROBABILITY


@dataclass(frozen=True)
class Group:
    """One segment with its maps and overlays, all of one size.

    Attributes:
        segment: Segment id, or the name of a prediction without a surface.
        surface: The surface volume, or None.
        maps: Predictions by name.
        overlays: ``ink_labels`` and ``ignore_mask``, those that are there.
        objects: Finished results of `inkbatch instances` by name.
        photograph: The picture below them, of a group that is no segment.
    """

    segment: str
    surface: SurfaceVolume | None
    maps: Mapping[str, ShownMap]
    overlays: Mapping[str, Multiscale]
    objects: Mapping[str, ShownObjects] = field(default_factory=dict)
    photograph: Photograph | None = None

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) at full size."""
        if self.surface is not None:
            return self.surface.shape_yx
        shown = [*(one.pyramid for one in self.maps.values()), *(one.labels for one in self.objects.values())]
        height, width = shown[0].shape
        return height, width

    @property
    def voxel_size_um(self) -> float | None:
        """Edge of a pixel at full size, in micrometres; None for pictures of which nothing states it."""
        if self.surface is not None:
            return self.surface.volume.pixel_um()
        for shown in self.maps.values():
            return shown.pyramid.pixel_um()
        return next((one.pixel_um for one in self.objects.values() if one.pixel_um is not None), None)

    def layer_numbers(self) -> list[int]:
        """List source layer numbers in depth order; empty without a surface."""
        if self.surface is None:
            return []
        low, high = self.surface.provenance.source_layers
        numbers = list(range(low, high))
        return numbers[::-1] if self.surface.provenance.depth_order == "reversed" else numbers

    def describe(self) -> dict[str, Any]:
        """Describe the group for the page; without URIs and settings of the store."""
        height, width = self.shape_yx
        found: dict[str, Any] = {
            "segment": self.segment,
            "height": height,
            "width": width,
            "voxel_size_um": self.voxel_size_um,
            "layers": self.layer_numbers(),
            "overlays": sorted(self.overlays),
            "maps": [
                {
                    "name": shown.name,
                    "version": shown.version,
                    "complete": shown.complete,
                    "done": shown.done,
                    "units": shown.units,
                    "facts": dict(shown.facts),
                    "scale": shown.scale.document,
                }
                for shown in self.maps.values()
            ],
            "objects": [
                {"name": one.name, "version": one.version, "count": one.count} for one in self.objects.values()
            ],
            "photograph": self.photograph is not None,
        }
        if self.surface is not None:
            found["dtype"] = self.surface.dtype.name
            found["depth_order"] = self.surface.provenance.depth_order
        return found


class Scene:
    """All requested groups; `refresh` looks again for predictions, so that a reload shows new ones."""

    def __init__(self, targets: Sequence[str], root: str) -> None:
        """Open everything once.

        Args:
            targets: Segment ids, and URIs or paths of segment folders, predictions or their ``.zarr``.
            root: ROOT.

        Raises:
            ConfigError: There are no targets.
            DataError: A target is not there, cannot be read, or has another size than its segment.
        """
        if not targets:
            raise ConfigError("view: expected a segment id, or the URI of a segment or a prediction, got nothing")
        self._targets, self._root = list(targets), Location.parse(root)
        self.groups: tuple[Group, ...] = ()
        self.refresh()

    def refresh(self) -> tuple[Group, ...]:
        """Look again; a group that cannot be opened any more raises as at the start."""
        folders: dict[str, Location | None] = {}
        extra: dict[str, list[Location]] = {}
        photographed: list[Group] = []
        for target in self._targets:
            pictures = _photographed(target)
            photographed += pictures
            if pictures:
                continue
            segment, folder, prediction = self._resolve(target)
            folders[segment] = folder or folders.get(segment)
            extra.setdefault(segment, [])
            if prediction is not None:
                extra[segment].append(prediction)
        segments = [self._open(segment, folder, extra[segment]) for segment, folder in folders.items()]
        self.groups = (*segments, *photographed)
        return self.groups

    def _resolve(self, target: str) -> tuple[str, Location | None, Location | None]:
        """Resolve a target to segment id, segment folder (or None) and prediction (or None)."""
        if SEGMENT_ID.fullmatch(target) and not Location.parse(target).is_folder():
            return target, self._root / "segments" / check_segment_id(target), None
        place = Location.parse(target)
        if place.name == "prediction.zarr" or place.name == "surface.zarr":
            place = place.parent
        if (place / "surface.zarr" / "zarr.json").exists():
            return place.name, place, None
        if (place / "prediction.zarr" / "zarr.json").exists():
            segment = str(_manifest(place).get("config", {}).get("segment") or place.parent.name)
            folder = self._root / "segments" / segment if SEGMENT_ID.fullmatch(segment) else None
            if folder is not None and not (folder / "surface.zarr" / "zarr.json").exists():
                folder = None
            return segment, folder, place
        if SEGMENT_ID.fullmatch(target):
            return target, self._root / "segments" / check_segment_id(target), None
        raise DataError(
            f"view {target}: no surface.zarr or prediction.zarr is there; give a segment id, the folder of a "
            "prepared segment, of a prediction (with ROOT/segments and ROOT/predictions, the id is enough) or of "
            "instances of pictures"
        )

    def _open(self, segment: str, folder: Location | None, extra: Sequence[Location]) -> Group:
        beside = self._root / "predictions" / segment if SEGMENT_ID.fullmatch(segment) else None
        listed = [] if beside is None else [beside / name for name in beside.names()]
        maps: dict[str, ShownMap] = {}
        for place in _without_twins([*listed, *extra]):
            if place in extra or (place / "prediction.zarr" / "zarr.json").exists():
                shown = open_map(place, _free_name(place.name, maps))
                maps[shown.name] = shown
        for shown in [] if beside is None else _swept(self._root / "sweeps" / segment):
            name = _free_name(shown.name, maps)
            maps[name] = replace(shown, name=name)
        if folder is None or not (folder / "surface.zarr" / "zarr.json").exists():
            if not maps:
                raise DataError(
                    f"view {segment}: nothing is prepared at {folder or self._root} and there is no prediction of it; "
                    f"run inkbatch prepare {segment} and inkbatch infer {segment} first, or give --root"
                )
            surface, overlays = None, {}
        else:
            surface, overlays = SurfaceVolume.open(folder), _overlays(folder)
        objects = {} if beside is None else results_of(self._root / "instances" / segment, segment)
        group = Group(segment, surface, maps, overlays, objects)
        shown_here = [*((m.name, m.pyramid) for m in maps.values()), *((o.name, o.labels) for o in objects.values())]
        for name, pyramid in [*shown_here, *overlays.items()]:
            if tuple(pyramid.shape) != group.shape_yx:
                raise MismatchError(
                    f"view {segment}: expected {name} to be {_size(group.shape_yx)} (width × height) like the "
                    "segment, got "
                    f"{_size(pyramid.shape)}; show them separately, or make the map again from this surface"
                )
        return group


def _photographed(target: str) -> list[Group]:
    """Open the pictures of a result of `inkbatch instances`, each with all results that hold it; none for others."""
    place = Location.parse(target)
    if SEGMENT_ID.fullmatch(target) or not (place / "instances.json").exists():
        return []
    manifest = _manifest(place)
    if manifest.get("request", {}).get("maps") is None:
        raise DataError(
            f"view {target}: expected a folder of pictures, got objects of the segment {place.parent.name}; give its id"
        )
    found = photographs(manifest["request"])
    groups = []
    for picture in pictures_in(place):
        objects = {shown.name: shown for shown in (open_objects(place, picture),) if shown is not None}
        if not objects:
            raise DataError(f"view {target}: expected finished objects, got none of {picture}; run inkbatch instances")
        shape = objects[place.name].labels.shape
        beside = results_of(place.parent, picture).items()
        objects |= {name: shown for name, shown in beside if shown.labels.shape == shape}
        shown = None if picture not in found else Photograph(found[picture], (shape[0], shape[1]))
        groups.append(Group(picture, None, {}, {}, objects, shown))
    return groups


def open_map(folder: Location, name: str) -> ShownMap:
    """Open a prediction's folder, complete or not.

    Raises:
        DataError: No prediction is there.
    """
    pyramid = Multiscale.open(folder / "prediction.zarr")
    manifest = _manifest(folder)
    contract = manifest.get("config", {}).get("contract", {})
    facts = {"model": manifest.get("inputs", {}).get("bundle"), "job": manifest.get("job")}
    facts |= {key: contract.get(key) for key in ("tile_px", "stride_px")}
    units, digest = int(manifest.get("units") or 0), str(manifest.get("digest") or "none")[:12]
    complete = not units or (folder / "complete.json").exists()
    done = units if complete else len((folder / "done").names())
    version = digest if complete else f"{digest}-{done}"
    known = {key: value for key, value in facts.items() if value is not None}
    return ShownMap(name, pyramid, version, units, done, complete, known)


def _swept(folder: Location) -> list[ShownMap]:
    """List the maps of finished sweeps: z values of every series, best depths of real ones."""
    found = []
    for name in folder.names():
        place, manifest = folder / name, _manifest(folder / name)
        if not (place / "complete.json").exists():
            continue
        document = (place / DOCUMENT_NAME).read_mapping()
        version = str(manifest.get("digest"))[:12]
        for series in document["series"]:
            kinds = {"z": (Z, Z_VALUES)}
            if series["null"] is None:
                kinds["best-depth"] = BEST_DEPTH, depth_scale(document["depths"])
            for kind, (array, scale) in kinds.items():
                facts = {"job": "sweep", "bundles": len(document["bundles"])}
                pyramid = Multiscale.open(place / series["name"] / array)
                found.append(ShownMap(f"{name}-{series['name']}-{kind}", pyramid, version, facts=facts, scale=scale))
    return found


def _manifest(folder: Location) -> dict[str, Any]:
    return (folder / "manifest.json").find_mapping() or {}


def _overlays(folder: Location) -> dict[str, Multiscale]:
    names = [name for name in OVERLAYS if (folder / f"{name}.zarr" / "zarr.json").exists()]
    return {name: Multiscale.open(folder / f"{name}.zarr") for name in names}


def _without_twins(places: Iterable[Location]) -> list[Location]:
    return list(dict.fromkeys(places))


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name) or "map"
    found, number = plain, 2
    while found in taken:
        found, number = f"{plain}-{number}", number + 1
    return found


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-1]} × {shape[-2]} px"
