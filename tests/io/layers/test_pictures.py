"""Single pictures, and folders where more lies than layers."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source


def written(folder: Path, kind: str, pixels: np.ndarray) -> Path:
    path = folder / f"picture.{kind}"
    if kind.startswith("tif"):
        options = {"tif": {"rowsperstrip": 8}, "tiff": {"tile": (16, 32), "compression": "zlib", "predictor": 2}}[kind]
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)
    else:
        path.write_bytes(imagecodecs.png_encode(pixels) if kind == "png" else imagecodecs.jpeg_encode(pixels, 95))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", ["tif", "tiff", "png"])
def test_a_grey_picture_is_one_layer(tmp_path: Path, make_grey, kind, dtype) -> None:
    pixels = make_grey(dtype, (61, 83))
    with open_layer_source(str(written(tmp_path, kind, pixels))) as source:
        assert source.shape_zyx == (1, 61, 83)
        np.testing.assert_array_equal(source.read(range(1), Box(3, 4, 50, 60))[0], pixels[3:50, 4:60])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", ["tif", "tiff", "png"])
def test_channels_of_an_rgb_picture_are_its_layers(tmp_path: Path, make_grey, kind, dtype) -> None:
    pixels = np.ascontiguousarray(np.moveaxis(make_grey(dtype, (3, 61, 83)), 0, -1))
    with open_layer_source(str(written(tmp_path, kind, pixels))) as source:
        assert source.shape_zyx == (3, 61, 83)
        block = source.read(range(1, 3), Box(3, 4, 50, 60))
        np.testing.assert_array_equal(block, np.moveaxis(pixels, -1, 0)[1:3, 3:50, 4:60])


def test_channels_stored_one_after_the_other_are_layers_too(tmp_path: Path, make_grey) -> None:
    pixels = make_grey("uint8", (3, 61, 83))
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="rgb", planarconfig="separate", compression="lzw", rowsperstrip=8
    )
    with open_layer_source(str(tmp_path / "a.tif")) as source:
        np.testing.assert_array_equal(source.read(range(3), Box(3, 4, 50, 60)), pixels[:, 3:50, 4:60])


@pytest.mark.parametrize("samples", [1, 3])
def test_a_jpg_gives_what_its_decoder_gives(tmp_path: Path, make_grey, samples) -> None:
    pixels = (
        make_grey("uint8", (61, 83)) if samples == 1 else np.moveaxis(make_grey("uint8", (3, 61, 83)), 0, -1).copy()
    )
    path = written(tmp_path, "jpg", pixels)
    decoded = imagecodecs.jpeg_decode(path.read_bytes())
    with open_layer_source(str(path)) as source:
        block = source.read(range(samples), Box(0, 0, 61, 83))
    np.testing.assert_array_equal(block, decoded[None] if samples == 1 else np.moveaxis(decoded, -1, 0))


@pytest.mark.parametrize("root", ["s3_root", "memory_root"])
def test_a_remote_picture_without_a_telling_name_is_read(request, root, make_grey) -> None:
    pixels = make_grey("uint8", (61, 83))
    place = request.getfixturevalue(root) / "picture"
    place.write_bytes(imagecodecs.png_encode(pixels))
    with open_layer_source(place.uri) as source:
        np.testing.assert_array_equal(source.read(range(1), Box(0, 0, 61, 83))[0], pixels)


def test_other_files_in_the_folder_are_ignored(write_layers, make_grey) -> None:
    layers = write_layers()
    for name in ("meta.json", "notes.txt", ".hidden", "._00.tif", "mask.png", "layer_07.tif", "composite.jpg", "9"):
        (layers / name).write_text("not a picture")
    (layers / "7.tif.partial").write_text("not whole")
    (layers / "preview").mkdir()
    assert open_layer_source(str(layers)).shape_zyx == (5, 61, 83)


def test_what_a_file_is_its_content_says(tmp_path: Path, make_grey) -> None:
    volume = make_grey("uint8")
    for number, layer in enumerate(volume):
        (tmp_path / f"{number}.tif").write_bytes(imagecodecs.png_encode(layer))
    with open_layer_source(str(tmp_path)) as source:
        np.testing.assert_array_equal(source.read(range(5), Box(0, 0, 61, 83)), volume)


def test_the_order_is_by_number_not_by_name(tmp_path: Path, make_grey) -> None:
    volume = make_grey("uint8", (12, 20, 30))
    for number, layer in enumerate(volume):
        tifffile.imwrite(tmp_path / f"{number}.tif", layer, photometric="minisblack")  # 10.tif sorts before 2.tif
    with open_layer_source(str(tmp_path)) as source:
        np.testing.assert_array_equal(source.read(range(12), Box(0, 0, 20, 30)), volume)


def test_layers_may_differ_in_their_layout(tmp_path: Path, make_grey) -> None:
    volume = make_grey("uint16", (4, 64, 64))
    ways = [{"rowsperstrip": 8}, {"compression": "lzw", "rowsperstrip": 4}, {"tile": (16, 16)}, {"byteorder": ">"}]
    for number, (layer, way) in enumerate(zip(volume, ways, strict=True)):
        tifffile.imwrite(tmp_path / f"{number}.tif", layer, photometric="minisblack", **way)
    with open_layer_source(str(tmp_path)) as source:
        assert source.block_yx == (4, 64)
        np.testing.assert_array_equal(source.read(range(4), Box(0, 0, 64, 64)), volume)
