"""Inputs of `inkbatch labels`: the labels, and masks of where they count and of what is held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.ignore import NO_MASK
from inkbatch.data.labels.painting_version import outdated
from inkbatch.data.labels.versions import Versions, chosen_version
from inkbatch.data.maps.carried import Carried, SeenMask, open_carried
from inkbatch.data.maps.carried_surface import open_carried_by_surface
from inkbatch.data.maps.label_source import LabelSource, PictureLabels, PredictionLabels
from inkbatch.data.maps.stored import maps_now, maps_state, open_map
from inkbatch.data.segments.catalog import Catalog, SegmentEntry
from inkbatch.data.segments.prepared import SURFACE
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box
from inkbatch.io.layers import may_be_file
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.one_plane import open_plane
from inkbatch.io.layers.single import content_digest, open_one_layer, read_mask
from inkbatch.io.layers.zarr_holes import Holes, counted_holes
from inkbatch.io.layers.zarr_nodes import find_node, level_shapes
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import watch
from inkbatch.io.surface import SurfaceVolume
from inkbatch.steps.labels.painted_source import PaintedLabels, PaintedMask, open_painted, own_version

if TYPE_CHECKING:
    from inkbatch.steps.labels.settings import LabelsConfig

OWN_MASKS = (PaintedMask, SeenMask)  # that belong to the labels themselves
NOT_WITH_MAPS = ("white", "plane", "level", "version")
CURE = "set plane to one of them, to middle, or to max"


class Mask(NamedTuple):
    """A mask that was given: what it is, where it lies, and its version."""

    what: str
    source: LayerSource
    versions: Versions

    def read(self, box: Box) -> Bools:
        """Read a box, True where it is marked."""
        return read_mask(self.source, box)


@dataclass(frozen=True)
class LabelInputs:
    """Everything that labels are made of, opened.

    Attributes:
        labels: The labels.
        versions: Their version; None for a prediction.
        ignore_image: What is left out, or None.
        supervision: Where labels count, or None: everywhere.
        validation: What is held out, or None.
        holes: Zarr arrays among them that lack chunks.
    """

    labels: LabelSource
    versions: Versions | None
    ignore_image: LayerSource | None
    supervision: Mask | None
    validation: Mask | None
    holes: tuple[Holes, ...] = ()

    def notes(self, surface: str | None) -> list[str]:
        """Say what a person must know of the labels; `surface` is the content digest of the prepared segment."""
        found = [str(holes) for holes in self.holes]
        if isinstance(self.labels, PaintedLabels):
            found += filter(None, [outdated(self.labels.version.facts, surface)])
        return found

    @property
    def name(self) -> str:
        """Address of the labels' picture, array or version, or name of the prediction."""
        identity = self.labels.identity
        if "of_segment" in identity:
            return f"{identity['of_segment']}/{identity['prediction']}"
        return str(identity.get("image") or identity.get("painted") or identity.get("prediction"))

    @property
    def _given(self) -> dict[str, Mask]:
        """Masks that were given beside the labels; those of a label version or a carried map are part of it."""
        return {key: mask for key, mask in self.masks.items() if not isinstance(mask.source, OWN_MASKS)}

    @property
    def masks(self) -> dict[str, Mask]:
        """The given masks by the setting that names them."""
        named = {"supervision_mask": self.supervision, "validation_mask": self.validation}
        return {key: mask for key, mask in named.items() if mask is not None}

    @property
    def identity(self) -> dict[str, Any]:
        """Entries of a manifest."""
        found: dict[str, Any] = {
            "source": {**self.labels.identity, **(self.versions.identity if self.versions else {})}
        }
        if self.ignore_image is not None:
            found["ignore_image"] = {"uri": self.ignore_image.uri, "fingerprint": self.ignore_image.fingerprint}
        for key, mask in self.masks.items():
            entry = {"uri": mask.source.uri, "fingerprint": mask.source.fingerprint}
            found[key] = {**entry, **mask.versions.identity}
        return found

    @property
    def pictures(self) -> dict[str, Location]:
        """All that was given as a picture or an array, by its key in the state of a manifest."""
        found = {"picture": self.labels.picture}
        if self.ignore_image is not None and not isinstance(self.ignore_image, PaintedMask):
            found["ignore_image"] = Location.parse(self.ignore_image.uri)
        found |= {key: Location.parse(mask.source.uri) for key, mask in self._given.items()}
        return {key: place for key, place in found.items() if place is not None}

    @property
    def request(self) -> dict[str, Any]:
        """Settings that name the same inputs from any folder."""
        masks = {key: mask.versions.uri for key, mask in self._given.items()}
        return {**self.labels.request, "version": None, **masks}

    def watch(self) -> tuple[dict[str, Any], Callable[[], Mapping[str, Any]]]:
        """Take the state of the inputs for a manifest, and make the function that takes it again."""
        states, now = watch(self.pictures)
        if not isinstance(self.labels, PredictionLabels | Carried):
            return states, now
        found = [self.labels.map]
        contents = {key: value for key, value in maps_state(found).items() if key != SURFACE}
        return {**contents, **states}, lambda: {**maps_now(found), **now()}

    def close(self) -> None:
        """Release file handles."""
        for source in (self.labels, self.ignore_image, *(mask.source for mask in self.masks.values())):
            if source is not None:
                source.close()


