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
from inkbatch.io.pictures.decoding import decode_image
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.store.location import Location

__all__ = ["PhantomConfig", "run"]

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
        ConfigError: A box leaves its picture, the labels are smaller than the phantom, or the output holds another one.
        DataError: No ink falls on papyrus, an unsupported dtype, a picture of the wrong size or that cannot be read.
        LayerRangeError: The ink's centre is outside the stack.
    """
    output = Location.parse(config.output)
    other = _other(config, output, replace)
    if other is None:
        return [f"phantom: already complete at {output}, nothing to do"]
    with open_layer_source(config.source) as source:
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
        _require_no_others(output / "layers", set(names.values()))
        for layer, planted in plant(source, box, mask, config, papyrus):
            (output / "layers" / names[layer]).write_bytes(tiff_bytes(planted))
        (output / "truth.png").write_bytes(png_bytes(truth.astype(np.uint8) * np.uint8(255), 9))
        document = _document(config, source, box, papyrus, truth)
    (output / "phantom.json").write_json(document)
    size = f"{len(names)} layers of {box.height} x {box.width} px, ink on {truth.mean():.1%}"
    return [f"phantom: {size} · {output / 'layers'}{other}", f"truth: {output / 'truth.png'}"]


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


def _other(config: PhantomConfig, output: Location, replace: bool) -> str | None:
    """Make way for a phantom; return a word on another one that was removed; None where this very one is there."""
    try:
        found = (output / "phantom.json").read_mapping()
    except FileNotFoundError:
        return ""
    if found.get("config") == _settings(config):
        return None
    if not replace:
        raise ConfigError(
            f"phantom {output}: another phantom is there already (its phantom.json differs); "
            "choose another output, or give --replace, which removes what is there"
        )
    (output / "phantom.json").delete()  # first: without it nothing is taken for complete
    (output / "layers").delete_folder()
    return " (--replace: removed the phantom that was there)"


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
