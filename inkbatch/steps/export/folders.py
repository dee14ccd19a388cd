"""`inkbatch export-folders`: predictions of one segment as the folders that the tools for Scroll 5 read and write.

::

    TO/npy_files/segmentation_layer_5.npy         float32 (height, width), probability; every .npy here is averaged
    TO/visualizations/segmentation_layer_5.png    8 bits
    TO/run_metadata.json

5 is the first layer of the window; a prediction that has none (an ensemble) is named by its own name instead. What was
found about these tools, and what is assumed, stands in docs/ensembles.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from inkbatch.config import JobConfig, parse_bytes
from inkbatch.data.maps.stored import StoredMap, open_map, require_one_grid
from inkbatch.errors import ConfigError, DataError
from inkbatch.io.pictures.bands import MapView
from inkbatch.io.pictures.export import Picture, PictureFormat, band_rows, write_picture
from inkbatch.io.pictures.tones import ToneMap
from inkbatch.io.store.location import Location
from inkbatch.steps.export.picture import display_of
from inkbatch.text import seconds_text

ARRAYS, PICTURES, METADATA = "npy_files", "visualizations", "run_metadata.json"
STEM = "segmentation_layer"


class ExportFoldersConfig(JobConfig):
    """Settings of `inkbatch export-folders`.

    Attributes:
        segment: Segment id.
        predictions: Names or addresses of finished predictions, one per layer window.
        to: The folder; its `npy_files` must hold nothing else, for their viewer averages all files in it.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        memory: Memory budget of the process.
        scratch: Local folder for files on their way to an object store; None takes the system's.
    """

    spelled: ClassVar[Mapping[str, str]] = {"predictions": "--prediction"}

    segment: str
    predictions: tuple[str, ...] = Field(min_length=1)
    to: str
    root: str = "root"
    memory: str = "2GiB"
    scratch: str | None = None


@dataclass(frozen=True)
class ExportFoldersReport:
    """Report of what was written.

    Attributes:
        location: The folder.
        stems: Names of the files without their endings.
        seconds: Wall-clock seconds.
    """

    location: Location
    stems: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"export-folders: {', '.join(self.stems)} · {seconds_text(self.seconds)} · {self.location}"


def run(config: ExportFoldersConfig) -> ExportFoldersReport:
    """Write the folders; each file is there whole, or not at all, and the metadata come last.

    Raises:
        ConfigError: Two predictions would get one name, or the memory budget is too small.
        DataError: A prediction is not there, not complete, or damaged; the folder holds arrays of something else.
        MismatchError: Predictions on different grids.
        StorageError: Reading or writing failed again after retries.
    """
    started = time.perf_counter()
    maps = [open_map(config.root, config.segment, name) for name in config.predictions]
    require_one_grid(maps)
    stems = [_stem(found) for found in maps]
    _require_apart(config, maps, stems)
    target = Location.parse(config.to)
    strangers = sorted(set((target / ARRAYS).names()) - {f"{stem}.npy" for stem in stems})
    if strangers:
        raise DataError(
            f"{target / ARRAYS}: holds {', '.join(strangers[:3])}, too, which would be averaged with this; choose an "
            "empty folder"
        )
    memory = parse_bytes(config.memory)
    files = [
        (picture, target / folder / f"{stem}.{picture.format}")
        for found, stem in zip(maps, stems, strict=True)
        for folder, picture in ((ARRAYS, _picture(found, "npy")), (PICTURES, _picture(found, "png")))
    ]
    for picture, _ in files:
        band_rows(picture, memory)  # refuses before anything is made
    for picture, place in files:
        write_picture(picture, place, memory, config.scratch)
    (target / METADATA).write_json(_metadata(config, maps))
    return ExportFoldersReport(target, tuple(stems), time.perf_counter() - started)


def window_of(found: StoredMap) -> tuple[int, int] | None:
    """Return a prediction's layer window, half-open, in depth order; None if it has none of its own."""
    layers: Any = found.manifest.get("config", {}).get("layers")
    if isinstance(layers, list) and len(layers) == 2 and all(isinstance(number, int) for number in layers):
        return layers[0], layers[1]
    return None


def _stem(found: StoredMap) -> str:
    window = window_of(found)
    return f"{STEM}_{window[0]}" if window else f"segmentation_{found.folder.name}"


def _require_apart(config: ExportFoldersConfig, maps: list[StoredMap], stems: list[str]) -> None:
    for own, stem in enumerate(stems):
        if stem in stems[:own]:
            raise ConfigError(
                f"export-folders {config.segment}: {maps[stems.index(stem)].name} and {maps[own].name} would both be "
                f"{stem}; export them to folders of their own"
            )


def _picture(found: StoredMap, kind: PictureFormat) -> Picture:
    dtype = np.dtype(np.float32 if kind == "npy" else np.uint8)
    rounding, _ = display_of(found.manifest)
    return Picture(MapView.of(found.prediction.pyramid), ToneMap(dtype, rounding=rounding), kind)


def _metadata(config: ExportFoldersConfig, maps: list[StoredMap]) -> dict[str, Any]:
    """Make the content of their ``run_metadata.json``, as far as it is known; layers are inclusive there."""
    windows = [window_of(found) for found in maps]
    known = [window for window in windows if window is not None]
    return {
        "fragment_path": config.segment,
        "overall_start_layer": min((start for start, _ in known), default=None),
        "overall_end_layer": max((start for start, _ in known), default=None),
        "windows": [{"start_layer": start, "end_layer": stop - 1} for start, stop in known],
        "completed": True,
        "inkbatch": [found.identity for found in maps],
    }