def open_inputs(config: LabelsConfig, surface: SurfaceVolume) -> LabelInputs:
    """Open labels and masks, and compare their sizes with the surface's.

    Raises:
        ConfigError: No labels are known, or two kinds are given.
        DataError: Something is not whole, of another size, or lies there in several versions of which none is stated.
    """
    if config.painted is not None:
        return _painted(config, config.painted, surface)
    entry = Catalog.load(config.catalog).entries.get(config.segment) or SegmentEntry()
    labels, versions = _labels(config, entry, surface)
    _require_size(config, "labels", labels.shape_yx, surface, versions.uri if versions else None)
    ignore_image = open_one_layer(config.ignore.image) if config.ignore.image else None
    if ignore_image is not None:
        _require_size(config, "ignore mask", ignore_image.shape_zyx[1:], surface)
    of_catalog = (
        config.image is None and config.prediction is None and config.from_map is None
    )  # its masks belong to its labels
    given = {
        "supervision mask": config.supervision_mask or (entry.supervision_mask if of_catalog else None),
        "validation mask": config.validation_mask or (entry.validation_mask if of_catalog else None),
    }
    masks = {what: _mask(config, what, uri, surface) for what, uri in given.items()}
    if isinstance(labels, Carried):
        saw = SeenMask(labels)
        masks["supervision mask"] = Mask("papyrus that the map saw", saw, own_version(saw.uri))
    opened = LabelInputs(labels, versions, ignore_image, masks["supervision mask"], masks["validation mask"])
    who, may_be_empty = f"segment {config.segment}", config.allow_empty
    holes = counted_holes(
        who, (place.uri for place in opened.pictures.values()), config.max_missing, may_be_empty=may_be_empty
    )
    return replace(opened, holes=holes)


def _painted(config: LabelsConfig, painted: str, surface: SurfaceVolume) -> LabelInputs:
    """Open a label version; its own masks belong to it, a validation mask may be added."""
    for key in ("image", "prediction", "from_map", "white", "plane", "version", "supervision_mask"):
        if getattr(config, key) is not None:
            raise ConfigError(f"segment {config.segment}: {key} does not go with painted labels; drop one of them")
    if config.ignore.image is not None:
        raise ConfigError(f"segment {config.segment}: ignore.image does not go with painted labels; drop one of them")
    labels, ignored, counts = open_painted(config.root, config.segment, painted)
    _require_size(config, "labels", labels.shape_yx, surface)
    supervision = None if counts is None else Mask("supervision mask", counts, own_version(counts.uri))
    validation = _mask(config, "validation mask", config.validation_mask, surface)
    return LabelInputs(labels, None, ignored, supervision, validation)


def _labels(config: LabelsConfig, entry: SegmentEntry, surface: SurfaceVolume) -> tuple[LabelSource, Versions | None]:
    if config.from_map is not None:
        for key in ("image", "prediction", "supervision_mask", *NOT_WITH_MAPS):
            if getattr(config, key) is not None:
                raise ConfigError(f"segment {config.segment}: {key} does not go with from_map; drop one of them")
        named = (config.root, config.from_map, config.segment, surface)
        if config.reach_voxels is None:
            return open_carried(*named), None
        meshes = config.from_mesh, config.onto_mesh
        return open_carried_by_surface(*named, config.reach_voxels, meshes), None
    if config.image is not None and config.prediction is not None:
        raise ConfigError(f"segment {config.segment}: image and prediction are both given; choose one of them")
    if config.prediction is not None:
        for key in NOT_WITH_MAPS:
            if getattr(config, key) is not None:
                raise ConfigError(f"segment {config.segment}: {key} belongs to an image, not to a prediction; drop it")
        return PredictionLabels(open_map(config.root, config.segment, config.prediction)), None
    image = config.image or entry.ink_labels
    if image is None:
        raise ConfigError(
            f"segment {config.segment}: its ink labels are unknown; give image (a 2-D picture or a label volume) or "
            "prediction (a name), or write ink_labels into the catalog"
        )
    versions = chosen_version(image, config.version, f"segment {config.segment}, labels")
    labels = PictureLabels(versions.uri, config.white, plane=config.plane, level=config.level, cure=CURE)
    return labels, versions


def _mask(config: LabelsConfig, what: str, uri: str | None, surface: SurfaceVolume) -> Mask | None:
    """Open a mask; of a volume a pixel is marked where any plane marks it."""
    if uri is None or uri == NO_MASK:
        return None
    versions = chosen_version(uri, config.version, f"segment {config.segment}, {what}", follows=True)
    source = open_plane(versions.uri, "max", config.level if find_group(versions.uri) else None, CURE)
    source.fingerprint = content_digest(Location.parse(source.uri)) or source.fingerprint
    _require_size(config, what, source.shape_zyx[1:], surface, versions.uri)
    return Mask(what, source, versions)


def find_group(uri: str) -> bool:
    """Tell if an OME-Zarr group lies at an address."""
    place = Location.parse(uri)
    node = None if may_be_file(place) else find_node(place)
    return node is not None and not node.is_array


def _require_size(
    config: LabelsConfig, what: str, found: tuple[int, ...], surface: SurfaceVolume, uri: str | None = None
) -> None:
    if tuple(found) == surface.shape_yx:
        return
    or_level = ""
    if uri is not None and find_group(uri):
        node = find_node(Location.parse(uri))
        sizes = level_shapes(node) if node else []
        fitting = [number for number, shape in enumerate(sizes) if shape[-2:] == surface.shape_yx]
        if fitting:
            or_level = f", or set level={fitting[0]}, which has that size"
    raise DataError(
        f"segment {config.segment}: the size of its {what} is {tuple(found)}, that of the surface "
        f"{surface.shape_yx} (height, width); give those of this very surface{or_level}"
    )
