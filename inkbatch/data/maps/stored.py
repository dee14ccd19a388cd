"""Finished predictions by name or address, and the checks before two of them are combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.data.segments.prepared import SURFACE, require_same_surface
from inkbatch.errors import ConfigError, IncompleteError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.pictures.tones import half_codes
from inkbatch.io.prediction import Prediction
from inkbatch.io.shards.reading import Region
from inkbatch.io.store.location import Location
from inkbatch.run.record import require_complete
from inkbatch.run.states import contents_now


@dataclass(frozen=True)
class StoredMap:
    """A finished prediction.

    Attributes:
        name: As the user wrote it: a name, or an address.
        folder: Its folder.
        prediction: The opened map.
        manifest: Its run's manifest.
        facts: Content of its ``complete.json``.
    """

    name: str
    folder: Location
    prediction: Prediction
    manifest: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def segment(self) -> str:
        """The segment that it is a map of."""
        return str(self.manifest.get("config", {}).get("segment"))

    @property
    def digest(self) -> str:
        """Digest of its manifest."""
        return str(self.manifest["digest"])

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.prediction.shape_yx

    @property
    def pixel_um(self) -> float:
        """Edge of a pixel in micrometres."""
        return self.prediction.pyramid.pixel_um()

    @property
    def holds_ranks(self) -> bool:
        """True if its values are ranks or z-scores instead of probabilities."""
        return self.manifest.get("config", {}).get("method") in ("ranks", "zscore")

    @property
    def threshold(self) -> float | None:
        """The threshold that goes with it: fitted with its weights, or stated by its bundle."""
        found = self.facts.get("threshold")
        if found is None:
            found = self.manifest.get("config", {}).get("contract", {}).get("threshold")
        return None if found is None else float(found)

    @property
    def threshold_fitted_on(self) -> str | None:
        """Origin of its bundle's threshold, in words; None if it is not known."""
        if self.facts.get("threshold") is not None:
            return None
        found = self.manifest.get("config", {}).get("contract", {}).get("threshold_fitted_on")
        return None if found is None else str(found)

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """The part that was inferred, y0, x0, y1, x1, of a quick look; None of whole maps."""
        found = self.manifest.get("config", {}).get("box")
        return None if found is None else (int(found[0]), int(found[1]), int(found[2]), int(found[3]))

    @property
    def trained_on(self) -> TrainedPixels:
        """Pixels that trained the network that made it, or one of its members' networks."""
        return TrainedPixels.of(self.manifest.get("inputs", {}).get("trained_on", {}))

    @property
    def warnings(self) -> list[str]:
        """Reasons not to trust the network that made it, found when that was imported."""
        return [str(text) for text in self.manifest.get("inputs", {}).get("warnings", ())]

    @property
    def content(self) -> str | None:
        """Digest of what is stored; None where an older version made it."""
        found = self.facts.get("content")
        return str(found) if found else None

    @property
    def surface(self) -> str | None:
        """Content digest of the surface that it was made from, if it is known."""
        found = self.manifest.get("state", {}).get(SURFACE)
        return str(found) if found else None

    @property
    def identity(self) -> dict[str, Any]:
        """Entry of a manifest."""
        return {"name": self.folder.name, "digest": self.digest}

    def codes(self, box: Box) -> NDArray[np.uint16]:
        """Read a box's stored values as whole numbers; see `inkbatch.io.pictures.tones.half_codes`."""
        return half_codes(self.prediction.read(box), str(self.folder))

    def opened(self, box: Box) -> Region:
        """Open a box of the map, to be decoded piece by piece and closed."""
        return self.prediction.pyramid.levels[0].opened(box.slices)

    def codes_of(self, region: Region, box: Box) -> NDArray[np.uint16]:
        """Decode codes from an open box, in the calling thread; see `codes`."""
        return half_codes(region.read(box.slices), str(self.folder))


