"""Bad input never ends with a traceback: every reader takes its bytes, or refuses them by name and in time."""

from __future__ import annotations

import io
import json
import pickle
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkbatch.data.labels.painting_journal import framed
from inkbatch.documents import parse_json, parse_yaml
from inkbatch.errors import InkbatchError
from inkbatch.testing.fuzzing import campaign, feed, readers

LIMIT_S = 10.0
QUICK = settings(
    max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("name", sorted(readers()))
def test_seeds_are_valid_or_refused(name):
    reader = readers()[name]
    answers = [feed(reader, seed) for seed in reader.seeds()]
    assert name in ("index", "ome-zarr") or None in answers


@pytest.mark.parametrize("name", sorted(readers()))
def test_mutated_inputs_end_without_a_traceback(name):
    assert [(data, repr(error)) for _, data, error in campaign(12, seed=7, names=(name,))] == []


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    for name in ("yaml", "config", "catalog", "json", "bundle", "index", "coco", "npy", "zarr-v2", "address", "words"):
        feed(readers()[name], data)


@QUICK
@given(VALUES)
def test_any_value_in_place_of_a_document_is_read_or_refused(value):
    data = json.dumps(value, default=str).encode()
    for name in ("config", "catalog", "job-file", "preset", "json", "manifest", "complete", "bundle", "coco"):
        feed(readers()[name], data)


@QUICK
@given(st.sampled_from(["config", "catalog", "bundle", "coco", "zarr-v3", "zarr-v2", "ome-zarr"]), st.data())
def test_any_value_in_place_of_a_part_is_read_or_refused(name, data):
    reader = readers()[name]
    document = parse_yaml(reader.seeds()[0], name)
    holder, key = data.draw(st.sampled_from(_places(document)))
    holder[key] = data.draw(VALUES)
    feed(reader, json.dumps(document, default=str).encode())


def _places(value: object) -> list[tuple[dict | list, object]]:
    found: list[tuple[dict | list, object]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(value, key), *_places(inner)]
    return found


def refused(name: str, data: bytes) -> str:
    """Feed bytes that must be refused within seconds; returns the message."""
    begun = time.monotonic()
    error = feed(readers()[name], data)
    assert time.monotonic() - begun < LIMIT_S
    assert isinstance(error, InkbatchError), f"{name} took it"
    assert len(str(error)) < 1500
    return str(error)


@pytest.mark.parametrize("name", ["config", "catalog", "job-file", "preset"])
@pytest.mark.parametrize(
    "text",
    [
        b"a: \xff\xfe\n",
        b"a: 2001-99-99\n",
        b"a: 1_\n? [x]\n: 1\n",
        b"a: " + b"9" * 5000 + b"\n",
        b"a: !!int x\n",
        b"a: !!python/object/apply:os.system [x]\n",
        b"[" * 5000,
        b"a: &a [*a]\n",
        b"1: x\n",
        b"a: 1\na: 2\n",
        b"- 1\n",
        b"a: 'x\n",
        b"launch: .inf\n",
    ],
)
def test_odd_yaml_is_refused(name, text):
    refused(name, text)


@pytest.mark.parametrize("name", ["json", "manifest", "complete", "bundle", "index", "coco"])
@pytest.mark.parametrize(
    "text",
    [b"[" * 5000, b'{"a":' * 5000, b"\xff{}", b"[]", b"3", b'"x"', b"null", b'{"a": 1, "a": 2}', b"{", b"9" * 5000],
)
def test_odd_json_is_refused(name, text):
    refused(name, text)


def test_alias_bombs_end_by_name():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases" in refused("config", "\n".join(rows).encode())


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_members_of_an_export_that_unpack_to_gigabytes_end_by_name():
    data = bytearray(zipped({"annotations/instances_default.json": b"{}"}))
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (3 << 30).to_bytes(4, "little")  # the size once unpacked
    assert "unpacked" in refused("cvat", bytes(data))


def test_documents_of_an_export_are_bounded():
    assert "MiB" in refused("cvat", zipped({"annotations/instances_default.json": b" " * (65 << 20)}))


def test_checkpoints_that_unpack_to_many_times_their_size_end_by_name():
    assert "unpacks" in refused("torch", zipped({"archive/data.pkl": b"\0" * (80 << 20)}))


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("name", ["png", "picture"])
@pytest.mark.parametrize("edge", [20_000, 2_000_000_000])
def test_pictures_that_promise_more_than_they_hold_end_by_name(name, edge):
    refused(name, png(edge, edge))


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd"])
def test_tiffs_that_promise_more_than_they_hold_end_by_name(compression):
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), np.uint8), compression=compression)
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        tags = [tiff.pages[0].tags[name] for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
    for tag in tags:
        size = {3: 2, 4: 4}[int(tag.dtype)]
        data[tag.valueoffset : tag.valueoffset + size] = (60_000).to_bytes(size, "little")
    assert "promise" in refused("tiff", bytes(data)) or "unpacks" in refused("tiff", bytes(data))


@pytest.mark.parametrize(
    "shape",
    ["(99999999999, 99999999999, 99999999999)", "(-1, 2, 3)", "(2, 5)", "('a', 1, 1)", "(1e9, 1, 1)", "(" * 3000],
)
def test_npy_headers_that_lie_end_by_name(shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    refused("npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def test_npy_files_of_objects_are_not_unpickled():
    file = io.BytesIO()
    np.save(file, np.array([[[{}]]], dtype=object), allow_pickle=True)
    refused("npy", file.getvalue())


@pytest.mark.parametrize(
    "header",
    [
        b"{}", b"[]", b"\xff" * 8, b"{" * 5000, b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [99999999999], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}',
    ],
)  # fmt: skip
def test_malformed_safetensors_end_by_name(header):
    refused("safetensors", len(header).to_bytes(8, "little") + header + b"\0" * 4)
    refused("safetensors", (1 << 62).to_bytes(8, "little") + header)


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(1 << 40),
        torch.sparse_coo_tensor([[0], [0]], [1.0], (2, 2)),
        torch.quantize_per_tensor(torch.zeros(4), 1.0, 0, torch.qint8),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3, device="meta"),
    ],
    ids=["expanded", "sparse", "quantised", "complex", "meta"],
)
def test_strange_tensors_end_by_name(tensor):
    assert "'net.strange'" in refused("torch", saved({"net.strange": tensor}))


