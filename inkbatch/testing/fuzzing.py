"""Readers fed with damaged, odd and hostile bytes: whatever they get, they return or refuse by name.

A `Reader` is one way from bytes into the package. `feed` hands it bytes and raises what is no refusal of ours. Used by
the tests, by the campaign of mutated inputs and by the coverage-guided fuzzer (``make test-fuzz``).
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from inkbatch.errors import InkbatchError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.text import bytes_text

TOKENS = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"\n", b"- ", b"&a ", b"*a", b"!!python/object:os.system ", b"null",
    b"-1", b"1e999", b"<<: ", b"9" * 40, b"NaN", b"\x00", b"\xff\xfe", b"\xc3", b"../", b"17:43", b"2001-99-99",
    b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"[" * 3000, b"%s", b"'", b"0x_", b"1_0", b"~",
)  # fmt: skip
MOST_BYTES = 256 << 20  # that one input may add to the peak


@dataclass(frozen=True)
class Reader:
    """One way from bytes into the package.

    Attributes:
        name: Name in reports.
        seeds: Makes valid inputs.
        read: Reads the file at a path, as far as a job would; raises errors of ours, or none.
        file: Name that the bytes get on the disk.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    file: str = "input"


def feed(reader: Reader, data: bytes) -> InkbatchError | None:
    """Hand bytes to a reader.

    Returns:
        Its refusal; None where it took them.

    Raises:
        Exception: Anything else than an error of ours: a bug.
    """
    with tempfile.TemporaryDirectory(prefix="inkbatch-fuzz-") as folder:
        path = Path(folder, reader.file)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        try:
            reader.read(path)
        except InkbatchError as error:
            return error
    return None


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change bytes in one to four places: flipped, cut, doubled, moved, or replaced by telling ones."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        end = min(len(found), at + chance.choice((1, 2, 4, 8, 64, 1024)))
        kind = chance.randrange(6)
        if kind == 0 and found:
            found[at % len(found)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del found[at:end]
        elif kind == 2:
            found[at:at] = found[at:end]
        elif kind == 3:
            found[at:at] = chance.choice(TOKENS)
        elif kind == 4:
            token = chance.choice(TOKENS)
            found[at : at + len(token)] = token
        else:
            found = found[:at] if chance.random() < 0.3 else found + found[at:end]
    return bytes(found)


@lru_cache(maxsize=1)
def readers() -> Mapping[str, Reader]:
    """Return every reader by its name."""
    from inkbatch.data.datasets.coco import read_coco
    from inkbatch.data.datasets.index import DatasetIndex
    from inkbatch.data.segments.catalog import read_catalog
    from inkbatch.documents import read_yaml_file
    from inkbatch.launch.jobfile import JobFile
    from inkbatch.models.bundle import Bundle
    from inkbatch.models.importing import read_state_dict
    from inkbatch.models.presets import load_preset
    from inkbatch.run.finished import open_run
    from inkbatch.run.record import require_complete
    from inkbatch.steps.estimate.throughput import read_throughputs
    from inkbatch.steps.prepare.settings import PrepareConfig
    from inkbatch.testing.fuzzing_runs import run_readers

    def place(path: Path) -> Location:
        return Location.parse(path.parent)

    listed = [
        Reader("yaml", lambda: [CATALOG, CONFIG, b"a: &x [1]\nb: *x\n"], read_yaml_file),
        Reader("config", lambda: [CONFIG], lambda path: PrepareConfig.load(str(path))),
        Reader("set", lambda: [b"layers=[1, 4]", b"clahe={clip_limit: 2.0, cell_px: 8}", b"mask=a"], _read_set),
        Reader("catalog", lambda: [CATALOG], read_catalog, "segments.yaml"),
        Reader("job-file", lambda: [JOB_FILE], lambda path: JobFile.load("infer", str(path))),
        Reader("preset", _presets, lambda path: load_preset(str(path)), "preset.yaml"),
        Reader("figures", lambda: [b"figures: []\n", b"figures: [{a: 1}]\n"], read_throughputs),
        Reader("words", lambda: [b"--set 'a=b c' -x \"y\""], _read_words),
        Reader("address", lambda: [b"s3://bucket/a", b"file:///a/b", b"memory://x/y", b"odd://a@b?c#d"], _read_address),
        Reader("json", lambda: [MANIFEST, b"[1, 2]"], lambda path: Location.parse(path).read_mapping()),
        Reader("manifest", lambda: [MANIFEST], lambda path: open_run(str(path)), "manifest.json"),
        Reader("complete", lambda: [COMPLETE], lambda path: _complete(path, require_complete), "complete.json"),
        Reader("bundle", _bundles, lambda path: Bundle.open(place(path)), "bundle.json"),
        Reader("index", lambda: [b"{}"], lambda path: DatasetIndex.open(place(path)), "index.json"),
        Reader("coco", lambda: [COCO], lambda path: read_coco(Location.parse(path))),
        Reader("cvat", _exports, _read_export, "export.zip"),
        Reader("tiff", _tiffs, _read_layers, "a.tif"),
        Reader("png", lambda: [_picture(".png"), _picture(".png", 3)], _read_layers, "a.png"),
        Reader("jpg", lambda: [_picture(".jpg"), _picture(".jpg", 3)], _read_layers, "a.jpg"),
        Reader("npy", _arrays, _read_layers, "a.npy"),
        Reader("zarr-v3", lambda: [ZARR3], _read_layers_beside, "zarr.json"),
        Reader("zarr-v2", lambda: [ZARR2], lambda path: _read_stack(str(path.parent), "zyx"), ".zarray"),
        Reader("ome-zarr", lambda: [OME], _read_layers_beside, "zarr.json"),
        Reader("picture", lambda: [_picture(".png", 3), _picture(".tif"), _picture(".bmp", 3)], _read_picture),
        Reader("safetensors", _safetensors, lambda path: read_state_dict(path)),
        Reader("torch", _torch_files, lambda path: read_state_dict(path)),
        *run_readers(),
    ]
    return {reader.name: reader for reader in listed}


CONFIG = b"segment: a\nroot: r\nlayers: [1, 4]\nvoxel_size_um: 7.91\nclahe: {clip_limit: 2.0, cell_px: 8}\n"
CATALOG = (
    b"defaults: {energy_kev: 54, layers: 17:43}\nsegments:\n  a: {source: layers, voxel_size_um: 7.9, note: x}\n"
    b"  '20230702185753': &b {source: s3://bucket/x, depth_order: reversed, layers: [0, 65]}\n  c: *b\n"
)
JOB_FILE = b"tta: [flip-y]\nlaunch:\n  resources: {gpus: 1, memory: 16GiB}\n  time_limit: 6h\n  shards: {most: 4}\n"
MANIFEST = b'{"job": "infer", "config": {"segment": "a"}, "inputs": {}, "digest": "00", "units": 1, "request": {}}'
COMPLETE = b'{"digest": "00", "units": 1}'
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "one.png", "height": 12, "width": 16}],
        "categories": [{"id": 1, "name": "ink"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 2, 6, 6], "segmentation": [[3, 2, 9, 2, 9, 8]]},
            {
                "id": 2,
                "image_id": 1,
                "category_id": 1,
                "bbox": [3, 2, 6, 6],
                "segmentation": {"counts": [100, 20, 72], "size": [12, 16]},
            },
        ],
    }
).encode()
ZARR3 = json.dumps(
    {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [2, 8, 8],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8, 8]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        "dimension_names": ["z", "y", "x"],
        "attributes": {},
    }
).encode()
ZARR2 = json.dumps(
    {
        "zarr_format": 2,
        "shape": [2, 8, 8],
        "chunks": [1, 8, 8],
        "dtype": "|u1",
        "compressor": {"id": "zlib", "level": 1},
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }
).encode()
OME = json.dumps(
    {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "ome": {
                "version": "0.5",
                "multiscales": [
                    {
                        "axes": [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"],
                        "datasets": [
                            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [8, 8, 8]}]}
                        ],
                    }
                ],
            }
        },
    }
).encode()