def open_map(root: str, segment: str, name: str | None = None) -> StoredMap:
    """Open a finished prediction of a segment.

    Args:
        root: ROOT.
        segment: Segment id.
        name: Its name under ``ROOT/predictions/{segment}``, an address (with a ``/``), or None for the only one.

    Raises:
        ConfigError: No name is given and there are several.
        IncompleteError: It is not there, or not complete.
        MismatchError: It is a map of another segment.
    """
    folder = map_folder(root, segment, name)
    shown = name or folder.name
    place = f"prediction {segment}/{shown}" if "/" not in shown else f"prediction {shown}"
    manifest = require_complete(folder, place, "run the job that makes it again until it says complete")
    found = StoredMap(shown, folder, Prediction.open(folder), manifest, (folder / "complete.json").read_mapping())
    if found.segment != segment:
        raise MismatchError(
            f"{place}: expected a map of segment {segment}, got one of {found.segment}; name predictions of one segment"
        )
    if folder.parent == Location.parse(root) / "predictions" / segment:
        job = str(manifest.get("job", "infer"))
        require_same_surface(
            root, segment, manifest.get("state"), place, f"make it again: inkbatch {job} with --replace"
        )
    return found


def maps_state(maps: Sequence[StoredMap]) -> dict[str, Any]:
    """Return the contents of some maps, and the surface that all of them were made from, for a manifest's state."""
    state: dict[str, Any] = {f"prediction {one.folder.name}": one.content for one in maps if one.content}
    surfaces = {one.surface for one in maps}
    if len(surfaces) == 1 and None not in surfaces:
        state[SURFACE] = surfaces.pop()
    return state


def warnings_of(maps: Sequence[StoredMap]) -> dict[str, Any]:
    """Return the entry of a manifest's inputs that hands maps' warnings on to its page; empty where none has one."""
    texts = [f"{text} (map {one.folder.name})" for one in maps for text in one.warnings]
    return {"warnings": texts} if texts else {}


def maps_now(maps: Sequence[StoredMap]) -> dict[str, str | None]:
    """Return the contents of some maps as they are now, for `RunManifest.now`."""
    return contents_now({f"prediction {one.folder.name}": one.folder for one in maps if one.content})


def map_folder(root: str, segment: str, name: str | None) -> Location:
    """Return ``ROOT/predictions/{segment}/{name}``, or the address that `name` is; None takes the only prediction."""
    folder = Location.parse(root) / "predictions" / check_segment_id(segment)
    if name is not None:
        return Location.parse(name) if "/" in name else _known(folder, segment, name)
    names = _names(folder)
    if not names:
        raise IncompleteError(f"segment {segment}: no prediction in {folder}; run inkbatch infer first")
    if len(names) > 1:
        raise ConfigError(
            f"segment {segment}: expected one prediction, got {len(names)}; choose with --name "
            f"{' or --name '.join(names)}"
        )
    return folder / names[0]


def map_address(name: str) -> str:
    """Return a name that is valid from any folder: the prediction's name, or an absolute path or URI."""
    return Location.parse(name).uri if "/" in name else name


def require_one_grid(maps: Sequence[StoredMap]) -> None:
    """Refuse maps that do not lie on one grid.

    Raises:
        MismatchError: Their sizes or pixels differ; both are named.
    """
    first = maps[0]
    for other in maps[1:]:
        if other.shape_yx != first.shape_yx:
            raise MismatchError(
                f"prediction {other.name}: expected {_size(first)} (height × width) like {first.name}, got "
                f"{_size(other)}; "
                "infer them from one surface"
            )
        if other.pixel_um != first.pixel_um:
            raise MismatchError(
                f"prediction {other.name}: expected pixels of {first.pixel_um:g} µm like {first.name}, got "
                f"{other.pixel_um:g} µm; "
                "infer them from one surface"
            )


def _known(folder: Location, segment: str, name: str) -> Location:
    place = folder / name
    if not (place / "manifest.json").exists():
        names = _names(folder)
        cure = f"available: {', '.join(names)}" if names else "there is no prediction, run inkbatch infer first"
        raise IncompleteError(f"prediction {segment}/{name}: nothing at {place}; {cure}")
    return place


def _names(folder: Location) -> list[str]:
    return [name for name in folder.names() if (folder / name / "manifest.json").exists()]


def _size(found: StoredMap) -> str:
    return f"{found.shape_yx[0]} × {found.shape_yx[1]} px"
