"""Units of prepare: what is mapped and what is decoded give the same bytes, in memory that is used again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr

from inkbatch.io.layers.zarr_layers import ZarrLayers
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.io.surface_writer import ConvertedUnit, MappedUnit, SurfaceWriter
from inkbatch.io.unit_buffers import BufferShelf, UnitBuffers
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare import job as prepare
from inkbatch.testing.segments import random_papyrus, write_layers


def stored(config) -> dict[str, bytes]:
    """The arrays' objects, by name."""
    folder = Path(config.root) / "segments" / config.segment
    files = [path for name in ("surface.zarr", "mask.zarr") for path in (folder / name).rglob("c/**/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


@pytest.mark.parametrize("shape", [(5, 150, 1210), (17, 1101, 70), (3, 64, 64)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"intensity": "keep"},
        {"depth_order": "reversed", "intensity": "window:1000:50000"},
        {"lut": ((0, 0), (128, 64), (255, 255)), "shard_px": 32},
    ],
    ids=lambda settings: "-".join(settings) or "usual",
)
def test_mapped_and_decoded_sources_give_the_same_bytes(tmp_path, prepare_config, monkeypatch, shape, settings):
    layers = random_papyrus(shape, dtype="uint16")
    layers[:, 10:14, 20:25] = 0
    mapped = prepare_config(write_layers(tmp_path / "raw", layers, rowsperstrip=16), segment="raw", **settings)
    decoded = prepare_config(
        write_layers(tmp_path / "lzw", layers, rowsperstrip=16, compression="lzw"), segment="lzw", **settings
    )
    seen = []
    real = SurfaceWriter.store

    def watched(writer, unit):
        seen.append(type(unit))
        return real(writer, unit)

    monkeypatch.setattr(SurfaceWriter, "store", watched)
    prepare.run(mapped, RunContext())
    assert set(seen) == {MappedUnit}
    seen.clear()
    prepare.run(decoded, RunContext())
    assert set(seen) == {ConvertedUnit}
    found = stored(mapped)
    assert found == stored(decoded)
    assert len(found) >= 2


def test_a_given_mask_is_taken_for_a_mapped_source(tmp_path, prepare_config):
    layers = random_papyrus((4, 130, 90))
    given = np.zeros((130, 90), np.uint8)
    given[7:100, 3:70] = 200
    cv2.imwrite(str(tmp_path / "mask.png"), given)
    config = prepare_config(write_layers(tmp_path / "raw", layers), mask=str(tmp_path / "mask.png"))
    prepare.run(config, RunContext())
    mask = Multiscale.open(Location.parse(config.root) / "segments" / "tiny" / "mask.zarr")
    np.testing.assert_array_equal(mask.levels[0].read((slice(0, 130), slice(0, 90))), given > 0)


def test_memory_of_one_unit_serves_the_next(tmp_path):
    surface = Multiscale.create(
        Location.parse(tmp_path / "surface.zarr"),
        (3, 2100, 1300),
        dtype="uint8",
        chunk=(3, 64, 64),
        shard_px=512,
        voxel_size_um=8.0,
        provenance={},
    )
    shelf = BufferShelf(surface)
    buffers = shelf.take()
    first = buffers.cut((3, 512, 1300))
    shelf.give(buffers)
    smaller = shelf.take().cut((3, 511, 276))
    assert [level.shape for level in smaller] == [(3, 511, 276), (3, 256, 138), (3, 128, 69)]
    assert all(np.shares_memory(one, other) for one, other in zip(first, smaller, strict=True))
    assert [level.shape for level in UnitBuffers(surface).cut((3, 9, 7), halves_only=True)] == [(3, 5, 4), (3, 3, 2)]


@pytest.mark.parametrize("settings", [{}, {"depth_order": "reversed"}, {"layers": (1, 9)}])
def test_layers_that_are_stored_together_are_decoded_together(tmp_path, prepare_config, monkeypatch, settings):
    layers = random_papyrus((10, 90, 120), dtype="uint8")
    plain = prepare_config(write_layers(tmp_path / "tif", layers), segment="plain", **settings)
    array = zarr.create_array(tmp_path / "blocks.zarr", shape=layers.shape, dtype="uint8", chunks=(4, 32, 32))
    array[:] = layers
    blocks = prepare_config(tmp_path / "blocks.zarr", segment="blocks", axes="zyx", **settings)
    reads = []
    real = ZarrLayers.read

    def watched(self, layers, box, out=None):
        reads.append((layers.start, layers.stop, box))
        return real(self, layers, box, out)

    monkeypatch.setattr(ZarrLayers, "read", watched)
    prepare.run(plain, RunContext())
    prepare.run(blocks, RunContext())
    assert stored(plain) == stored(blocks)
    wanted = range(*settings.get("layers", (0, 10)))
    expected = [(max(start, wanted.start), min(start + 4, wanted.stop)) for start in range(0, wanted.stop, 4)]
    assert len(set(reads)) == len(reads)
    for box in {box for _, _, box in reads}:
        assert [(first, last) for first, last, at in reads if at == box] == expected
