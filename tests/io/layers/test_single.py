"""A map of one layer gives the same values in every form that a grey picture is saved in, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.layers.one_plane import open_plane
from inkbatch.io.layers.single import open_flat, open_one_layer, read_mask, read_one_layer
from inkbatch.testing.label_volumes import on_plane, write_label_volume

SHAPE = (61, 83)
WHOLE = Box(0, 0, *SHAPE)


@pytest.fixture(scope="module")
def ink() -> np.ndarray:
    found = np.zeros(SHAPE, np.uint8)
    cv2.circle(found, (40, 30), 17, 255, 5)
    return found


def pillow(mode: str, name: str, **options):
    def write(folder: Path, ink: np.ndarray) -> Path:
        Image.fromarray(ink).convert(mode).save(folder / name, **options)
        return folder / name

    return write


def tiff(**options):
    def write(folder: Path, ink: np.ndarray) -> Path:
        rgb = options.get("photometric") == "rgb"
        shown = 255 - ink if options.get("photometric") == "miniswhite" else ink
        tifffile.imwrite(folder / "a.tif", np.stack([ink] * 3, axis=-1) if rgb else shown, **options)
        return folder / "a.tif"

    return write


def two_colours(folder: Path, ink: np.ndarray) -> Path:
    picture = Image.fromarray((ink > 0).astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(folder / "a.png", bits=1)
    return folder / "a.png"


def sixteen_bits(folder: Path, ink: np.ndarray) -> Path:
    cv2.imwrite(str(folder / "a.png"), ink.astype(np.uint16) * 257)
    return folder / "a.png"


def npy(change):
    def write(folder: Path, ink: np.ndarray) -> Path:
        np.save(folder / "a.npy", change(ink))
        return folder / "a.npy"

    return write


def zarr_array(version: int, change=lambda ink: ink):
    def write(folder: Path, ink: np.ndarray) -> Path:
        array = zarr.create_array(folder / "a.zarr", data=change(ink), chunks="auto", zarr_format=version)
        assert array.size
        return folder / "a.zarr"

    return write


FORMS = {
    "grey PNG": pillow("L", "a.png"),
    "PNG of one bit": pillow("1", "a.png"),
    "PNG with a palette": pillow("P", "a.png"),
    "PNG with a palette of one bit": two_colours,
    "RGB PNG": pillow("RGB", "a.png"),
    "PNG with opaque alpha": pillow("RGBA", "a.png"),
    "PNG of 16 bits": sixteen_bits,
    "TIFF of one bit": pillow("1", "a.tif"),
    "compressed TIFF of one bit": pillow("1", "a.tif", compression="group4"),
    "TIFF with a palette": pillow("P", "a.tif"),
    "TIFF with opaque alpha": pillow("RGBA", "a.tif"),
    "RGB TIFF": tiff(photometric="rgb"),
    "TIFF with white as zero": tiff(photometric="miniswhite"),
    "npy": npy(lambda ink: ink),
    "npy in Fortran order": npy(np.asfortranarray),
    "npy of truth values": npy(lambda ink: ink > 0),
    "npy with one layer": npy(lambda ink: ink[None]),
    "zarr v2": zarr_array(2),
    "zarr v3": zarr_array(3),
    "zarr of truth values": zarr_array(3, lambda ink: ink > 0),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_grey_picture_gives_its_values(tmp_path, ink, form):
    with open_one_layer(str(FORMS[form](tmp_path, ink))) as source:
        assert source.shape_zyx == (1, *SHAPE)
        values = read_one_layer(source, WHOLE)
        full = np.iinfo(values.dtype).max
        np.testing.assert_array_equal(values, ink.astype(values.dtype) * (full // 255))
        np.testing.assert_array_equal(read_mask(source, Box(7, 9, 50, 70)), ink[7:50, 9:70] > 0)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_a_mask_saved_with_losses_marks_what_has_half_of_full_scale(tmp_path, ink, name):
    options = {"quality": 75} if name == "a.jpg" else {"compression": "jpeg", "quality": 75}
    Image.fromarray(ink).save(tmp_path / name, **options)
    with open_one_layer(str(tmp_path / name)) as source:
        blurred, found = read_one_layer(source, WHOLE), read_mask(source, WHOLE)
    assert (blurred != 0).sum() > 1.05 * (ink > 0).sum()
    np.testing.assert_array_equal(found, ink > 0)


def coloured(folder: Path, ink: np.ndarray) -> Path:
    Image.fromarray(np.stack([ink, ink // 2, ink], axis=-1)).save(folder / "a.png")
    return folder / "a.png"


def coloured_tiff(folder: Path, ink: np.ndarray) -> Path:
    tifffile.imwrite(folder / "a.tif", np.stack([ink, ink // 2, ink], axis=-1), photometric="rgb")
    return folder / "a.tif"


def drawn_in_alpha(folder: Path, ink: np.ndarray) -> Path:
    Image.merge("LA", [Image.new("L", SHAPE[::-1]), Image.fromarray(ink)]).save(folder / "a.png")
    return folder / "a.png"


def clear_entry(folder: Path, ink: np.ndarray) -> Path:
    Image.fromarray(ink).convert("P").save(folder / "a.png", transparency=0)
    return folder / "a.png"


def two_pages(folder: Path, ink: np.ndarray) -> Path:
    tifffile.imwrite(folder / "a.tif", np.stack([ink, ink]), photometric="minisblack")
    return folder / "a.tif"


def two_pages_of_a_bit(folder: Path, ink: np.ndarray) -> Path:
    page = Image.fromarray(ink).convert("1")
    page.save(folder / "a.tif", save_all=True, append_images=[page])
    return folder / "a.tif"


REFUSALS = {
    "colours": (coloured, "expected grey values, got colours"),
    "colours in a TIFF": (coloured_tiff, "expected grey values, got colours"),
    "drawing in alpha": (drawn_in_alpha, "transparent pixels"),
    "clear entry of a palette": (clear_entry, "transparent pixels"),
    "two pages": (two_pages, "got 2 layers or pages; save the one you mean by itself"),
    "two pages of a bit": (two_pages_of_a_bit, "got 2 pages; save the one you mean by itself"),
    "four dimensions": (npy(lambda ink: ink[None, None]), "save the plane that you mean by itself"),
    "numbers of 64 bits": (npy(lambda ink: ink.astype(np.int64)), "got int64; convert it"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_shows_more_than_grey_is_refused_with_a_cure_that_holds(tmp_path, ink, case):
    write, words = REFUSALS[case]
    with pytest.raises(DataError, match=words):  # when it is opened, before a job writes anything
        open_one_layer(str(write(tmp_path, ink)))


def test_a_volume_keeps_its_layers(tmp_path, ink):
    np.save(tmp_path / "a.npy", np.stack([ink * 0, ink]))
    with open_flat(str(tmp_path / "a.npy")) as source:
        assert source.shape_zyx == (2, *SHAPE)
        np.testing.assert_array_equal(source.read(range(1, 2), WHOLE)[0], ink)


def test_pictures_and_volumes_on_a_web_server_are_read_alike(web, ink):
    two_colours(web.folder, ink)
    write_label_volume(web.folder / "v.zarr", on_plane(ink, 5, 2), levels=1)
    with open_one_layer(f"{web.url}/a.png") as source:
        np.testing.assert_array_equal(read_one_layer(source, WHOLE), ink)
        assert len(source.fingerprint) == 64
    with open_plane(f"{web.url}/v.zarr", None, None, "") as source:
        np.testing.assert_array_equal(read_one_layer(source, WHOLE), ink)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_a_tiff_that_claims_to_be_turned_is_refused_whatever_its_kind(tmp_path, ink, photometric):
    tifffile.imwrite(tmp_path / "mask.tif", ink > 0, photometric=photometric, extratags=[(274, "H", 1, 6, True)])
    with pytest.raises(DataError, match=r"mask.tif: expected an upright picture, got EXIF orientation 6"):
        open_flat(str(tmp_path / "mask.tif"))
