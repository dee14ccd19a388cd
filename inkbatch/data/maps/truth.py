"""Truth that maps are compared with: ink labels inside the segment mask and outside the ignore mask, read by box."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.ink import INK_LABEL, INK_SHARE
from inkbatch.data.labels.versions import chosen_version
from inkbatch.data.maps.label_source import STATE_PLANE, PictureLabels
from inkbatch.data.segments.catalog import Catalog
from inkbatch.data.segments.prepared import SURFACE
from inkbatch.errors import ConfigError, DataError, NoLabelsError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.one_plane import open_plane
from inkbatch.io.layers.single import open_one_layer, read_mask
from inkbatch.io.layers.zarr_holes import counted_holes
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import watch
from inkbatch.run.record import require_complete
from inkbatch.run.states import contents_now, state_changes, states_of

NO_IGNORE = "none"
STATE_VERSION = "name the file of one"

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TruthChoice:
    """Choice of labels and ignore mask.

    Attributes:
        labels: A 2-D picture of the segment's size. None takes the segment's ``ink_labels.zarr``, else the catalog's
            ``ink_labels``.
        white: Stored value of `labels` that means certain ink; None is the largest one of its dtype, 1 for floats.
        ignore: A 2-D picture, non-zero where pixels do not count. None takes the segment's ``ignore_mask.zarr`` where
            there is one, and else, with the catalog's labels, what lies outside its masks; ``none`` takes none.
        catalog: The user's catalog file.
    """

    labels: str | None = None
    white: float | None = None
    ignore: str | None = None
    catalog: str | None = None


_Reader = Callable[[Box], Bools]
_Opener = Callable[[Box, ExitStack], _Reader]  # the stack closes what was opened for a box


class Truth:
    """Opened labels of a segment. Safe to read from several threads; `close` it, or use it in a ``with`` block.

    Attributes:
        shape_yx: (height, width) in pixels.
        identity: Entry of a manifest.
        place: Source of the labels, for messages.
        request: Settings that name it from any folder.
        state: Contents of mask and stored labels, and versions of pictures, for the state of a manifest.
        holes: Zarr arrays among the labels and masks that lack chunks.
        made_from: The prediction that the labels were made from, or None.
        held_bytes: Bytes per pixel that an opened box holds: pictures are read whole.
    """

    def __init__(self, root: str, segment: str, choice: TruthChoice) -> None:
        """Open labels, mask and ignore mask; their pixels are not read.

        Raises:
            NoLabelsError: No labels are known for the segment.
            ConfigError: The catalog cannot be read, or an address cannot be used.
            DataError: A source is incomplete, or of another size than the segment.
        """
        folder = Location.parse(root) / "segments" / segment
        self._sources: list[LayerSource] = []
        self._mask = _open_mask(folder, segment)
        self.shape_yx: tuple[int, int] = (self._mask.shape[0], self._mask.shape[1])
        self.made_from: str | None = None
        self.held_bytes = 0
        self.request: dict[str, Any] = {"labels": None, "ignore": choice.ignore}
        self._masks: tuple[str, ...] = ()  # of the catalog, where its labels are taken: outside of them nothing counts
        self._runs = {SURFACE: folder / "prepare"}
        self._pictures: dict[str, Location] = {}
        try:
            self.place, labels_identity, self._ink = self._labels(folder, segment, choice)
            ignored_identity, self._ignored = self._ignore(folder, choice)
            versions, self._versions_now = watch(self._pictures)
            places = (place.uri for place in self._pictures.values())
            self.holes = counted_holes(f"segment {segment}", places, most=1.0)
        except BaseException:
            self.close()
            raise
        self.state: dict[str, Any] = {**states_of(self._runs), **versions}
        self.identity: dict[str, Any] = {
            "labels": labels_identity,
            "ignore": ignored_identity,
            "mask": _digest(self._mask),
        }

    def __enter__(self) -> Truth:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def now(self) -> dict[str, Any]:
        """Take the state again, as far as that is cheap, for `RunManifest.now`."""
        known = {key: place for key, place in self._runs.items() if key in self.state}
        return {**contents_now(known), **self._versions_now()}

    def close(self) -> None:
        """Release file handles."""
        for source in self._sources:
            source.close()

    def read(self, box: Box) -> tuple[Bools, Bools]:
        """Read (ink, counted) of a box inside the segment, each boolean (box.height, box.width).

        Raises:
            CorruptDataError: A stored object is damaged.
            DataError: A label outside [0, full scale].
        """
        with self.opened(box) as read:
            return read(box)

    @contextmanager
    def opened(self, box: Box) -> Iterator[Callable[[Box], tuple[Bools, Bools]]]:
        """Open a box to be read piece by piece in the calling thread; yields `read` for boxes inside it.

        Raises:
            CorruptDataError: A stored object is damaged.
            DataError: A label outside [0, full scale].
        """
        with ExitStack() as closing:
            papyrus, ink = _stored(self._mask, _non_zero)(box, closing), self._ink(box, closing)
            ignored = None if self._ignored is None else self._ignored(box, closing)

            def read(part: Box) -> tuple[Bools, Bools]:
                counted = papyrus(part)
                if ignored is not None:
                    counted &= ~ignored(part)
                return ink(part), counted

            yield read

    def _labels(self, folder: Location, segment: str, choice: TruthChoice) -> tuple[str, Any, _Opener]:
        uri = choice.labels
        own = folder / "ink_labels.zarr"
        if uri is None and (own / "zarr.json").exists():
            if choice.white is not None:
                raise ConfigError(
                    f"segment {segment}: white belongs to a picture of labels, {own} needs none; leave it out"
                )
            return self._own_labels(folder, segment, own)
        if uri is None:
            entry = Catalog.load(choice.catalog).entries.get(segment)
            uri = entry.ink_labels if entry else None
            if entry and entry.supervision_mask:
                self._masks = tuple(mask for mask in (entry.supervision_mask, entry.validation_mask) if mask)
        if uri is None:
            raise NoLabelsError(
                f"segment {segment}: no ink labels are known; give --labels, write ink_labels into the "
                "catalog, or run inkbatch labels"
            )
        uri = chosen_version(uri, None, f"segment {segment}, labels", STATE_VERSION).uri
        picture = PictureLabels(uri, choice.white)
        self.request["labels"] = Location.parse(uri).uri
        self._pictures["picture"] = picture.picture or Location.parse(uri)
        self.held_bytes += 5  # as float32, and as flags
        self._sources.append(picture)  # type: ignore[arg-type]  # closed like one
        self._require_size(f"labels {uri}", picture.shape_yx)
        return uri, picture.identity, _at_once(lambda box: picture.read(box) >= np.float32(INK_SHARE))

    def _own_labels(self, folder: Location, segment: str, own: Location) -> tuple[str, Any, _Opener]:
        if (folder / "labels/manifest.json").exists():
            cure = f"run inkbatch labels {segment} again"
            manifest = require_complete(folder / "labels", f"segment {segment}, labels", cure)
            self.made_from = manifest.get("inputs", {}).get("source", {}).get("prediction")
            if state_changes(manifest.get("state"), states_of(self._runs)):
                raise DataError(
                    f"segment {segment}, labels: the surface has changed since they were made; run inkbatch labels "
                    f"{segment} --replace"
                )
            self._runs["labels"] = folder / "labels"
        labels = Multiscale.open(own)
        self._require_size(f"labels {own}", labels.shape)

        def ink(stored: NDArray[np.uint8]) -> Bools:
            found: Bools = np.greater_equal(stored, INK_LABEL, out=stored.view(np.bool_))
            return found

        return str(own), {"ink_labels": _digest(labels)}, _stored(labels, ink)

    def _ignore(self, folder: Location, choice: TruthChoice) -> tuple[Any, _Opener | None]:
        if choice.ignore == NO_IGNORE:
            return None, None
        own = folder / "ignore_mask.zarr"
        if choice.ignore is None:
            if not (own / "zarr.json").exists():
                return self._outside_masks() if self._masks else (None, None)
            mask = Multiscale.open(own)
            self._require_size(f"ignore mask {own}", mask.shape)
            return {"ignore_mask": _digest(mask)}, _stored(mask, _non_zero)
        source = open_one_layer(choice.ignore)
        self.held_bytes += 1 + source.dtype.itemsize
        self.request["ignore"] = Location.parse(choice.ignore).uri
        self._pictures["ignore_image"] = Location.parse(source.uri)
        self._sources.append(source)
        self._require_size(f"ignore mask {choice.ignore}", source.shape_zyx[1:])
        identity = {"uri": source.uri, "fingerprint": source.fingerprint}
        return identity, _at_once(lambda box: read_mask(source, box))

    def _outside_masks(self) -> tuple[Any, _Opener]:
        """Leave out what lies outside the catalog's supervision and validation masks."""
        places = [chosen_version(uri, None, f"mask {uri}", STATE_VERSION).uri for uri in self._masks]
        sources = [open_plane(uri, "max", None, STATE_PLANE) for uri in places]
        self._sources += sources
        names = ("supervision_mask", "validation_mask")
        self._pictures |= {name: Location.parse(one.uri) for name, one in zip(names, sources, strict=False)}
        self.held_bytes += len(sources)
        for uri, source in zip(places, sources, strict=True):
            self._require_size(f"mask {uri}", source.shape_zyx[1:])

        def outside(box: Box) -> Bools:
            inside = read_mask(sources[0], box)
            for source in sources[1:]:
                inside |= read_mask(source, box)
            return ~inside

        identity = [{"uri": source.uri, "fingerprint": source.fingerprint} for source in sources]
        return {"outside": identity}, _at_once(outside)

    def _require_size(self, what: str, found: tuple[int, ...]) -> None:
        if tuple(found) != self.shape_yx:
            raise DataError(
                f"{what}: expected {self.shape_yx} (height, width) like the segment, got {tuple(found)}; give those "
                "of this "
                "segment"
            )


