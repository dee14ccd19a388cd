"""Writers of every layout that users have, and ways to put them on every store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr

from inkbatch.io.store.location import Location

SHAPE = (5, 61, 83)


def grey(dtype: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Smooth noise: compresses like papyrus, and no two windows are alike."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.normal(0, 3, shape), axis=-1) + rng.normal(128, 40, shape)
    if dtype == "float32":
        return steps.astype(np.float32)
    levels = np.iinfo(dtype).max
    return np.clip(steps * (levels // 255), 0, levels).astype(dtype)


@dataclass
class Layout:
    """One way to store a volume.

    Attributes:
        write: Writes the volume below a folder; returns what to open, relative to the folder.
        dtype: Stored dtype.
        options: Options for `open_layer_source`.
        first_layer: Number of the first layer.
        block_yx: What the reader must report locally; None: not checked.
        whole: Whether layers are decoded whole.
        expected: What reading gives back, if not the volume itself.
        remote: Whether it can be read remotely.
    """

    write: Callable[[Path, np.ndarray], str]
    dtype: str = "uint16"
    options: dict[str, Any] = field(default_factory=dict)
    first_layer: int = 0
    block_yx: tuple[int, int] | None = None
    whole: bool = False
    expected: Callable[[np.ndarray], np.ndarray] = lambda volume: volume
    remote: bool = True


def tiffs(name: str = "{:02d}.tif", first: int = 0, **options: Any) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, volume: np.ndarray) -> str:
        layers = folder / "layers"
        layers.mkdir()
        for number, layer in enumerate(volume, start=first):
            tifffile.imwrite(layers / name.format(number), layer, photometric="minisblack", **options)
        return "layers"

    return write


def pages(**options: Any) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, volume: np.ndarray) -> str:
        tifffile.imwrite(folder / "stack.tif", volume, photometric="minisblack", **options)
        return "stack.tif"

    return write


def pictures(kind: str) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, volume: np.ndarray) -> str:
        layers = folder / "layers"
        layers.mkdir()
        for number, layer in enumerate(volume):
            encode = imagecodecs.png_encode if kind == "png" else imagecodecs.jpeg_encode
            (layers / f"{number}.{kind}").write_bytes(encode(layer))
        return "layers"

    return write


def decoded_jpg(volume: np.ndarray) -> np.ndarray:
    return np.stack([imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(layer)) for layer in volume])


def npy(order: str = "zyx", fortran: bool = False, byteorder: str = "<") -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, volume: np.ndarray) -> str:
        stored = volume.transpose(["zyx".index(axis) for axis in order]).astype(volume.dtype.newbyteorder(byteorder))
        np.save(folder / "volume.npy", np.asfortranarray(stored) if fortran else np.ascontiguousarray(stored))
        return "volume.npy"

    return write


def zarr_array(axes: str = "zyx", dtype: str | None = None, **options: Any) -> Callable[[Path, np.ndarray], str]:
    """`axes` names the stored axes; axes other than z, y, x get length 1."""

    def write(folder: Path, volume: np.ndarray) -> str:
        stored = volume.transpose(["zyx".index(axis) for axis in axes if axis in "zyx"])
        stored = stored.reshape(
            tuple(stored.shape[[a for a in axes if a in "zyx"].index(axis)] if axis in "zyx" else 1 for axis in axes)
        )
        chunks = {"z": 2, "y": 16, "x": 32}
        options.setdefault("chunks", tuple(chunks.get(axis, 1) for axis in axes))
        array = zarr.create_array(folder / "volume.zarr", shape=stored.shape, dtype=dtype or volume.dtype, **options)
        array[...] = stored
        return "volume.zarr"

    return write


def ome_zarr(
    version: str, order: str = "zyx", level_unit: str | None = "micrometer"
) -> Callable[[Path, np.ndarray], str]:
    """Two levels, the second one halved along y and x."""

    def write(folder: Path, volume: np.ndarray) -> str:
        root = folder / "image.zarr"
        zarr_format = 2 if version == "0.4" else 3
        for level in (0, 1):
            step = 2**level
            zarr_array(order, zarr_format=zarr_format)(folder, volume[:, ::step, ::step])
            root.mkdir(exist_ok=True)
            shutil.move(folder / "volume.zarr", root / str(level))
        kinds = {"t": "time", "c": "channel"}
        axes: list[dict[str, str]] = [{"name": axis, "type": kinds.get(axis, "space")} for axis in order]
        if level_unit:
            for axis in axes:
                if axis["type"] == "space":
                    axis["unit"] = level_unit
        datasets = [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {
                        "type": "scale",
                        "scale": [{"z": 7.91, "y": 7.91 * 2**level, "x": 7.91 * 2**level}.get(a, 1.0) for a in order],
                    }
                ],
            }
            for level in (0, 1)
        ]
        image = [{"axes": axes, "datasets": datasets}]
        if version == "0.4":
            (root / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
            (root / ".zattrs").write_text(json.dumps({"multiscales": [{**image[0], "version": "0.4"}]}))
        else:
            attributes = {"ome": {"version": "0.5", "multiscales": image}}
            document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            (root / "zarr.json").write_text(json.dumps(document))
        return "image.zarr"

    return write


ZYX = {"axes": "zyx"}
BLOSC = numcodecs.Blosc("zstd", 3, numcodecs.Blosc.SHUFFLE)

LAYOUTS: dict[str, Layout] = {
    "tif": Layout(tiffs(rowsperstrip=8), block_yx=(1, 1)),
    "tif-uint8": Layout(tiffs("{}.tiff", rowsperstrip=8), dtype="uint8", block_yx=(1, 1)),
    "tif-float32": Layout(tiffs(rowsperstrip=8), dtype="float32"),
    "tif-one-strip": Layout(tiffs("{:03d}.TIF", rowsperstrip=61), block_yx=(1, 1)),
    "tif-from-one": Layout(tiffs(first=1, rowsperstrip=8), first_layer=1),
    "tif-big-endian": Layout(tiffs(rowsperstrip=8, byteorder=">"), block_yx=(1, 1)),
    "tif-bigtiff": Layout(tiffs(rowsperstrip=8, bigtiff=True), block_yx=(1, 1)),
    "tif-tiled": Layout(tiffs(tile=(16, 32)), block_yx=(1, 1)),
    "tif-lzw": Layout(tiffs(rowsperstrip=8, compression="lzw"), block_yx=(8, 83)),
    "tif-lzw-predictor": Layout(tiffs(rowsperstrip=8, compression="lzw", predictor=2), block_yx=(8, 83)),
    "tif-lzw-predictor-uint8": Layout(tiffs(rowsperstrip=8, compression="lzw", predictor=2), dtype="uint8"),
    "tif-lzw-predictor-big-endian": Layout(tiffs(rowsperstrip=8, compression="lzw", predictor=2, byteorder=">")),
    "tif-lzw-one-strip": Layout(tiffs(rowsperstrip=61, compression="lzw"), block_yx=(61, 83), whole=True),
    "tif-deflate": Layout(tiffs(rowsperstrip=16, compression="zlib"), block_yx=(16, 83)),
    "tif-deflate-tiled": Layout(tiffs(tile=(16, 32), compression="zlib", predictor=2), block_yx=(16, 32)),
    "tif-deflate-bigtiff": Layout(tiffs(rowsperstrip=8, compression="zlib", bigtiff=True, byteorder=">")),
    "tif-packbits": Layout(tiffs(rowsperstrip=8, compression="packbits"), dtype="uint8", block_yx=(8, 83)),
    "tif-zstd": Layout(tiffs(rowsperstrip=8, compression="zstd"), block_yx=(8, 83)),
    "tif-zstd-tiled-predictor": Layout(tiffs(tile=(32, 16), compression="zstd", predictor=2), block_yx=(32, 16)),
    "tif-float32-predictor": Layout(tiffs(rowsperstrip=8, compression="zlib", predictor=3), dtype="float32"),
    "tif-float32-predictor-big-endian": Layout(
        tiffs(rowsperstrip=8, compression="zlib", predictor=3, byteorder=">"), dtype="float32"
    ),
    "tif-pages": Layout(pages(rowsperstrip=8), block_yx=(1, 1)),
    "tif-pages-deflate": Layout(pages(rowsperstrip=8, compression="zlib"), block_yx=(8, 83)),
    "png": Layout(pictures("png"), dtype="uint8", block_yx=(61, 83), whole=True),
    "png-uint16": Layout(pictures("png"), block_yx=(61, 83), whole=True),
    "jpg": Layout(pictures("jpg"), dtype="uint8", whole=True, expected=decoded_jpg),
    "npy": Layout(npy(), options=ZYX, block_yx=(1, 1)),
    "npy-big-endian": Layout(npy(byteorder=">"), options=ZYX),
    "npy-yxz": Layout(npy("yxz"), options={"axes": "yxz"}, remote=False),
    "npy-fortran": Layout(npy(fortran=True), options=ZYX, remote=False),
    "zarr3": Layout(zarr_array(), options=ZYX, block_yx=(16, 32)),
    "zarr3-names": Layout(zarr_array(dimension_names=["z", "y", "x"]), block_yx=(16, 32)),
    "zarr3-yxz": Layout(zarr_array("yxz"), options={"axes": "yxz"}, block_yx=(16, 32)),
    "zarr3-sharded": Layout(zarr_array(shards=(4, 32, 64)), options=ZYX, block_yx=(16, 32)),
    "zarr3-gzip": Layout(zarr_array(compressors=zarr.codecs.GzipCodec()), options=ZYX),
    "zarr3-blosc": Layout(zarr_array(compressors=zarr.codecs.BloscCodec(cname="lz4")), options=ZYX),
    "zarr3-raw": Layout(zarr_array(compressors=None), dtype="uint8", options=ZYX),
    "zarr3-whole-layers": Layout(zarr_array(chunks=(2, 61, 83)), options=ZYX, block_yx=(61, 83), whole=True),
    "zarr2-blosc": Layout(zarr_array(zarr_format=2, compressors=BLOSC), options=ZYX, block_yx=(16, 32)),
    "zarr2-lz4": Layout(zarr_array(zarr_format=2, compressors=numcodecs.LZ4()), options=ZYX),
    "zarr2-zstd": Layout(zarr_array(zarr_format=2, compressors=numcodecs.Zstd()), options=ZYX),
    "zarr2-gzip": Layout(zarr_array(zarr_format=2, compressors=numcodecs.GZip()), dtype="uint8", options=ZYX),
    "zarr2-zlib": Layout(zarr_array(zarr_format=2, compressors=numcodecs.Zlib()), options=ZYX),
    "zarr2-big-endian": Layout(zarr_array(zarr_format=2, dtype=">u2", compressors=BLOSC), options=ZYX),
    "zarr2-fortran": Layout(zarr_array(zarr_format=2, order="F", compressors=BLOSC), options=ZYX),
    "zarr2-float32": Layout(zarr_array(zarr_format=2, compressors=BLOSC), dtype="float32", options=ZYX),
    "ome-0.4": Layout(ome_zarr("0.4"), block_yx=(16, 32)),
    "ome-0.4-tczyx": Layout(ome_zarr("0.4", "tczyx"), block_yx=(16, 32)),
    "ome-0.5": Layout(ome_zarr("0.5"), block_yx=(16, 32)),
    "ome-0.5-cyxz": Layout(ome_zarr("0.5", "cyxz"), dtype="uint8", block_yx=(16, 32)),
}


@dataclass
class Stored:
    """A volume that was written somewhere.

    Attributes:
        uri: What to open.
        options: How to open it.
        expected: What reading must give, (z, y, x).
        layout: How it is stored.
    """

    uri: str
    options: dict[str, Any]
    expected: np.ndarray
    layout: Layout


@pytest.fixture
def store_locally(tmp_path: Path) -> Callable[[str], Stored]:
    """Write a layout, by name, into a local folder."""

    def store(name: str) -> Stored:
        layout = LAYOUTS[name]
        volume = grey(layout.dtype)
        path = layout.write(tmp_path, volume)
        return Stored(str(tmp_path / path), layout.options, layout.expected(volume), layout)

    return store


def upload(folder: Path, root: Location) -> None:
    """Put a folder's files below `root`, under the same relative names."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (root / str(path.relative_to(folder))).write_bytes(path.read_bytes())


