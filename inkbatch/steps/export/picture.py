"""`inkbatch export`: a prediction becomes a picture file that other programs open."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from inkbatch.config import JobConfig, parse_bytes
from inkbatch.data.maps.area import area_box
from inkbatch.data.maps.stored import open_map
from inkbatch.data.segments.catalog import Catalog
from inkbatch.errors import ConfigError
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.bands import Flip, MapView
from inkbatch.io.pictures.export import ENDINGS, Picture, PictureFormat, band_rows, write_picture
from inkbatch.io.pictures.scale_bar import BarLength, ScaleBar
from inkbatch.io.pictures.tones import Rounding, ToneMap
from inkbatch.io.store.location import Location
from inkbatch.text import bytes_text, seconds_text


class ExportConfig(JobConfig):
    """Settings of `inkbatch export`.

    A picture value is ``round(p * 255)`` or ``round(p * 65535)`` of the stored probability p; NPY keeps the stored
    float16.

    Attributes:
        segment: Segment id.
        name: Name of the prediction; None takes the only one.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        to: File to write (its ending chooses the format), or a folder (one that is there, or with a ``/`` at the end),
            where the file gets its usual name; None is the prediction's own folder.
        format: ``tif``, ``png``, ``jpg`` or ``npy``; None follows the ending of `to`, else ``tif``.
        level: Pyramid level; 0 is full size, each further one halves it.
        crop: Part of the map as y0, x0, y1, x1 in full-resolution pixels, half-open; at a coarser level every pixel
            that it touches. Taken before the map is mirrored.
        flip: ``x`` mirrors left and right, ``y`` top and bottom, ``xy`` both.
        threshold: Probability from which (inclusive) a pixel is ink: 255, and 0 elsewhere, 8 bits in every format. JPG
            blurs the edges.
        boost: Factor of the probability, capped at 1; for faint ink.
        stretch: Show the display range that the map's network states from black to white, instead of 0 to 1.
        rounding: To the ``nearest``, or ``truncate``; None is what the map's network states, else the nearest.
        bits: 8 or 16 per pixel (PNG, TIFF); None is 8.
        bigtiff: Write BigTIFF whatever the size; above 4 GB of pixels it is always BigTIFF.
        quality: JPG quality.
        scale_bar: Draw a bar of ``1cm`` or ``1mm`` at the lower left; None draws none.
        memory: Memory budget of the process.
        scratch: Local folder for a file on its way to an object store; None takes the system's.
        catalog: The user's catalog, for the sample's name.
    """

    segment: str
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    root: str = "root"
    to: str | None = None
    format: PictureFormat | None = None
    level: int = Field(0, ge=0)
    crop: tuple[int, int, int, int] | None = None
    flip: Flip = "none"
    threshold: float | None = Field(None, gt=0, le=1)
    boost: float = Field(1.0, gt=0, allow_inf_nan=False)
    stretch: bool = False
    rounding: Rounding | None = None
    bits: Literal[8, 16] | None = None
    bigtiff: bool = False
    quality: int = Field(90, ge=1, le=100)
    scale_bar: BarLength | None = None
    memory: str = "2GiB"
    scratch: str | None = None
    catalog: str | None = None


@dataclass(frozen=True)
class ExportReport:
    """Report of what was written.

    Attributes:
        location: The file.
        format: Its kind.
        shape_yx: (height, width) in pixels.
        dtype: numpy dtype name of its values.
        bytes_written: Size of the file.
        seconds: Wall-clock seconds.
    """

    location: Location
    format: PictureFormat
    shape_yx: tuple[int, int]
    dtype: str
    bytes_written: int
    seconds: float

    def __str__(self) -> str:
        height, width = self.shape_yx
        return (
            f"export: {width} × {height} px (width × height), {self.dtype} · {bytes_text(self.bytes_written)} · "
            f"{seconds_text(self.seconds)} · {self.location}"
        )


def run(config: ExportConfig) -> ExportReport:
    """Write a prediction as a picture file; the file is there whole, or not at all.

    Raises:
        ConfigError: Settings that contradict each other, do not fit the prediction, the format or the memory budget.
        DataError: The prediction is not there, not complete, or damaged.
        StorageError: Reading or writing failed again after retries.
    """
    started = time.perf_counter()
    kind = _format(config)
    found = open_map(config.root, config.segment, config.name)
    tones = _tones(config, kind, found.manifest)
    folder, manifest, pyramid = found.folder, found.manifest, found.prediction.pyramid
    place = f"prediction {config.segment}/{folder.name}"
    view = _view(config, pyramid, place)
    picture = Picture(
        view=view,
        tones=tones,
        format=kind,
        bigtiff=config.bigtiff,
        quality=config.quality,
        pixel_um=pyramid.pixel_um(config.level),
        note=_note(config, folder.name, manifest, pyramid.pixel_um(config.level)),
        bar=_bar(config, kind, pyramid.pixel_um(config.level), view.shape_yx),
    )
    memory = parse_bytes(config.memory)
    band_rows(picture, memory)  # refuses before anything is made
    target = _target(config, folder, manifest, kind)
    size = write_picture(picture, target, memory, config.scratch)
    seconds = time.perf_counter() - started
    return ExportReport(target, kind, picture.view.shape_yx, tones.dtype.name, size, seconds)


def picture_name(
    manifest: Mapping[str, Any], segment: str, prediction: str, sample: str | None = None, details: str = ""
) -> str:
    """Name a picture as the field does: ``{sample}-{segment}-{volume}-{model}-tile{t}-stride{s}{details}``.

    What is not known is left out. Sample and volume are taken from the manifest's inputs where it states them.

    Args:
        manifest: The prediction's manifest.
        segment: Segment id.
        prediction: Name of the prediction; stands for a model that the manifest does not name.
        sample: Name of the sample, as the catalog has it.
        details: What sets this picture apart, for example ``-level2``.
    """
    found = named_facts(manifest, sample)
    parts = [found.get("sample"), segment, found.get("volume"), found.get("model") or prediction]
    parts += [f"{word}{found[word]}" for word in ("tile", "stride") if word in found]
    return "-".join(re.sub(r"[^A-Za-z0-9._-]+", "_", str(part)) for part in parts if part) + details


def _format(config: ExportConfig) -> PictureFormat:
    ending = _ending(config.to)
    if ending is None or config.to is None:
        return config.format or "tif"
    if config.format and ENDINGS[ending] != config.format:
        raise ConfigError(f"export: to {config.to!r} ends in {ending}, format is {config.format}; give one of them")
    return ENDINGS[ending]


def _ending(to: str | None) -> str | None:
    """Return the ending of the file to write; None if `to` names a folder or nothing."""
    if to is None or to.endswith("/"):
        return None
    found = re.search(r"\.[A-Za-z0-9]+$", to)
    ending = found.group().lower() if found else ""
    if ending in ENDINGS:
        return ending
    if Location.parse(to).is_folder():
        return None
    raise ConfigError(
        f"export: to {to!r} is no folder and has no known ending; end it in {', '.join(ENDINGS)}, or in / for a folder"
    )


def display_of(manifest: Mapping[str, Any]) -> tuple[Rounding, tuple[float, float]]:
    """Find the display rules of a map's network: rounding, and the probabilities shown as black and white."""
    contract = manifest.get("config", {}).get("contract", {})
    black, white = contract.get("display_range", (0.0, 1.0))
    return contract.get("export_rounding", "nearest"), (black, white)


