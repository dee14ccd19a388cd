"""Pages are layers only where they mean layers; what stands in a layer's place is said."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from inkbatch.errors import DataError
from inkbatch.io.layers import open_layer_source

VOLUME = np.arange(6 * 9 * 11, dtype=np.uint8).reshape(6, 9, 11)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 2), {"imagej": True, "metadata": {"axes": "ZCYX"}}),
        ((3, 2), {"imagej": True, "metadata": {"axes": "TZYX"}}),
        ((3, 2), {"ome": True, "metadata": {"axes": "ZCYX"}}),
        ((2, 3), {"ome": True, "metadata": {"axes": "TCYX"}}),
        ((2, 3), {"metadata": {"axes": "CZYX"}}),
    ],
)
def test_stacks_with_channels_or_times_are_refused(tmp_path, shape, options):
    volume = VOLUME.reshape(*shape, 9, 11)
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack", **options)
    with pytest.raises(DataError, match="3 along . ?, 2 along|3 along ., 2 along|2 along ., 3 along"):
        open_layer_source(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("axis", "ZCT")
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_one_long_axis_of_any_letter_is_depth(tmp_path, axis, kind):
    tifffile.imwrite(
        tmp_path / "a.tif", VOLUME, photometric="minisblack", metadata={"axes": f"{axis}YX"}, **{kind: True}
    )
    assert open_layer_source(str(tmp_path / "a.tif")).shape_zyx == (6, 9, 11)


def test_several_images_of_one_ome_tiff_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as writer:
        writer.write(VOLUME, photometric="minisblack", metadata={"axes": "ZYX"})
        writer.write(VOLUME[:2], photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(DataError, match="list 2"):
        open_layer_source(str(tmp_path / "a.tif"))


def layers(folder, numbers):
    for number in numbers:
        tifffile.imwrite(folder / f"{number:02d}.tif", VOLUME[0])
    return str(folder)


def test_a_folder_named_like_a_layer_is_said(tmp_path):
    (tmp_path / "03.tif").mkdir()
    with pytest.raises(DataError, match=r"'03.tif' is a folder"):
        open_layer_source(layers(tmp_path, range(3)))


@pytest.mark.parametrize("number", [0, 2])
def test_an_empty_file_in_place_of_the_first_or_last_layer_is_refused(tmp_path, number):
    source = layers(tmp_path, range(3))
    (tmp_path / f"{number:02d}.tif").write_bytes(b"")
    with pytest.raises(DataError, match=f"{number:02d}.tif"):
        open_layer_source(source)