def test_a_checkpoint_whose_end_is_that_of_a_damaged_archive_ends_by_name():
    data = saved({"net.a": torch.zeros(1)})
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 5)  # of an archive on five disks
    end = data.rindex(b"PK\x05\x06")
    assert "directory cannot be read" in refused("torch", data[:end] + locator + data[end:])


def test_strokes_whose_lengths_do_not_fit_their_facts_end_by_name():
    whole = framed({"revision": 0}, [b"packed"])
    head, body = struct.unpack_from("<II", whole, 4)  # behind the magic
    moved = whole[:4] + struct.pack("<II", head + 3, body - 3) + whole[12:]
    assert "facts of a stroke" in refused("painted", moved)


def test_strange_names_are_shortened():
    name = "x\n" * 100_000
    message = refused("torch", saved({name: torch.zeros(3, dtype=torch.complex64)}))
    assert len(message) < 1000


def test_deeply_shared_lists_in_a_checkpoint_end_by_name_or_are_cut():
    shared: list[object] = [1]
    for _ in range(60):
        shared = [shared, shared]
    begun = time.monotonic()
    feed(readers()["torch"], saved({"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": {"deep": shared}}))
    assert time.monotonic() - begun < LIMIT_S


def test_programs_in_a_checkpoint_do_not_run(tmp_path):
    class Program:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    refused("torch", pickle.dumps({"a": Program()}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("colour", ["300,0,0", "99999999999999999999,0,0", "-1,0,0", "a,b,c", ""])
def test_colours_that_are_none_end_by_name(colour):
    refused("cvat", zipped({"labelmap.txt": f"ink:{colour}::\n".encode()}))


@pytest.mark.parametrize(
    "address", ["odd://x", "github://a", "file://host/x", "s3://key:pw@b/x", "\ta", "a ", "a\0b", " "]
)
def test_places_that_cannot_be_are_refused(address):
    message = refused("address", address.encode())
    assert "pw" not in message


@pytest.mark.parametrize("words", ['--set "a', "it's", "a\\"])
def test_quotes_that_are_not_closed_are_refused(words):
    assert "shell" in refused("words", words.encode())


def test_json_and_yaml_agree_on_what_is_refused():
    for text in ("[" * 5000, '{"a": 1, "a": 2}'):
        for parse in (parse_json, parse_yaml):
            with pytest.raises(InkbatchError):
                parse(text, "here")


def test_a_sound_file_is_read():
    assert feed(readers()["safetensors"], safetensors.torch.save({"a": torch.zeros(2)})) is None