def _tones(config: ExportConfig, kind: PictureFormat, manifest: Mapping[str, Any]) -> ToneMap:
    if config.threshold is not None and config.boost != 1:
        raise ConfigError(
            f"export: threshold {config.threshold} is a probability, boost {config.boost} changes it; give one of them "
            f"(threshold {config.threshold / config.boost:.4g} does the same without boost)"
        )
    if config.bits == 16 and (config.threshold is not None or kind == "jpg"):
        finding = "JPG has 8" if config.threshold is None else "a threshold gives 8"
        raise ConfigError(f"export: expected 16 bits per pixel, but {finding}; leave bits out")
    if config.bits is not None and kind == "npy":
        raise ConfigError("export: NPY keeps the stored float16 (uint8 with a threshold); leave bits out")
    rounding, shown = display_of(manifest)
    if config.stretch and (config.threshold is not None or config.boost != 1 or shown == (0, 1)):
        reason = "threshold and boost exclude it" if shown != (0, 1) else "the map's network states no display range"
        raise ConfigError(f"export: stretch is not available: {reason}; leave stretch out")
    how: dict[str, Any] = {"rounding": config.rounding or rounding}
    if config.stretch:
        how["display_range"] = shown
    if config.threshold is not None:
        return ToneMap(np.dtype(np.uint8), threshold=config.threshold)
    if kind == "npy":
        return ToneMap(np.dtype(np.float16), config.boost, **how)
    return ToneMap(np.dtype(np.uint16 if config.bits == 16 else np.uint8), config.boost, **how)


