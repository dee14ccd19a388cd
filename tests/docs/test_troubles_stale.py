"""Results that are older than their inputs, or not whole: every message of docs/troubleshooting.md is provoked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zarr

from inkbatch.run import pipeline
from inkbatch.run.record import RunFolder
from inkbatch.testing.segments import random_papyrus, write_layers
from inkbatch.testing.training import tiny_dataset, tiny_run
from inkbatch.testing.troubles import SHAPE, Troubles

TROUBLES = Troubles()
provokes = TROUBLES.provokes

SEGMENT, MAP = Path("root/segments/tiny"), Path("root/predictions/tiny/a")
OTHER = 255 - random_papyrus(SHAPE)


# ---- inputs that changed ---------------------------------------------------------------------------------------------


@provokes("was made from inputs that have changed since")
def _(desk):
    write_layers(desk.prepared().layers, OTHER)
    return desk.prepare()


@provokes("changed while they were read")
def _(desk, monkeypatch):
    loop = pipeline.run_units

    def changed_meanwhile(*given, **how):
        count = loop(*given, **how)
        write_layers(desk.layers, OTHER)
        return count

    monkeypatch.setattr("inkbatch.run.job.run_units", changed_meanwhile)
    return desk.prepare()


@provokes("the surface of … has changed since this was made from it")
def _(desk):
    write_layers(desk.inferred().layers, OTHER)
    assert desk.prepare("--replace")[0] == 0
    return desk.says("export", "tiny", "--to", "map.png")


@provokes("what it was built from has changed since")
def _(desk):
    tiny_dataset(desk.folder / "root")
    values = {"name": "d", "segments": ["s0", "s1"], "sample_px": 32, "sampling": {"kind": "grid", "stride_px": 32}}
    splits = {"kind": "lists", "train": ["s0"], "validation": ["s1"]}
    Path("d.yaml").write_text(json.dumps({**values, "splits": splits}))
    assert desk.says("build-dataset", "--config", "d.yaml")[0] == 0
    source = write_layers(desk.folder / "other", random_papyrus((4, 96, 96)))
    facts = ("--depth-order", "forward", "--voxel-size-um", "8")
    assert desk.says("prepare", "s0", "--source", source, *facts, "--replace")[0] == 0
    Path("run.yaml").write_text(json.dumps(tiny_run(desk.folder / "root", dataset="d")))
    return desk.says("train", "--config", "run.yaml")


# ---- two jobs that want one place ------------------------------------------------------------------------------------


@provokes("its manifest was removed while this job ran")
def _(desk, monkeypatch):
    mark = RunFolder.mark

    def marked_and_removed(self, unit, facts):
        mark(self, unit, facts)
        (SEGMENT / "prepare/manifest.json").unlink(missing_ok=True)

    monkeypatch.setattr(RunFolder, "mark", marked_and_removed)
    return desk.prepare()


@provokes("--replace with … shards would remove what another one has just written")
def _(desk):
    return desk.prepared().prepare("--set", "codec=zstd", "--shard", "0/2", "--replace")


# ---- objects that are not there, or not what was written -------------------------------------------------------------


@provokes("lost objects")
def _(desk):
    desk.inferred()
    (MAP / "prediction.zarr/0/c/0/0").unlink()
    return desk.says("pull", "tiny", "--to", "here")


@provokes("objects that were stored are missing, again after they were stored once more")
def _(desk, monkeypatch):
    mark = RunFolder.mark

    def marked_and_lost(self, unit, facts):
        mark(self, unit, facts)
        (SEGMENT / "surface.zarr/0/c/0/0/0").unlink(missing_ok=True)

    monkeypatch.setattr(RunFolder, "mark", marked_and_lost)
    return desk.prepare()


@provokes("objects are not what was written")
def _(desk):
    desk.prepared()
    place = SEGMENT / "surface.zarr/0/c/0/0/0"
    place.write_bytes(place.read_bytes()[:-7])
    return desk.says("verify", "root")


@provokes("chunks of … are not stored and read as its fill value")
def _(desk):
    array = zarr.create_array(desk.folder / "cube.zarr", shape=(5, 64, 64), chunks=(5, 16, 16), dtype="uint8")
    array[:] = random_papyrus((5, 64, 64)) | 1
    for x in range(4):
        (desk.folder / f"cube.zarr/c/0/0/{x}").unlink()
    return desk.prepare("--set", "axes=zyx", "--set", "max_missing=0.1", source=desk.folder / "cube.zarr")


@provokes("expected chunk names with '.' as its metadata state, got names with '/' (nested)")
def _(desk):
    nested = {"name": "v2", "separator": "/"}
    how = {"chunks": (5, 32, 32), "dtype": "uint8", "zarr_format": 2, "chunk_key_encoding": nested}
    array = zarr.create_array(desk.folder / "v2.zarr", shape=(5, 64, 64), **how)
    array[:] = random_papyrus((5, 64, 64)) | 1
    place = desk.folder / "v2.zarr/.zarray"
    metadata = json.loads(place.read_text())
    del metadata["dimension_separator"]
    place.write_text(json.dumps(metadata))
    return desk.prepare("--set", "axes=zyx", source=desk.folder / "v2.zarr")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("heading", TROUBLES.headings())
def test_the_message_says_the_words_of_the_page_and_ends_with_its_code(heading, desk, request):
    TROUBLES.check(heading, desk, request.getfixturevalue)