def _read_set(path: Path) -> object:
    from inkbatch.steps.prepare.settings import PrepareConfig

    return PrepareConfig.load(None, [path.read_bytes().decode("utf-8", "replace")], {"segment": "a", "root": "r"})


def _read_words(path: Path) -> object:
    from inkbatch.cli.request import split_words

    return split_words("--args", path.read_bytes().decode("utf-8", "replace"))


def _read_address(path: Path) -> object:
    location = Location.parse(path.read_bytes().decode("utf-8", "replace"))
    if location.protocol not in ("http", "https", "s3", "s3a", "hf", "memory"):  # nothing is asked over the network
        return location.exists()
    return location / "a"


def _complete(path: Path, require: Callable[[Location, str, str], object]) -> object:
    (path.parent / "manifest.json").write_bytes(MANIFEST)
    return require(Location.parse(path.parent), "run", "run it again")


def _read_layers(path: Path) -> object:
    return _read_stack(str(path), "zyx" if path.suffix == ".npy" else None)


def _read_layers_beside(path: Path) -> object:
    return _read_stack(str(path.parent), None)


def _read_stack(uri: str, axes: str | None) -> object:
    from inkbatch.io.layers import open_layer_source

    with contextlib.closing(open_layer_source(uri, axes=axes, memory_bytes=64 << 20)) as source:
        depth, height, width = source.shape_zyx
        box = Box(0, 0, min(height, 64), min(width, 64))
        return source.read(range(min(depth, 2)), box)


