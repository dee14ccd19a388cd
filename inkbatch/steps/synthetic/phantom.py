"""`inkbatch phantom`: real papyrus with planted ink, written as a stack of layers with its truth beside it."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from inkbatch import __version__
from inkbatch.data.maps.area import area_box
from inkbatch.data.synthetic.phantom import PhantomConfig, label_mask, papyrus_of, plant, require_fitting, truth_of
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.state import layers_state
from inkbatch.io.pictures.decoding import decode_image
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.store.ledger import make_durable, recording
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import State, state_of
from inkbatch.run.job import RunContext, begin
from inkbatch.run.objects import sealed_files
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.synthetic.made import Made

__all__ = ["PhantomConfig", "run"]

DOCUMENT = "phantom.json"
TILE_PX = 256
COMPRESSION = "zlib"  # with the horizontal predictor: 1.6 : 1 on CT noise, where LZW alone gains nothing
COMPRESSION_LEVEL = 9

BoxNumbers = tuple[int, int, int, int]


def run(config: PhantomConfig, *, replace: bool = False) -> list[str]:
    """Write a phantom segment; a phantom of the same configuration that is there already is left alone.

    Layers keep their numbers. They are read and written one by one: memory is a few planes, whatever the depth.

    Args:
        config: The settings.
        replace: Remove another phantom at the output.

    Returns:
        Lines for the user.

    Raises:
        ConfigError: A box leaves its picture, or the labels are smaller than the phantom.
        DataError: No ink falls on papyrus, an unsupported dtype, a picture of the wrong size or that cannot be read.
        MismatchError: The output holds a phantom of other settings, or of layers or letters that changed since.
        LayerRangeError: The ink's centre is outside the stack.
    """
    output = Location.parse(config.output)
    notes: list[str] = []
    with open_layer_source(config.source) as source:
        record = RunFolder(output, manifest_of(config, source))
        made = Made(record, DOCUMENT, lambda found: found.get("config") == record.manifest.config)
        other = made.other()
        if other is None and made.is_whole(notes):
            return [f"phantom: already complete at {output}, nothing to do"]
        if other is not None and not replace:
            raise other
        require_fitting(source, config)
        box = area_box(config.source_box, source.shape_zyx[1:], "phantom source_box", source.uri)
        mask = _letters(config, box)
        papyrus = _papyrus(config, source, box)
        truth = truth_of(mask, papyrus)
        if not truth.any():
            raise DataError(
                f"phantom {config.labels}: no ink would fall on papyrus in {box.height} x {box.width} px; "
                "move label_box onto letters, or check label_threshold, label_invert and the segment mask"
            )
        names = _layer_names(source)
        if other is not None:
            notes.append(_removed(output))
        _require_no_others(output / "layers", set(names.values()))
        begin(record, RunContext())
        with recording() as ledger:
            for layer, planted in plant(source, box, mask, config, papyrus):
                (output / "layers" / names[layer]).write_bytes(tiff_bytes(planted))
            (output / "truth.png").write_bytes(png_bytes(truth.astype(np.uint8) * np.uint8(255), 9))
            (output / DOCUMENT).write_json(_document(config, source, box, papyrus, truth))
        record.require_own()
        record.require_inputs()
    make_durable(ledger)
    record.complete(sealed_files(output, ledger, ()))
    size = f"{len(names)} layers of {box.height} x {box.width} px, ink on {truth.mean():.1%}"
    return [*notes, f"phantom: {size} · {output / 'layers'}", f"truth: {output / 'truth.png'}"]


def tiff_bytes(layer: NDArray[Any]) -> bytes:
    """Encode one layer as a TIFF of tiles, deflate with the horizontal predictor; equal pixels are equal bytes."""
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        layer,
        tile=(TILE_PX, TILE_PX),
        compression=COMPRESSION,
        compressionargs={"level": COMPRESSION_LEVEL},
        predictor=True,
        photometric="minisblack",
        metadata=None,
        software="inkbatch",
    )
    return buffer.getvalue()


def read_picture(uri: str) -> NDArray[np.uint8]:
    """Read a picture (PNG, JPG, TIFF, …) as 8-bit grey values (y, x).

    Raises:
        DataError: Nothing is there.
        CorruptDataError: It is no picture, or damaged.
    """
    location = Location.parse(uri)
    try:
        data = location.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{location}: expected a picture, got nothing; check the path") from error
    return decode_image(data, cv2.IMREAD_GRAYSCALE, str(location)).astype(np.uint8, copy=False)


def manifest_of(config: PhantomConfig, source: LayerSource) -> RunManifest:
    """Make the manifest of a phantom: its settings, and the state of what it is made from."""

    def states() -> dict[str, State]:
        pictures = {"labels": config.labels, "segment mask": config.segment_mask}
        places = {name: Location.parse(uri) for name, uri in pictures.items() if uri is not None}
        found = {name: state_of(place) for name, place in places.items() if place.exists()}
        return {"layers": layers_state(source), **found}

    return RunManifest("phantom", _settings(config), {}, 1, state=states(), now=states)


def _removed(output: Location) -> str:
    """Remove a phantom; the manifest goes last, so that a removal that is stopped can be finished."""
    for name in ("complete.json", DOCUMENT, "truth.png"):
        (output / name).delete()
    (output / "layers").delete_folder()
    (output / "manifest.json").delete()
    return f"--replace: removed the phantom that was at {output}"


def _settings(config: PhantomConfig) -> dict[str, Any]:
    """Dump the settings that decide the content, as ``phantom.json`` keeps them."""
    return config.model_dump(mode="json", exclude={"output"})


def _letters(config: PhantomConfig, box: Box) -> NDArray[np.float32]:
    picture = read_picture(config.labels)
    height, width = picture.shape
    crop = area_box(config.label_box, (height, width), "phantom label_box", config.labels)
    return label_mask(
        picture[crop.slices],
        box.shape,
        scale=config.label_scale,
        threshold=config.label_threshold,
        invert=config.label_invert,
        edge_px=config.edge_px,
    )


def _papyrus(config: PhantomConfig, source: LayerSource, box: Box) -> NDArray[np.bool_]:
    if config.segment_mask is None:
        return papyrus_of(source, box)
    picture = read_picture(config.segment_mask)
    if picture.shape != source.shape_zyx[1:]:
        raise DataError(
            f"{config.segment_mask}: the segment mask is {picture.shape}, the layers of {source.uri} are "
            f"{source.shape_zyx[1:]} (height, width); give the mask of this very surface"
        )
    papyrus: NDArray[np.bool_] = picture[box.slices] != 0
    return papyrus


def _layer_names(source: LayerSource) -> dict[int, str]:
    last = source.first_layer + source.shape_zyx[0] - 1
    width = max(2, len(str(last)))
    return {layer: f"{layer:0{width}d}.tif" for layer in range(source.first_layer, last + 1)}


def _require_no_others(folder: Location, names: set[str]) -> None:
    others = sorted(set(folder.names()) - names)
    if others:
        raise ConfigError(
            f"phantom {folder}: holds {others[0]!r}, which this phantom would not write; they would be read as layers; "
            "choose another output, or remove that folder"
        )


def _document(
    config: PhantomConfig, source: LayerSource, box: Box, papyrus: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> dict[str, Any]:
    return {
        "inkbatch": __version__,
        "config": _settings(config),
        "shape_zyx": [source.shape_zyx[0], *box.shape],
        "dtype": source.dtype.name,
        "first_layer": source.first_layer,
        "ink_share": round(float(truth.mean()), 6),
        "papyrus_share": round(float(papyrus.mean()), 6),
    }
