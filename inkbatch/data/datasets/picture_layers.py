"""Pictures of folder layouts as a network sees them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.ink import LAST_BARE
from inkbatch.data.labels.objects import ObjectLabels, class_labels
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.clahe import equalise
from inkbatch.io.lossy import is_lossy
from inkbatch.io.pictures.decoding import decode_image
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ClaheSettings

LOSSY_SPREAD = 8  # between the channels of grey that was saved with losses


def decode_picture(place: Location, *, in_colour: bool) -> NDArray[Any]:
    """Decode a picture: (3, Y, X) in the order R, G, B, or (Y, X) grey; uint8.

    Raises:
        DataError: It is not there, has several pages or transparent pixels, or not 8 bits.
        CorruptDataError: It cannot be decoded.
    """
    data, kept = _decoded(place, "picture")
    if kept.dtype != np.uint8:
        raise DataError(
            f"{place}: expected a picture of 8 bits, got {kept.dtype}; convert it, values are never rounded"
        )
    del kept  # memory: a picture of 20,000 × 20,000 px is 1.2 GB in colours
    mode = cv2.IMREAD_COLOR if in_colour else cv2.IMREAD_GRAYSCALE
    found = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), mode))
    return np.ascontiguousarray(found[..., ::-1].transpose(2, 0, 1)) if in_colour else found


def decode_annotation(place: Location) -> NDArray[np.uint8]:
    """Decode an annotation: (Y, X) grey, uint8.

    Raises:
        DataError: It shows colours: as grey, every one of them would count as marked. See `decode_picture`, too.
    """
    red, green, blue = decode_picture(place, in_colour=True).astype(np.int16)
    spread = max(int(np.abs(red - green).max()), int(np.abs(red - blue).max()))
    if spread > (LOSSY_SPREAD if is_lossy(place.read_bytes()) else 0):
        raise DataError(
            f"{place}: expected a grey annotation, got colours, whose meaning nothing states; save what you mean as "
            "white on black"
        )
    found: NDArray[np.uint8] = decode_picture(place, in_colour=False)
    return found


def decode_objects(place: Location, labels: ObjectLabels) -> NDArray[np.uint8]:
    """Decode an annotation of objects: (Y, X) uint8, a grey value per class.

    Raises:
        DataError: It was saved with losses, or is no grey picture of 8 or 16 bits. See `class_labels`, too.
    """
    data, values = _decoded(place, "annotation")
    if is_lossy(data) or values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
        kind = "one saved with losses" if is_lossy(data) else f"{values.shape} of {values.dtype}"
        raise DataError(
            f"{place}: expected an annotation of objects as a grey picture of 8 or 16 bits, got {kind}; save numbers "
            "as PNG or TIFF"
        )
    return class_labels(values, labels, str(place))


def _decoded(place: Location, what: str) -> tuple[bytes, NDArray[Any]]:
    """Read a file of the dataset; return its bytes and the picture as it is stored."""
    try:
        data = place.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{place}: this {what} of the dataset is missing; restore it, or build the dataset again"
        ) from error
    return data, decode_image(data, cv2.IMREAD_UNCHANGED, str(place))


def picture_layers(place: Location, *, in_colour: bool, clahe: ClaheSettings | None = None) -> NDArray[np.uint8]:
    """Read a picture as the layers that a network receives.

    Args:
        place: The file.
        in_colour: Its channels R, G, B become three layers; else one grey layer.
        clahe: Adaptive histogram equalisation of each layer, on one grid over the whole picture.

    Returns:
        (layers, Y, X).

    Raises:
        DataError: See `decode_picture`.
    """
    found = decode_picture(place, in_colour=in_colour)
    layers: NDArray[np.uint8] = found.reshape(-1, *found.shape[-2:])
    if clahe is None:
        return layers
    whole = Box(0, 0, *layers.shape[1:])
    return np.stack([equalise(layer, whole, whole, clahe) for layer in layers])


def cut_out(array: NDArray[Any], box: Box) -> NDArray[Any]:
    """Copy a box (…, Y, X) of an array that lies at (0, 0); zero-filled outside of it."""
    inside = box.intersect(Box(0, 0, *array.shape[-2:]))
    out = np.zeros((*array.shape[:-2], *box.shape), array.dtype)
    if inside.area:
        out[(..., *inside.within(box))] = array[(..., *inside.slices)]
    return out


def label_rule(annotation: Location, label_above: int | None) -> int | None:
    """Return the largest annotation value that is no label: the one that was asked for.

    Where 0 was asked for ("not 0 is a label") and the annotation was saved with losses, it is the last one below half
    of full scale, see `inkbatch.io.lossy`.
    """
    return LAST_BARE if label_above == 0 and is_lossy(annotation.read_bytes()) else label_above
