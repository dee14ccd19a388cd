"""Maps and pictures that instances are found in: a segment's prediction, or a folder of maps of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.data.datasets.image_folders import picture_files
from inkbatch.data.datasets.index import DatasetIndex, resolve, root_of
from inkbatch.data.datasets.picture_layers import decode_picture
from inkbatch.data.labels.objects import BOUNDARY_PX
from inkbatch.data.maps.stored import StoredMap, map_address, maps_now, maps_state, open_map, warnings_of
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.data.segments.prepared import segment_folder
from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.half_floats import to_single
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.npy import open_npy
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import quick_look, state_of, version_of, watched
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run.finished import open_run
from inkbatch.steps.instances.settings import InstancesConfig

CLASSES = 3  # background, object, boundary

Grey = NDArray[Any]


class Source(Protocol):
    """One map with its picture."""

    @property
    def name(self) -> str:
        """Name of the picture, or the segment's id."""

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    def map(self, box: Box) -> NDArray[np.float32]:
        """Read a box inside the map: (height, width), or (3, height, width)."""

    def grey(self, box: Box) -> Grey | None:
        """Read the same box of the picture; None where there is none."""

    @property
    def has_picture(self) -> bool:
        """Tell if there is one."""

    @property
    def is_decoded_whole(self) -> bool:
        """Tell if the picture is a file that is decoded as a whole, not in parts."""

    def colours(self, box: Box) -> NDArray[np.uint8]:
        """Read the same box of the picture as a network sees it: (height, width, 3), RGB.

        Raises:
            DataError: There is none.
        """

    def check(self) -> None:
        """Compare the picture's size with the map's.

        Raises:
            MismatchError: They differ.
        """


@dataclass(frozen=True)
class PictureMap:
    """A map ``NAME.npy`` and, perhaps, its picture."""

    name: str
    place: Location
    picture: Location | None

    @cached_property
    def _layers(self) -> LayerSource:
        found = open_npy(self.place, None, flat=True)
        depth = found.shape_zyx[0]
        if found.dtype != np.float32 or depth not in (1, CLASSES):
            raise DataError(
                f"{self.place}: expected float32 (height, width), or (3, height, width): background, object, boundary, "
                f"got {found.dtype} {found.shape_zyx}; write the map so"
            )
        return found

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._layers.shape_zyx[1:]

    def map(self, box: Box) -> NDArray[np.float32]:
        """See `Source.map`."""
        found = np.asarray(self._layers.read(range(self._layers.shape_zyx[0]), box), np.float32)
        if found.size and not (float(found.min()) >= 0 and float(found.max()) <= 1):
            layer, y, x = np.argwhere((found < 0) | (found > 1))[0].tolist()
            raise DataError(
                f"{self.place}: expected probabilities from 0 to 1, got {found[layer, y, x]:g} at row {box.y0 + y}, "
                f"column {box.x0 + x}{f' of class {layer}' if len(found) > 1 else ''}; {_cure(found)}"
            )
        return found[0] if len(found) == 1 else found

    def grey(self, box: Box) -> Grey | None:
        """See `Source.grey`."""
        return None if self.picture is None else _decoded(self.picture)[box.slices]

    @property
    def has_picture(self) -> bool:
        """See `Source.has_picture`."""
        return self.picture is not None

    @property
    def is_decoded_whole(self) -> bool:
        """See `Source.is_decoded_whole`."""
        return self.has_picture

    def colours(self, box: Box) -> NDArray[np.uint8]:
        """See `Source.colours`."""
        if self.picture is None:
            raise _no_picture(self.name)
        return np.ascontiguousarray(_in_colour(self.picture)[(slice(None), *box.slices)].transpose(1, 2, 0))

    def check(self) -> None:
        """See `Source.check`."""
        if self.picture is not None and _decoded(self.picture).shape != self.shape_yx:
            height, width = _decoded(self.picture).shape
            raise MismatchError(
                f"{self.picture}: expected {self.shape_yx[0]} × {self.shape_yx[1]} px (height × width) like its map "
                f"{self.place.name}, got {height} × {width} px; give the pictures that the maps were made from"
            )


def _cure(values: NDArray[np.float32]) -> str:
    """Guess from a part of a map what its numbers are, for the cure in a message."""
    if float(values.min()) < 0:
        return "these look like logits: take their sigmoid, of three classes their softmax"
    return "divide by the largest value that the map can have (255 for grey values)"


