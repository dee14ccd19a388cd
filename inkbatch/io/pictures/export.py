"""A stored map as one picture file of any size: TIFF, PNG, NPY or JPG, in bounded memory.

The map is read in bands of rows, mirrored and turned into picture values band by band, and written front to back. Only
JPG holds the whole picture in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from inkbatch.errors import ConfigError
from inkbatch.io.pictures.bands import MapView
from inkbatch.io.pictures.png import LONGEST_PX as PNG_LONGEST_PX
from inkbatch.io.pictures.png import write_png
from inkbatch.io.pictures.scale_bar import ScaleBar
from inkbatch.io.pictures.tones import ToneMap
from inkbatch.io.pictures.writers import JPG_LONGEST_PX, write_jpg, write_npy, write_tiff
from inkbatch.io.store.atomic_files import delivered
from inkbatch.io.store.location import Location
from inkbatch.text import bytes_text

PictureFormat = Literal["tif", "png", "npy", "jpg"]
ENDINGS: dict[str, PictureFormat] = {
    ".tif": "tif",
    ".tiff": "tif",
    ".png": "png",
    ".npy": "npy",
    ".jpg": "jpg",
    ".jpeg": "jpg",
}
LONGEST_PX = {"jpg": JPG_LONGEST_PX, "png": PNG_LONGEST_PX}

BASE_BYTES = 200 << 20  # the interpreter with numpy, OpenCV and tifffile, and blocks being deflated
BYTES_PER_BAND_PIXEL = 12  # float16 bands in use and read ahead, their encoded chunks, picture values, blocks cut again
JPG_BYTES_PER_PIXEL = 2  # the picture and what it is encoded to


@dataclass(frozen=True)
class Picture:
    """A picture file to be written.

    Attributes:
        view: The part of the map; float16 probability.
        tones: How probability becomes picture values.
        format: The kind of file.
        bigtiff: Write BigTIFF whatever the size.
        quality: JPG quality, 1 to 100.
        pixel_um: Edge of a pixel of the view in micrometres, for TIFF.
        note: Description that TIFF and PNG files carry.
        bar: A scale bar, or None.
    """

    view: MapView
    tones: ToneMap
    format: PictureFormat
    bigtiff: bool = False
    quality: int = 90
    pixel_um: float | None = None
    note: str = ""
    bar: ScaleBar | None = None

    def rows(self, band_rows: int) -> Iterator[NDArray[Any]]:
        """Make picture values from the top to the bottom, band by band."""
        place = str(self.view.array.location)
        values = (self.tones.apply(band, place) for band in self.view.bands(band_rows))
        return values if self.bar is None else self.bar.drawn(values)


def band_rows(picture: Picture, memory_bytes: int) -> int:
    """Choose the rows of the bands that a picture is read in.

    On an object store a whole row of zarr shards where memory allows it, so that each object is asked for once; on a
    local disk a row of chunks.

    Args:
        picture: Picture to write.
        memory_bytes: Budget of the whole process.

    Raises:
        ConfigError: The budget is too small, or the format cannot hold the picture; nothing was read.
    """
    view = picture.view
    height, width = view.shape_yx
    longest = LONGEST_PX.get(picture.format)
    if longest is not None and max(height, width) > longest:
        raise ConfigError(
            f"{view.array.location}: {picture.format} of {width} × {height} px (width × height) is too large, it ends "
            f"at {longest} px; choose a coarser level, a crop, or TIFF"
        )
    fixed = BASE_BYTES + (JPG_BYTES_PER_PIXEL * height * width if picture.format == "jpg" else 0)
    rows = view.chunk_rows if view.array.location.is_local else view.shard_rows
    while rows > view.chunk_rows and fixed + BYTES_PER_BAND_PIXEL * rows * width > memory_bytes:
        rows = max(view.chunk_rows, rows // 2)
    needed = fixed + BYTES_PER_BAND_PIXEL * min(rows, height) * width
    if needed > memory_bytes:
        cure = "a coarser level, a crop" + (", or TIFF or PNG" if picture.format == "jpg" else "")
        raise ConfigError(
            f"{view.array.location}: {picture.format} of {width} × {height} px (width × height) takes "
            f"{bytes_text(needed)}, memory is {bytes_text(memory_bytes)}; allow more memory, or choose {cure}"
        )
    return rows


def write_picture(picture: Picture, place: Location, memory_bytes: int, scratch: str | None = None) -> int:
    """Write a picture file; it appears at `place` whole, or not at all. Equal maps give equal bytes.

    Args:
        picture: Picture to write.
        place: The file; one that is there is replaced.
        memory_bytes: Budget of the whole process.
        scratch: Local folder for a file on its way to an object store; None takes the system's.

    Returns:
        Bytes of the file.

    Raises:
        ConfigError: See `band_rows`, or `place` cannot be written to.
        CorruptDataError: A stored object is damaged, or holds something else than probabilities.
        StorageError: Reading or writing failed again after retries.
    """
    rows = picture.rows(band_rows(picture, memory_bytes))
    shape, dtype = picture.view.shape_yx, picture.tones.dtype
    with delivered(place, scratch) as handle:
        if picture.format == "tif":
            options = {"bigtiff": picture.bigtiff, "pixel_um": picture.pixel_um, "note": picture.note}
            write_tiff(handle, shape, dtype, rows, **options)  # type: ignore[arg-type]
        elif picture.format == "png":
            write_png(handle, shape, dtype, rows, picture.note)
        elif picture.format == "npy":
            write_npy(handle, shape, dtype, rows)
        else:
            write_jpg(handle, shape, dtype, rows, quality=picture.quality)
        handle.seek(0, 2)
        return handle.tell()
