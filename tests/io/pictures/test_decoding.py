"""Pictures of other people's making are decoded as everybody sees them, or refused by name."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from inkbatch.data.datasets.picture_layers import decode_annotation
from inkbatch.errors import CorruptDataError, DataError
from inkbatch.io.layers.grey import open_grey_picture
from inkbatch.io.layers.numbered import Keeping
from inkbatch.io.pictures.decoding import decode_image
from inkbatch.io.store.location import Location

MAGIC = b"\x89PNG\r\n\x1a\n"


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*more):
    """A grey PNG of 4 x 2 pixels with more chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 8, 0, 0, 0, 0))
    return MAGIC + head + b"".join(more) + chunk(b"IDAT", zlib.compress(b"\0\0\5\7\5" * 2)) + chunk(b"IEND", b"")


def exif(orientation, order="<"):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}IHHHIHH", 8, 1, 0x0112, 3, 1, orientation, 0) + bytes(4)


def jpg(orientation, order="<"):
    data = cv2.imencode(".jpg", np.full((8, 16), 90, np.uint8))[1].tobytes()
    block = b"Exif\0\0" + exif(orientation, order)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def test_a_plain_grey_png_is_read():
    assert decode_image(png(), cv2.IMREAD_GRAYSCALE, "a").tolist() == [[0, 5, 7, 5]] * 2


def test_a_transparent_colour_of_a_grey_png_is_refused_by_name():
    with pytest.raises(DataError, match=r"a: .* transparent colour \(tRNS\)"):
        decode_image(png(chunk(b"tRNS", b"\0\5")), cv2.IMREAD_GRAYSCALE, "a")


def test_an_animated_png_is_refused_by_name():
    with pytest.raises(DataError, match="a: .* animated PNG"):
        decode_image(png(chunk(b"acTL", struct.pack(">II", 2, 0))), cv2.IMREAD_GRAYSCALE, "a")


def test_a_part_that_is_longer_than_the_file_is_refused_before_memory_is_taken_for_it():
    whole = png()
    at = whole.index(b"IDAT") - 4
    with pytest.raises(CorruptDataError, match=r"a: a part of it promises 2,013,265,920 bytes, where \d+ are left"):
        decode_image(whole[:at] + struct.pack(">I", 0x78000000) + whole[at + 4 :], cv2.IMREAD_GRAYSCALE, "a")
    with pytest.raises(CorruptDataError, match="a: a part of it promises"):
        decode_image(whole[:-30], cv2.IMREAD_GRAYSCALE, "a")


def test_bytes_after_the_end_of_a_png_are_no_part_of_it():
    assert decode_image(png() + b"\xff" * 40, cv2.IMREAD_GRAYSCALE, "a").tolist() == [[0, 5, 7, 5]] * 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_picture_that_is_to_be_turned_is_refused_by_name(tmp_path, order):
    assert decode_image(jpg(1, order), cv2.IMREAD_COLOR, "a").shape == (8, 16, 3)
    for data in (jpg(6, order), png(chunk(b"eXIf", exif(6, order)))):
        with pytest.raises(DataError, match="a: .* EXIF orientation 6"):
            decode_image(data, cv2.IMREAD_COLOR, "a")
    (tmp_path / "mask.jpg").write_bytes(jpg(6, order))
    with pytest.raises(DataError, match="mask.jpg: .* EXIF orientation 6"):
        open_grey_picture(Location.parse(tmp_path / "mask.jpg"), Keeping(1 << 20, None))


def test_a_coloured_annotation_is_refused_and_a_grey_one_in_three_channels_is_not(tmp_path):
    marked = np.zeros((16, 16, 3), np.uint8)
    marked[4:9, 4:9] = 255
    for name in ("a.png", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), marked)
        assert decode_annotation(Location.parse(tmp_path / name))[6, 6] > 250
    marked[4:9, 4:9, :2] = 0
    for name in ("a.png", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), marked)
        with pytest.raises(DataError, match="expected a grey annotation, got colours"):
            decode_annotation(Location.parse(tmp_path / name))


def test_a_damaged_picture_is_refused_and_nothing_is_printed_beside(capfd):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    for ending, lost, said in ((".png", 300, "a part of it promises"), (".jpg", 900, "cannot be decoded")):
        with pytest.raises(CorruptDataError, match=f"a: {said}"):
            decode_image(cv2.imencode(ending, noise)[1].tobytes()[:-lost], cv2.IMREAD_GRAYSCALE, "a")
    assert capfd.readouterr().err == ""