_DECODING = Lock()  # of several threads that read a photograph one decodes it: that takes gigabytes


def _decoded(place: Location) -> Grey:
    with _DECODING:
        return _decoded_grey(place)


def _in_colour(place: Location) -> NDArray[np.uint8]:
    with _DECODING:
        return _decoded_colours(place)


@lru_cache(maxsize=2)
def _decoded_grey(place: Location) -> Grey:
    return decode_picture(place, in_colour=False)


@lru_cache(maxsize=1)
def _decoded_colours(place: Location) -> NDArray[np.uint8]:
    return decode_picture(place, in_colour=True)


def _no_picture(name: str) -> DataError:
    return DataError(f"{name}: expected a picture of this map, got none; give --pictures, or leave --refine out")


@dataclass(frozen=True)
class SegmentMap:
    """A segment's prediction and the middle layer of its surface, if that is stored."""

    stored: StoredMap
    surface: SurfaceVolume | None

    @property
    def name(self) -> str:
        """The segment's id."""
        return self.stored.segment

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.stored.shape_yx

    def map(self, box: Box) -> NDArray[np.float32]:
        """See `Source.map`."""
        return np.asarray(to_single(self.stored.prediction.read(box)), np.float32)

    def grey(self, box: Box) -> Grey | None:
        """See `Source.grey`."""
        if self.surface is None:
            return None
        middle = self.surface.layer_count // 2
        found: Grey = self.surface.volume.levels[0].read((slice(middle, middle + 1), *box.slices))[0]
        return found

    @property
    def has_picture(self) -> bool:
        """See `Source.has_picture`."""
        return self.surface is not None

    @property
    def is_decoded_whole(self) -> bool:
        """See `Source.is_decoded_whole`."""
        return False

    def colours(self, box: Box) -> NDArray[np.uint8]:
        """Read the middle layer as grey; of 16 bits the upper eight."""
        found = self.grey(box)
        if found is None:
            raise _no_picture(self.name)
        grey = (found >> 8 if found.dtype == np.uint16 else found).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)

    def check(self) -> None:
        """See `Source.check`."""
        if self.surface is not None and self.surface.shape_yx != self.shape_yx:
            raise MismatchError(
                f"segment {self.name}: expected a surface of {self.shape_yx} (height, width) like the map, got "
                f"{self.surface.shape_yx}; infer the segment again"
            )


