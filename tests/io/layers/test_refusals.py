"""Files that are cut, or not what they seem, are refused by a message that names file and cure; exit code 65."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from inkbatch.errors import EXIT_DATA, ConfigError, CorruptDataError, DataError, MismatchError, NonFiniteError
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source

EVERYTHING = Box(0, 0, 61, 83)


def refusal(uri: object, **options) -> str:
    """The message of a refusal with exit code 65."""
    with pytest.raises(DataError) as caught:
        open_layer_source(str(uri), **options)
    assert caught.value.exit_code == EXIT_DATA
    assert str(uri) in str(caught.value)
    return str(caught.value)


def test_a_missing_layer_is_named(write_layers) -> None:
    layers = write_layers()
    (layers / "02.tif").unlink()
    assert "1 missing: 2;" in refusal(layers)


def test_many_missing_layers_are_counted_and_the_first_named(write_layers) -> None:
    layers = write_layers()
    (layers / "04.tif").rename(layers / "20231210121321.tif")
    assert "missing: 4, 5, 6, 7, 8, …" in refusal(layers)


def test_two_files_for_one_layer_are_both_named(write_layers) -> None:
    layers = write_layers()
    shutil.copy(layers / "01.tif", layers / "1.tif")
    message = refusal(layers)
    assert "'01.tif'" in message
    assert "'1.tif'" in message


def test_an_empty_folder_says_what_is_wanted(tmp_path: Path) -> None:
    assert "00.tif" in refusal(tmp_path)


def test_a_folder_of_unnumbered_files_shows_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "layer_00.tif").write_bytes(b"x")
    assert "'layer_00.tif'" in refusal(tmp_path)


def test_nothing_at_all_is_named(tmp_path: Path) -> None:
    assert "got nothing" in refusal(tmp_path / "nobody")


def test_nothing_on_a_remote_store_is_named(s3_root, memory_root, web) -> None:
    for uri in (f"{s3_root}/nobody", f"{memory_root}/nobody", f"{web.url}/nobody", f"{s3_root}/nobody.tif"):
        assert "got nothing" in refusal(uri)


def test_layers_of_other_sizes_are_both_named(write_layers, make_grey) -> None:
    layers = write_layers()
    tifffile.imwrite(layers / "03.tif", make_grey("uint16", (61, 82)))
    message = refusal(layers)
    for words in ("00.tif has (61, 83)", "03.tif has (61, 82)"):
        assert words in message


def test_layers_of_other_dtypes_are_both_named(write_layers, make_grey) -> None:
    layers = write_layers()
    tifffile.imwrite(layers / "03.tif", make_grey("uint8", (61, 83)))
    message = refusal(layers)
    assert "00.tif has uint16" in message
    assert "03.tif has uint8" in message


def test_layers_of_two_formats_are_refused(write_layers, make_grey) -> None:
    layers = write_layers(make_grey("uint8"))
    (layers / "05.png").write_bytes(imagecodecs.png_encode(make_grey("uint8", (61, 83))))
    assert "05.png" in refusal(layers)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_truncated_tiff_is_named(write_layers, compression) -> None:
    layers = write_layers(rowsperstrip=8, compression=compression)
    path = layers / "03.tif"
    os.truncate(path, path.stat().st_size - 100)
    message = refusal(layers)
    assert "03.tif" in message
    assert "truncated" in message


@pytest.mark.parametrize("size", [0, 3, 8, 40, 200])
def test_a_tiff_cut_inside_its_header_is_named(write_layers, size) -> None:
    layers = write_layers(rowsperstrip=8)
    os.truncate(layers / "03.tif", size)
    assert "03.tif" in refusal(layers)


def test_strips_that_were_never_written_are_no_data(write_layers) -> None:
    layers = write_layers(rowsperstrip=8)
    with tifffile.TiffFile(layers / "03.tif", mode="r+") as tiff:
        counts = list(tiff.pages[0].databytecounts)
        tiff.pages[0].tags["StripByteCounts"].overwrite([*counts[:-1], 0])
    message = refusal(layers)
    assert "03.tif" in message
    assert "never written" in message


def test_something_else_called_tif_is_named(write_layers) -> None:
    layers = write_layers()
    (layers / "03.tif").write_text("<html>not found</html>")
    message = refusal(layers)
    assert "03.tif" in message
    assert "<html>" in message


@pytest.mark.parametrize("dtype", ["int32", "int8", "uint32", "float64", "float16", "int16", "complex64"])
def test_other_pixel_types_are_refused(write_layers, dtype) -> None:
    message = refusal(write_layers(np.zeros((2, 20, 20), dtype)))
    assert dtype in message
    assert "convert" in message


def test_one_bit_layers_are_refused(write_layers) -> None:
    assert "convert" in refusal(write_layers(np.zeros((2, 20, 20), bool)))


def test_layers_with_white_as_zero_are_refused_not_inverted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((20, 20), np.uint8), photometric="miniswhite")
    assert "MINISWHITE" in refusal(tmp_path)


def test_layers_that_claim_to_be_turned_are_refused_not_guessed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((20, 20), np.uint8), extratags=[(274, "H", 1, 3, True)])
    assert "orientation tag is 3" in refusal(tmp_path)


def test_palette_layers_are_refused(tmp_path: Path) -> None:
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((20, 20), np.uint8), photometric="palette", colormap=colours)
    assert "PALETTE" in refusal(tmp_path)


def test_unknown_compressions_are_refused_with_those_that_are_read(write_layers) -> None:
    message = refusal(write_layers(np.zeros((2, 64, 64), np.uint8), compression="jpeg", tile=(32, 32)))
    assert "JPEG" in message
    assert "lzw, deflate, packbits" in message


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_rgb_layers_of_a_stack_are_refused(tmp_path: Path, planarconfig) -> None:
    rgb = np.zeros((3, 20, 20) if planarconfig == "separate" else (20, 20, 3), np.uint8)
    for number in range(2):
        tifffile.imwrite(tmp_path / f"{number}.tif", rgb, photometric="rgb", planarconfig=planarconfig)
    assert "RGB" in refusal(tmp_path)


def test_rgb_pictures_of_a_stack_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(imagecodecs.png_encode(np.zeros((20, 20, 3), np.uint8)))
    assert "RGB" in refusal(tmp_path)


def test_several_pages_in_a_numbered_file_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((3, 20, 20), np.uint8), photometric="minisblack")
    assert "several pages" in refusal(tmp_path)


def test_a_smaller_copy_behind_a_layer_is_ignored(tmp_path: Path, make_grey) -> None:
    layer = make_grey("uint8", (64, 64))
    for number in range(2):
        with tifffile.TiffWriter(tmp_path / f"{number}.tif") as writer:
            writer.write(layer, photometric="minisblack")
            writer.write(layer[::2, ::2], photometric="minisblack", subfiletype=1)
    assert open_layer_source(str(tmp_path)).shape_zyx == (2, 64, 64)
    assert open_layer_source(str(tmp_path / "0.tif")).shape_zyx == (1, 64, 64)


def test_planes_hidden_behind_one_page_are_refused(tmp_path: Path, make_grey) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, make_grey("uint8"), truncate=True, photometric="minisblack")
    assert "promises 5 planes" in refusal(path)
    tifffile.imwrite(path, make_grey("uint8"), imagej=True)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        assert len(tiff.pages) == 5
        tiff.filehandle.seek(tiff.pages[0].offset + 2 + 12 * len(tiff.pages[0].tags))
        tiff.filehandle.write(bytes(4))  # as ImageJ writes more than 4 GiB: one page, the others follow unannounced
    assert "promises 5 planes" in refusal(path)


@pytest.mark.parametrize("samples", [2, 4])
def test_alpha_is_refused_with_a_cure(tmp_path: Path, samples) -> None:
    pixels = np.zeros((20, 20, samples), np.uint8)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="rgb" if samples == 4 else "minisblack", planarconfig="contig"
    )
    for name in ("a.png", "a.tif"):
        assert "alpha" in refusal(tmp_path / name)


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_picture_is_damaged_not_grey(tmp_path: Path, make_grey, kind, share) -> None:
    encode = imagecodecs.png_encode if kind == "png" else imagecodecs.jpeg_encode
    data = encode(make_grey("uint8", (61, 83)))
    (tmp_path / f"00.{kind}").write_bytes(data)
    (tmp_path / f"01.{kind}").write_bytes(data[: int(len(data) * share)])
    source = open_layer_source(str(tmp_path))
    source.read(range(1), EVERYTHING)
    with pytest.raises(CorruptDataError, match=rf"01\.{kind}"):
        source.read(range(1, 2), EVERYTHING)


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("size", [8, 20])
def test_a_picture_cut_inside_its_header_is_named(tmp_path: Path, make_grey, kind, size) -> None:
    encode = imagecodecs.png_encode if kind == "png" else imagecodecs.jpeg_encode
    (tmp_path / f"0.{kind}").write_bytes(encode(make_grey("uint8", (61, 83)))[:size])
    assert f"0.{kind}" in refusal(tmp_path)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd"])
def test_a_damaged_strip_is_named(write_layers, make_grey, compression) -> None:
    layers = write_layers(make_grey("uint8"), rowsperstrip=8, compression=compression)
    with tifffile.TiffFile(layers / "03.tif") as tiff:
        offset, count = tiff.pages[0].dataoffsets[4], tiff.pages[0].databytecounts[4]
    with open(layers / "03.tif", "r+b") as file:
        file.seek(offset)
        file.write(b"\x80" * count if compression == "packbits" else bytes(count))
    source = open_layer_source(str(layers))
    source.read(range(3, 4), Box(0, 0, 32, 83))
    with pytest.raises(CorruptDataError, match=r"03\.tif: strip 4 of 8"):
        source.read(range(5), EVERYTHING)


def test_a_strip_that_ends_early_is_damaged(write_layers, make_grey) -> None:
    layers = write_layers(make_grey("uint8"), rowsperstrip=8, compression="lzw")
    with tifffile.TiffFile(layers / "03.tif", mode="r+") as tiff:
        counts = list(tiff.pages[0].databytecounts)
        counts[4] //= 2
        tiff.pages[0].tags["StripByteCounts"].overwrite(counts)
    with pytest.raises(CorruptDataError, match=r"03\.tif: strip 4 of 8"):
        open_layer_source(str(layers)).read(range(5), EVERYTHING)


@pytest.mark.parametrize("name", ["tif-float32", "tif-float32-predictor", "zarr2-float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_on_reading(tmp_path: Path, layout_names, make_grey, name, bad) -> None:
    volume = make_grey("float32")
    volume[3, 40, 50] = bad
    layout = layout_names[name]
    source = open_layer_source(str(tmp_path / layout.write(tmp_path, volume)), **layout.options)
    source.read(range(5), Box(0, 0, 40, 83))
    with pytest.raises(NonFiniteError, match="layer 3"):
        source.read(range(5), EVERYTHING)


@pytest.mark.parametrize("name", ["tif", "tif-lzw"])
def test_a_file_cut_while_it_is_open_is_an_error_not_a_crash(store_locally, name) -> None:
    stored = store_locally(name)
    source = open_layer_source(stored.uri)
    source.read(range(5), EVERYTHING)
    os.truncate(Path(stored.uri) / "02.tif", 1000)
    with pytest.raises(CorruptDataError, match=r"02\.tif"):
        source.read(range(5), EVERYTHING)


def test_options_that_do_not_apply_are_refused(write_layers) -> None:
    layers = str(write_layers())
    for options in ({"axes": "yxz"}, {"level": 1}, {"axes": "abc"}, {"axes": "zzz"}):
        with pytest.raises(ConfigError):
            open_layer_source(layers, **options)
    with pytest.raises(DataError, match="array"):
        open_layer_source(layers, array="0")
    assert open_layer_source(layers, axes="z, y, x", level=0).shape_zyx == (5, 61, 83)


def test_mismatch_is_its_own_error(write_layers, make_grey) -> None:
    layers = write_layers()
    tifffile.imwrite(layers / "03.tif", make_grey("uint8", (61, 83)))
    with pytest.raises(MismatchError):
        open_layer_source(str(layers))


def test_an_npy_without_axes_or_with_another_type_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4), np.uint8))
    np.save(tmp_path / "b.npy", np.zeros((2, 3, 4), np.int64))
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="axes"):
        open_layer_source(str(tmp_path / "a.npy"))
    for name in ("b.npy", "c.npy"):
        refusal(tmp_path / name, axes="zyx")
    os.truncate(tmp_path / "a.npy", 140)
    assert "copy it again" in refusal(tmp_path / "a.npy", axes="zyx")


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_an_npy_without_pixels_says_so(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert "holds no pixels" in refusal(tmp_path / "a.npy", axes="zyx")


def test_a_remote_npy_in_another_order_is_refused(memory_root, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4), np.uint8))
    (memory_root / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    assert "local folder" in refusal(memory_root / "a.npy", axes="yxz")