def _view(config: ExportConfig, pyramid: Multiscale, place: str) -> MapView:
    if config.level >= len(pyramid.levels):
        raise ConfigError(f"{place}: expected a level from 0 to {len(pyramid.levels) - 1}, got {config.level}")
    view = MapView.of(pyramid, config.level, config.flip)
    if config.crop is None:
        return view
    height, width = pyramid.shape
    box = area_box(config.crop, (height, width), f"{place}: crop", "the map")
    return MapView(view.array, box.downscale(2**config.level), config.flip)


def _bar(config: ExportConfig, kind: PictureFormat, pixel_um: float, shape_yx: tuple[int, int]) -> ScaleBar | None:
    if config.scale_bar is None:
        return None
    if kind == "npy":
        raise ConfigError("export: NPY holds values, not a picture; leave scale_bar out")
    return ScaleBar.fitting(config.scale_bar, pixel_um, shape_yx)


def _details(config: ExportConfig) -> dict[str, Any]:
    """Name what sets this picture apart from the whole map at full size with 8 bits."""
    found: dict[str, Any] = {}
    if config.level:
        found["level"] = config.level
    if config.crop:
        found["crop"] = list(config.crop)
    if config.flip != "none":
        found["flip"] = config.flip
    if config.threshold is not None:
        found["threshold"] = config.threshold
    if config.boost != 1:
        found["boost"] = config.boost
    if config.stretch:
        found["stretch"] = 1
    if config.rounding is not None:
        found["rounding"] = config.rounding
    if config.bits == 16:
        found["bits"] = 16
    if config.scale_bar is not None:
        found["bar"] = config.scale_bar
    return found


def _note(config: ExportConfig, name: str, manifest: Mapping[str, Any], pixel_um: float) -> str:
    """Describe the picture, as JSON in ASCII: what its name says, the size of a pixel, and the map's digest."""
    entry = Catalog.load(config.catalog).entries.get(config.segment)
    known = named_facts(manifest, entry.sample if entry else None)
    facts = {"segment": config.segment, "prediction": name, "digest": manifest.get("digest"), "pixel_um": pixel_um}
    return json.dumps({**known, **facts, **_details(config)}, sort_keys=True)


def named_facts(manifest: Mapping[str, Any], sample: str | None) -> dict[str, Any]:
    """Collect what a manifest states of sample, volume, network, tile and stride; what is unknown is left out."""
    inputs = manifest.get("inputs", {})
    contract = manifest.get("config", {}).get("contract", {})
    found = {"sample": inputs.get("sample") or sample, "volume": inputs.get("volume"), "model": inputs.get("bundle")}
    if inputs.get("bundle"):
        found |= {"tile": contract.get("tile_px"), "stride": contract.get("stride_px")}
    return {key: value for key, value in found.items() if value}


def _target(config: ExportConfig, folder: Location, manifest: Mapping[str, Any], kind: PictureFormat) -> Location:
    if config.to is not None and _ending(config.to) is not None:
        return Location.parse(config.to)
    details = _details(config)
    words = [key + "_".join(str(part) for part in np.atleast_1d(value)) for key, value in details.items()]
    if config.to is not None and folder.name != _usual_name(manifest):
        words.insert(0, folder.name)  # in a folder for many, predictions of one model must not meet
    entry = Catalog.load(config.catalog).entries.get(config.segment)
    tail = "".join(f"-{word}" for word in words)
    name = picture_name(manifest, config.segment, folder.name, entry.sample if entry else None, tail)
    return (Location.parse(config.to) if config.to is not None else folder) / f"{name}.{kind}"


def _usual_name(manifest: Mapping[str, Any]) -> str:
    """Return the name that `inkbatch infer` gives a prediction by itself."""
    contract = manifest.get("config", {}).get("contract", {})
    return f"{manifest.get('inputs', {}).get('bundle')}-tile{contract.get('tile_px')}-stride{contract.get('stride_px')}"