def _open_mask(folder: Location, segment: str) -> Multiscale:
    place = folder / "mask.zarr"
    if not (place / "zarr.json").exists():
        raise DataError(
            f"segment {segment}: expected its mask at {place}, nothing is there; run inkbatch prepare {segment} with "
            "this "
            "ROOT first"
        )
    return Multiscale.open(place)


def _non_zero(stored: NDArray[np.uint8]) -> Bools:
    """Mark pixels that are not 0, in the memory of the mask: fresh memory costs more than the comparison."""
    found: Bools = np.not_equal(stored, 0, out=stored.view(np.bool_))
    return found


def _stored(array: Multiscale, flags: Callable[[NDArray[np.uint8]], Bools]) -> _Opener:
    """Make an opener of a stored array, decoded piece by piece."""

    def opened(box: Box, closing: ExitStack) -> _Reader:
        region = closing.enter_context(array.levels[0].opened(box.slices))
        return lambda part: flags(region.read(part.slices))

    return opened


def _at_once(read: _Reader) -> _Opener:
    """Make an opener of a source that is read whole, as a piece of it may cost as much."""

    def opened(box: Box, closing: ExitStack) -> _Reader:
        whole = read(box)
        return lambda part: whole[part.within(box)]

    return opened


def _digest(array: Multiscale) -> Any:
    """Return the provenance in an array's attributes."""
    return array.attributes["inkbatch"]
