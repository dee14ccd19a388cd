"""The spacing of stored values: any unit, three axes, placeholders, and the marks of a renderer."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkbatch.io.layers.spacing import NamedSize, size_in_name, sizes_beside
from inkbatch.io.ome import Spacing, ome_spacing, unit_um
from inkbatch.io.store.location import Location

MARKS = {"source_zarr": "scan.zarr", "source_group": 0, "slice_step": 1.0, "canvas_size": [9, 9], "num_slices": 5}


def image(unit: str | None, *scales: list[float]) -> dict:
    axes = [{"name": axis, "type": "space", **({"unit": unit} if unit else {})} for axis in "zyx"]
    levels = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": s}]} for n, s in enumerate(scales)
    ]
    return {"axes": axes, "datasets": levels}


def read(unit: str | None, *scales: list[float], level: int = 0, **attributes) -> Spacing:
    return ome_spacing(image(unit, *scales), level, "zyx", attributes)


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("micrometer", 1), ("micrometre", 1), ("Micrometers", 1), ("microns", 1), ("um", 1),
        ("\u00b5m", 1), ("\u03bcm", 1), ("nanometre", 1e-3), ("nm", 1e-3), ("mm", 1e3), ("millimetres", 1e3),
        ("cm", 1e4), ("meter", 1e6), ("m", 1e6), ("angstrom", 1e-4), ("picometer", 1e-6), ("inch", 25400),
        ("pixel", None), ("second", None), ("furlongmeter", None), (None, None),
    ],
)  # fmt: skip
def test_every_spelling_of_a_length_is_known(unit, um) -> None:
    assert unit_um(unit) == (pytest.approx(um) if um else None)


def test_all_three_axes_are_read() -> None:
    found = read("\u03bcm", [2.399, 2.399, 2.399], [2.399, 4.798, 4.798], [2.399, 9.596, 9.596], level=2)
    assert (found.z, found.plane) == (2.399, 9.596)
    assert found.depth_ratio == pytest.approx(1 / 4)


def test_rows_and_columns_that_differ_are_both_there_but_no_pixel_size() -> None:
    found = read("micrometer", [7.91, 7.91, 3.24])
    assert (found.y, found.x, found.plane) == (7.91, 3.24, None)


@pytest.mark.parametrize("unit", ["nanometer", "nm", None])
@pytest.mark.parametrize("level", [0, 2])
def test_scale_one_is_a_placeholder_whose_ratio_still_counts(unit, level) -> None:
    found = read(unit, [1, 1, 1], [1, 2, 2], [1, 4, 4], level=level)
    assert (found.z, found.y, found.x) == (None, None, None)
    assert found.depth_ratio == pytest.approx(1 / 2**level)


def test_the_renderer_that_knows_nothing_states_nothing() -> None:
    found = read("nanometer", [1, 1, 1], [1, 2, 2], level=1, **{**MARKS, "source_group": 2, "slice_step": 2.0})
    assert found.plane is None
    assert found.renderer
    assert "unstated" in str(found.reading)
    assert found.depth_ratio == pytest.approx(2 / 8)  # two voxels of the scan, over pixels of 2**2 * 2


def test_the_renderer_labels_micrometres_nanometre_and_leaves_level_and_step_out() -> None:
    marks = {**MARKS, "source_group": 1, "slice_step": 0.5}
    found = read("nanometer", [2.4, 2.4, 2.4], [2.4, 4.8, 4.8], level=1, **marks)
    assert (found.z, found.plane) == (pytest.approx(1.2), pytest.approx(9.6))
    assert "2.4 µm, labelled nanometer" in str(found.reading)


def test_true_nanometres_of_the_renderer_are_nanometres() -> None:
    found = read("nanometer", [2400, 2400, 2400], **MARKS)
    assert (found.z, found.plane) == (pytest.approx(2.4), pytest.approx(2.4))


@pytest.mark.parametrize(
    ("name", "um"),
    [
        ("9.362um-1.2m-113keV-volume-20250101.zarr", 9.362),
        ("2.4um_PHerc0332.zarr", 2.4),
        ("8.64 µm.zarr", 8.64),
        ("54keV_7.91um_Scroll1A", 7.91),
        ("2.4um-from-9.6um.zarr", None),
        ("20230205180739", None),
        ("1.2m-113keV", None),
        ("12umbrellas", None),
        ("0um.zarr", None),
    ],
)
def test_a_name_states_the_one_size_in_it(name, um) -> None:
    found = size_in_name(name)
    assert (found[0] if found else None) == um


def test_files_beside_the_layers_are_found(tmp_path: Path) -> None:
    layers = tmp_path / "9um.zarr"
    layers.mkdir()
    (layers / "meta.json").write_text('{"voxelsize": 9.362, "type": "vol"}')
    (layers / "metadata.json").write_text("[" * 5000)
    (tmp_path / "volume_source.txt").write_text("volumes/9.362um-1.2m-113keV-volume-20250101.zarr\n")
    found = sizes_beside(Location.parse(layers))
    assert [(size.place, size.um) for size in found] == [
        ("meta.json", 9.362),
        ("volume_source.txt", 9.362),
        ("its name 9um.zarr", 9.0),
    ]
    assert found[-1] == NamedSize("its name 9um.zarr", 9.0, within=pytest.approx(0.5 / 9))
