"""Boxes of a dataset that are not written into its YAML: from a COCO file, or around ink components."""

from __future__ import annotations

from collections.abc import Mapping

from inkbatch.data.datasets.coco import draw_boxes, read_coco, write_box_list, write_coco
from inkbatch.data.datasets.ink_boxes import BoxRules, InkBox, find_boxes
from inkbatch.data.datasets.sampling import Boxes, InkBoxes, Sampling
from inkbatch.errors import DataError, MismatchError
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.text import near_matches


def with_all_boxes(
    sampling: Sampling, shapes: Mapping[str, tuple[int, int]], labels: Mapping[str, Multiscale]
) -> tuple[Sampling, InkBoxes]:
    """Write out every box of a sampling, so that nothing more must be read.

    Args:
        sampling: Any; others than boxes come back as they are.
        shapes: (height, width) of each segment.
        labels: ``ink_labels.zarr`` of each prepared segment, for boxes around ink.

    Returns:
        The sampling with all its boxes, and the boxes around ink by segment id.

    Raises:
        DataError: A COCO file that cannot be read or names a picture that is no segment; no component that fits.
        MismatchError: A picture of another size than its segment.
    """

    def around_ink(rules: BoxRules) -> InkBoxes:
        if not labels:
            raise DataError("sampling: boxes around ink need prepared segments with ink labels; pictures have none")
        return {name: find_boxes(array, rules) for name, array in labels.items()}

    return sampling.written_out(lambda place: _from_coco(Location.parse(place), shapes), around_ink)


def write_ink_boxes(folder: Location, around: Mapping[str, list[InkBox]], labels: Mapping[str, Multiscale]) -> None:
    """Write the boxes around ink of each segment: COCO JSON, a text list, and a picture with the boxes drawn."""
    for name, boxes in around.items():
        write_coco(folder / f"{name}.json", f"{name}.png", (labels[name].shape[0], labels[name].shape[1]), boxes)
        write_box_list(folder / f"{name}.txt", boxes)
        draw_boxes(folder / f"{name}.png", labels[name], boxes)


def _from_coco(place: Location, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Boxes]:
    try:
        images = read_coco(place)
    except FileNotFoundError as error:
        raise DataError(f"{place}: expected a COCO file, nothing is there; check sampling.coco") from error
    found: dict[str, Boxes] = {}
    for image in images:
        name = image.file_name.rsplit("/", 1)[-1].rpartition(".")[0] or image.file_name
        if name not in shapes:
            raise DataError(
                f"{place}: its picture {image.file_name!r} is no segment of this dataset"
                f"{near_matches(name, list(shapes))}; add the segment, or take the picture out of the file"
            )
        if image.shape_yx != shapes[name]:
            raise MismatchError(
                f"{place}: its picture {image.file_name!r} is {image.shape_yx}, the segment is {shapes[name]} "
                "(height, width); draw the boxes on a picture of full size"
            )
        rows = tuple((a.box.y0, a.box.x0, a.box.y1, a.box.x1) for a in image.annotations)
        found[name] = found.get(name, ()) + rows
    return found