@pytest.fixture(params=["memory", "s3", "web"])
def store_remotely(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Stored]:
    """Write a layout, by name, to a store that is not a local disk."""

    def store(name: str) -> Stored:
        layout = LAYOUTS[name]
        volume = grey(layout.dtype)
        if request.param == "web":
            server = request.getfixturevalue("web")
            path = layout.write(server.folder, volume)
            uri = f"{server.url}/{path}"
        else:
            root: Location = request.getfixturevalue(f"{request.param}_root")
            folder = tmp_path / "upload"
            folder.mkdir()
            path = layout.write(folder, volume)
            upload(folder, root)
            uri = (root / path).uri
        return Stored(uri, layout.options, layout.expected(volume), layout)

    return store


@pytest.fixture
def layout_names() -> dict[str, Layout]:
    """All layouts, by name."""
    return LAYOUTS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests with ``any_layout`` run for each layout, with ``remote_layout`` for each that can be read remotely."""
    if "any_layout" in metafunc.fixturenames:
        metafunc.parametrize("any_layout", LAYOUTS)
    if "remote_layout" in metafunc.fixturenames:
        metafunc.parametrize("remote_layout", [name for name, layout in LAYOUTS.items() if layout.remote])


@pytest.fixture
def write_layers(tmp_path: Path) -> Callable[..., Path]:
    """Write a small stack of numbered TIFFs with any options of tifffile; returns its folder."""

    def write(volume: np.ndarray | None = None, name: str = "{:02d}.tif", first: int = 0, **options: Any) -> Path:
        volume = grey("uint16") if volume is None else volume
        return tmp_path / tiffs(name, first, **options)(tmp_path, volume)

    return write


@pytest.fixture
def make_grey() -> Callable[..., np.ndarray]:
    """The test volume in a dtype and shape."""
    return grey