@dataclass(frozen=True)
class Sources:
    """Everything that instances are found in.

    Attributes:
        pictures: Maps in the order of their names.
        pixel_um: Edge of a pixel; None where it is not known.
        result: Name of the result, if none was asked for.
        inputs: For the manifest.
        request: Values of the request that hold from any folder.
        state: Versions of what is read.
        now: The same as it is now.
        boundary_px: Width of boundaries that these maps' network was taught; the usual one where that is not known.
    """

    pictures: tuple[Source, ...]
    pixel_um: float | None
    result: str
    inputs: Mapping[str, Any]
    request: Mapping[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    now: Callable[[], Mapping[str, Any]] = dict
    boundary_px: int = BOUNDARY_PX


def open_sources(config: InstancesConfig) -> Sources:
    """Open a prediction, or find the maps of a folder.

    Raises:
        DataError: There is no map, or one that is not complete.
    """
    check_segment_id(config.subject)
    _decoded_grey.cache_clear()  # a picture of a name may be another one by now
    _decoded_colours.cache_clear()
    return _of_segment(config) if config.maps is None else _of_folder(config, Location.parse(config.maps))


def _of_segment(config: InstancesConfig) -> Sources:
    stored = open_map(config.root, config.subject, config.name)
    if stored.holds_ranks:
        raise DataError(
            f"prediction {config.subject}/{stored.name}: expected probabilities, got ranks; take another method of "
            "ensemble"
        )
    folder = segment_folder(config.root, config.subject)
    surface = SurfaceVolume.open(folder) if (folder / "surface.zarr" / "zarr.json").exists() else None
    inputs: dict[str, Any] = {"prediction": stored.identity, **warnings_of([stored])}
    if trained_on := stored.trained_on.document:
        inputs["trained_on"] = trained_on
    return Sources(
        (SegmentMap(stored, surface),),
        stored.pixel_um,
        stored.folder.name,
        inputs,
        {"name": map_address(stored.name)},
        maps_state([stored]),
        partial(maps_now, [stored]),
    )


def _of_folder(config: InstancesConfig, folder: Location) -> Sources:
    names = sorted(name for name in folder.names() if name.endswith(".npy"))
    if not names:
        raise DataError(
            f"{folder}: expected maps (NAME.npy), got none; run inkbatch infer-pictures with --set 'forms=[npy]'"
        )
    if taken := [name for name in names if _is_ours(name.removesuffix(".npy"))]:
        raise DataError(
            f"{folder}: expected names of pictures, got {taken[0]}, whose labels would lie where the run's own records "
            "do; rename it"
        )
    inputs: dict[str, Any] = {"maps": folder.name}
    pictures: dict[str, Location] = {}
    boundary_px = BOUNDARY_PX
    if (folder / "manifest.json").exists():
        made = open_run(folder.uri)
        made.require_complete()
        if made.job != "infer-pictures":
            raise MismatchError(
                f"{folder}: expected maps of infer-pictures, got those of {made.job}; name another folder"
            )
        inputs |= {"made_by": made.manifest["digest"]}
        pictures, boundary_px = _pictures_of(made.manifest["request"]), _boundary_of(made.manifest)
    if config.pictures is not None:
        given = Location.parse(config.pictures)
        pictures = {name: given / file for name, file in picture_files(given).items()}
        missing = [name for name in names if name.removesuffix(".npy") not in pictures]
        if missing:
            raise DataError(f"{given}: expected a picture for the map {missing[0]}, got none; add it, or leave it out")
    found = [PictureMap(stem, folder / f"{stem}.npy", pictures.get(stem)) for stem in (n[:-4] for n in names)]
    inputs["sizes"] = digest([[one.name, one.shape_yx] for one in found])
    chosen = set(names)

    shown = {one.name: one.picture for one in found if one.picture is not None}

    def versions() -> dict[str, str]:
        return {name: version_of(place) for name, place in shown.items()}

    def states() -> dict[str, Any]:
        seen = {"pictures": {"objects": len(shown), "digest": digest(versions())}} if shown else {}
        return {"maps": state_of(folder, only=chosen.__contains__), **seen}

    now = watched(lambda: (quick_look(folder, only=chosen.__contains__), versions()), states)
    places = {"maps": folder.uri, "pictures": Location.parse(config.pictures).uri if config.pictures else None}
    return Sources(tuple(found), config.pixel_um, folder.name, inputs, places, states(), now, boundary_px)


def photographs(request: Mapping[str, Any]) -> dict[str, Location]:
    """Find the pictures that a finished run over a folder of maps had, by name; those that are gone are left out."""
    if request.get("pictures"):
        folder = Location.parse(request["pictures"])
        try:
            return {name: folder / file for name, file in picture_files(folder).items()}
        except DataError:
            return {}
    maps = Location.parse(request["maps"])
    return _pictures_of(open_run(maps.uri).manifest["request"]) if (maps / "manifest.json").exists() else {}


def _is_ours(name: str) -> bool:
    """Tell if a folder of this name among those of pictures' labels would be taken for a record of the run."""
    return name in ("done", "points") or name.endswith(".json")


def _pictures_of(asked: Mapping[str, Any]) -> dict[str, Location]:
    """Find the pictures that a run of `infer-pictures` read; those that are gone are left out."""
    try:
        if asked.get("dataset"):
            place = Location.parse(asked["dataset"])
            index = DatasetIndex.open(place)
            return {one.id: resolve(one.surface, root_of(place)) for one in index.segments}
        folder = Location.parse(asked["images"])
        return {name: folder / file for name, file in picture_files(folder).items()}
    except DataError:
        return {}


def _boundary_of(manifest: Mapping[str, Any]) -> int:
    """Look up the width of boundaries that maps of `infer-pictures` show: their network's, else their dataset's."""
    stated = manifest["config"].get("contract", {}).get("boundary_px")
    if stated is not None:
        return int(stated)
    asked = manifest["request"]
    try:
        found = DatasetIndex.open(Location.parse(asked["dataset"])).boundary_px if asked.get("dataset") else None
    except DataError:
        found = None
    return found or BOUNDARY_PX