def _read_export(path: Path) -> object:
    from inkbatch.data.datasets.cvat import import_cvat

    return import_cvat(Location.parse(path), Location.parse(path.parent / "out"), ["ink"], [])


def _read_picture(path: Path) -> object:
    from inkbatch.data.datasets.picture_layers import picture_layers

    return picture_layers(Location.parse(path), in_colour=True)


def _picture(ending: str, channels: int = 1) -> bytes:
    grey = np.arange(16 * 20 * channels, dtype=np.uint32).reshape(16, 20, channels).astype(np.uint8)
    return cv2.imencode(ending, grey)[1].tobytes()


def _tiffs() -> list[bytes]:
    volume = np.arange(3 * 16 * 20, dtype=np.uint16).reshape(3, 16, 20)
    options: tuple[dict[str, Any], ...] = (
        {},
        {"compression": "lzw"},
        {"compression": "zlib", "tile": (16, 16), "predictor": True},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"bigtiff": True, "rowsperstrip": 4},
    )
    found = []
    for option in options:
        file = io.BytesIO()
        tifffile.imwrite(file, volume, photometric="minisblack", **option)
        found.append(file.getvalue())
    return found


def _arrays() -> list[bytes]:
    found = []
    for array in (np.zeros((2, 5, 6), np.uint8), np.asfortranarray(np.zeros((2, 5, 6), np.float32))):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return found


def _exports() -> list[bytes]:
    mask = cv2.imencode(".png", np.full((12, 16, 3), (83, 50, 250), np.uint8))[1].tobytes()
    table = b"# label:color_rgb:parts:actions\nbackground:0,0,0::\nink:250,50,83::\n"
    found = []
    for members in (
        {"annotations/instances_default.json": COCO},
        {"labelmap.txt": table, "SegmentationClass/one.png": mask},
    ):
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", method) as archive:
                for name, content in members.items():
                    archive.writestr(name, content)
            found.append(file.getvalue())
    return found


def _presets() -> list[bytes]:
    from inkbatch.models.presets import FOLDERS
    from inkbatch.presets import preset_names, preset_path

    return [preset_path(name, folders=FOLDERS).read_bytes() for name in preset_names(FOLDERS)[:2]]


def _bundles() -> list[bytes]:
    from inkbatch.testing.segments import identity_bundle

    with tempfile.TemporaryDirectory() as folder:
        identity_bundle(folder)
        return [Path(folder, "bundle.json").read_bytes()]


def _safetensors() -> list[bytes]:
    import safetensors.torch
    import torch

    return [safetensors.torch.save({"a.weight": torch.zeros(2, 3), "b": torch.ones(1)}, {"note": "x"})]


def _torch_files() -> list[bytes]:
    import torch

    weights = {"net.a.weight": torch.zeros(2, 3), "net.b": torch.ones(1, dtype=torch.float16)}
    found = []
    for content in (weights, {"state_dict": weights, "hyper_parameters": {"lr": 1e-3, "names": ["a"]}}):
        for new in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=new)
            found.append(file.getvalue())
    return found


def campaign(count: int, seed: int = 0, names: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes, Exception]]:
    """Feed mutated inputs to the readers in turn.

    Args:
        count: Inputs.
        seed: Equal seeds make equal inputs.
        names: Readers; all without.

    Yields:
        Reader, input and what it raised, for each input that ended in something else than an answer or a refusal, or
        that raised the peak of the process's memory by more than `MOST_BYTES`.
    """
    chance = random.Random(seed)
    chosen = [reader for name, reader in readers().items() if not names or name in names]
    seeds = {reader.name: reader.seeds() for reader in chosen}
    for reader in chosen:
        feed(reader, seeds[reader.name][0])  # imports what it needs
    for number in range(count):
        reader = chosen[number % len(chosen)]
        data = mutated(chance.choice(seeds[reader.name]), chance)
        before = _peak_bytes()
        try:
            feed(reader, data)
        except Exception as error:
            yield reader.name, data, error
        if (grown := _peak_bytes() - before) > MOST_BYTES:
            yield reader.name, data, MemoryError(f"{bytes_text(grown)} for an input of {bytes_text(len(data))}")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
