"""Labels of objects in three classes: background, object and the boundary between objects.

A boundary keeps objects apart that touch. It is made from a label image, in which every object has a number of its own:
the outermost pixels of each object, up to a stated width, are boundary. Stored labels hold a grey value per class.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from inkbatch.errors import DataError

CLASSES = ("background", "object", "boundary")
CLASS_GREYS = (0, 255, 128)
"""Stored label of each class: all of an object shows as ink, its boundary less."""
OBJECT_CLASS = CLASSES.index("object")
BOUNDARY_PX = 2  # width, unless a dataset states another
SHOWN = 5  # numbers that a message lists


class ObjectLabels(BaseModel):
    """Annotations that tell objects apart.

    Attributes:
        given: ``instances``: label images of 8 or 16 bits, 0 between objects, each object a number of its own.
            ``classes``: 0 background, 1 object, 2 boundary.
        boundary_px: Width of the boundary inside each object, of ``instances``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    given: Literal["instances", "classes"] = "instances"
    boundary_px: int = Field(BOUNDARY_PX, ge=1, le=50)


def class_labels(annotation: NDArray[Any], labels: ObjectLabels, place: str) -> NDArray[np.uint8]:
    """Turn an annotation into stored labels: `CLASS_GREYS`.

    Args:
        annotation: (Y, X) uint8 or uint16.
        labels: What its numbers mean.
        place: Opens the messages.

    Raises:
        DataError: Values that are no class, or an object that the boundary leaves nothing of.
    """
    greys = np.array(CLASS_GREYS, np.uint8)
    if labels.given == "instances":
        return greys[boundary_classes(annotation, labels.boundary_px, place)]
    other = sorted(set(np.unique(annotation).tolist()) - {0, 1, 2})
    if other:
        raise DataError(
            f"{place}: expected the classes 0 (background), 1 (object) and 2 (boundary), got values "
            f"{', '.join(map(str, other[:SHOWN]))}; set images.objects.given to instances if these number objects"
        )
    stored: NDArray[np.uint8] = greys[annotation]
    return stored


def boundary_classes(instances: NDArray[Any], boundary_px: int, place: str) -> NDArray[np.uint8]:
    """Part a label image into classes.

    A pixel of an object is boundary if another object or the background lies within `boundary_px` of it (a disc); the
    border of the picture is no boundary.

    Args:
        instances: (Y, X) uint8 or uint16, 0 between objects.
        boundary_px: Width of the boundary.
        place: Opens the message.

    Returns:
        (Y, X) uint8: 0 background, 1 object, 2 boundary.

    Raises:
        DataError: The boundary leaves nothing of an object; those objects are named.
    """
    offsets = np.arange(-boundary_px, boundary_px + 1)
    disc = (np.hypot(offsets[:, None], offsets) <= boundary_px).astype(np.uint8)
    inner = (cv2.erode(instances, disc) == instances) & (cv2.dilate(instances, disc) == instances) & (instances > 0)
    there, left = np.unique(instances), np.unique(instances[inner])
    eaten = np.setdiff1d(there[there > 0], left)
    if eaten.size:
        raise DataError(
            f"{place}: a boundary of {boundary_px} px leaves nothing of {eaten.size} of {np.count_nonzero(there)} "
            f"objects (numbers {', '.join(map(str, eaten[:SHOWN]))}); lower images.objects.boundary_px, or take "
            "objects out that are too small"
        )
    classes = np.where(instances > 0, np.uint8(2), np.uint8(0))
    classes[inner] = 1
    return classes
