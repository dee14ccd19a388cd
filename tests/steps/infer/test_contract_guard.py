"""One mismatch at a time between bundle and volume: each ends in a refusal that names it, or in a recorded override."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import zarr

from inkbatch.errors import InkbatchError
from inkbatch.io.store.location import Location
from inkbatch.models import build_model
from inkbatch.models.bundle import Bundle, BundleDocument, Contract, LayerRule
from inkbatch.models.rules import Normaliser, Stitching
from inkbatch.run.job import RunContext
from inkbatch.steps.infer.job import InferConfig, run
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.steps.probe.job import ProbeConfig
from inkbatch.steps.probe.job import run as run_probe
from inkbatch.testing.segments import identity_bundle, network_bundle, random_papyrus


@dataclass
class Case:
    """Material that a seed may spoil."""

    segment: Any
    bundle: Path
    prepare: Callable[..., Any]
    folder: Path

    def edit_bundle(self, **changes: Any) -> None:
        """Change values of the contract in ``bundle.json`` by hand."""
        self.edit(self.bundle / "bundle.json", lambda document: document["contract"].update(changes))

    def edit_surface(self, **changes: Any) -> None:
        """Change what ``surface.zarr`` says of itself."""
        place = self.segment.folder / "surface.zarr" / "zarr.json"
        self.edit(place, lambda document: document["attributes"]["inkbatch"].update(changes))

    def edit_axes(self, change: Callable[[list[dict[str, str]]], None]) -> None:
        place = self.segment.folder / "surface.zarr" / "zarr.json"
        self.edit(place, lambda document: change(document["attributes"]["ome"]["multiscales"][0]["axes"]))

    @staticmethod
    def edit(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
        document = json.loads(place.read_text())
        change(document)
        place.write_text(json.dumps(document))

    def weights(self, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
        """Exchange tensors of the weights, and state their digest as a careful hand would."""
        network_bundle(self.bundle)
        place = self.bundle / "weights.safetensors"
        tensors = safetensors.torch.load_file(place)
        change(tensors)
        safetensors.torch.save_file(tensors, place)
        found = hashlib.sha256(place.read_bytes()).hexdigest()
        self.edit(self.bundle / "bundle.json", lambda document: document.update(weights_sha256=found))

    def source(self, axes: list[dict[str, str]], shape: tuple[int, ...], scale: float = 8.0) -> Path:
        """An OME-Zarr image of two levels as a source."""
        group = zarr.open_group(self.folder / "source.zarr", mode="w", zarr_format=3)
        datasets = []
        for level in range(2):
            smaller = tuple(
                side // 2**level if axis["name"] in "yx" else side for axis, side in zip(axes, shape, strict=True)
            )
            array = group.create_array(str(level), shape=smaller, dtype="uint8", chunks=smaller)
            array[...] = np.random.default_rng(level).integers(1, 255, smaller, dtype=np.uint8)
            sizes = [scale * 2**level if axis["name"] in "yx" else 1.0 for axis in axes]
            datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": sizes}]})
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
        return self.folder / "source.zarr"


@pytest.fixture
def case(tmp_path, tiny_segment, prepare_config) -> Case:
    identity_bundle(tmp_path / "bundle")
    return Case(tiny_segment, tmp_path / "bundle", prepare_config, tmp_path)


def space(name: str) -> dict[str, str]:
    return {"name": name, "type": "space", "unit": "micrometer"}


def saved_with(**contract: Any) -> Callable[[Case], None]:
    """The bundle was made for something else."""

    def seed(case: Case) -> None:
        identity_bundle(case.bundle, **contract)

    return seed


def edited(**contract: Any) -> Callable[[Case], None]:
    """Somebody edited ``bundle.json``."""
    return lambda case: case.edit_bundle(**contract)


def lying_surface(**provenance: Any) -> Callable[[Case], None]:
    """Somebody edited what the surface says of itself."""
    return lambda case: case.edit_surface(**provenance)


def reprepared(case: Case, source: Path, **changes: Any) -> None:
    """Prepare the segment anew from another source, with what a user would state."""
    for part in ("surface.zarr", "mask.zarr", "prepare"):
        for path in sorted((case.segment.folder / part).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    run_prepare(case.prepare(source, **changes), RunContext())


def level_one(case: Case) -> None:
    reprepared(case, case.source([space(axis) for axis in "zyx"], (5, 128, 128)), level=1)


def level_one_told(case: Case) -> None:
    """The coarser level was chosen, and its voxel size stated as it is."""
    source = case.source([space(axis) for axis in "zyx"], (5, 128, 128))
    reprepared(case, source, level=1, voxel_size_um=16.0)


def misnamed_axes(case: Case) -> None:
    """Layers that lie last are stated to lie first."""
    array = zarr.open_array(case.folder / "plain.zarr", mode="w", shape=(96, 80, 5), chunks=(96, 80, 5), dtype="uint8")
    array[...] = np.moveaxis(random_papyrus((5, 96, 80)), 0, 2)
    reprepared(case, case.folder / "plain.zarr", axes="zyx")


def three_channels(case: Case) -> None:
    axes = [{"name": "c", "type": "channel"}, space("z"), space("y"), space("x")]
    reprepared(case, case.source(axes, (3, 5, 64, 64)))


def fewer_channels(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name] = tensors[name][:, :1].contiguous()


def undivided_tile(case: Case) -> None:
    """A bundle whose network wants tiles of whole strides, with a contract of other tiles."""
    config = {"depth_layers": 3, "family": "Linknet", "encoder": "timm-mobilenetv3_small_minimal_100"}
    contract = Contract(layers=LayerRule(count=3), voxel_size_um=8.0, tile_px=40, stride_px=20)
    document = BundleDocument(name="linknet", architecture="smp", model=config, contract=contract)
    Bundle.save(Location.parse(case.bundle), build_model("smp", config), document)


def deeper_network(case: Case) -> None:
    case.edit(case.bundle / "bundle.json", lambda document: document["model"].update(depth_layers=4))


def forged_record(case: Case) -> None:
    """Surface and manifest were both edited, and tell the same story."""
    case.edit_surface(depth_order="reversed")
    place = case.segment.folder / "prepare" / "manifest.json"
    case.edit(place, lambda document: document["config"].update(depth_order="reversed"))


def normalised(**changes: Any) -> Callable[[Case], None]:
    """A bundle with robust MAD, in whose ``bundle.json`` somebody changed a value of the normaliser, or took it out."""

    def seed(case: Case) -> None:
        identity_bundle(case.bundle, normaliser={"kind": "robust-mad"})
        whole = {**Normaliser(kind="robust-mad").model_dump(), **changes}
        if changes.get("kind", "robust-mad") is None:
            case.edit(case.bundle / "bundle.json", lambda document: document["contract"].pop("normaliser") and None)
        else:
            case.edit_bundle(normaliser=whole)

    return seed


def stitched(**changes: Any) -> Callable[[Case], None]:
    """Somebody stated a stitching rule in ``bundle.json``."""
    return edited(stitching=changes)


REFUSED: dict[str, tuple[Callable[[Case], None], str]] = {
    "divisor": (edited(divisor=200), r"divisor \(now 200\.0\)"),
    "mean": (edited(mean=0.4), r"mean \(now 0\.4\)"),
    "std": (edited(std=0.2), r"std \(now 0\.2\)"),
    "clip": (edited(clip=[0, 200]), r"clip \(now \[0\.0, 200\.0\]\)"),
    "16->8 rule": (saved_with(intensity=("window:*",)), "intensity: bundle expects window"),
    "16->8 rule, edited bundle": (edited(intensity=["window:0:9"]), r"intensity \(now"),
    "16->8 rule, edited surface": (lying_surface(intensity="high-byte"), "intensity: the surface says 'high-byte'"),
    "dtype": (saved_with(dtype="uint16"), "dtype: bundle expects uint16, surface is uint8"),
    "lookup table": (saved_with(lut=((0, 0), (128, 64), (255, 255))), "lut: bundle expects"),
    "lookup table, edited surface": (lying_surface(lut=[[0, 0], [255, 255]]), "lut: the surface says"),
    "CLAHE": (saved_with(clahe={"clip_limit": 2.0, "cell_px": 128}), "clahe: bundle expects"),
    "depth order, edited bundle": (edited(depth_order="reversed"), r"depth_order \(now 'reversed'\)"),
    "depth order, edited surface": (lying_surface(depth_order="reversed"), "depth_order: the surface says 'reversed'"),
    "depth order, edited record": (forged_record, "its digest does not match"),
    "layer count": (lambda case: identity_bundle(case.bundle, layers=9) and None, "expects 9 layers, surface has 5"),
    "layer count, edited network": (deeper_network, r"model \(now .*copy the bundle again$"),
    "window": (
        saved_with(layers_range=(4, 7)),
        r"inside 0:5 \(all of the surface\), got 4:7",
    ),
    "window, edited surface": (lying_surface(source_layers=[10, 15]), r"source_layers: the surface says \[10, 15\]"),
    "window, of blending": (edited(window="uniform"), r"window \(now 'uniform'\)"),
    "voxel size": (saved_with(voxel_size_um=3.24), "voxel_size_um: bundle expects 3.24"),
    "voxel size, edited surface": (lying_surface(voxel_size_um=8.1), "voxel_size_um: the surface says 8.1"),
    "kind of pictures": (saved_with(reads="pictures"), "reads pictures, expected one that"),
    "spacing of layers": (saved_with(z_spacing_um=2.0), r"z_spacing_um: bundle expects 2 µm.*--resample 2,8,8"),
    "spacing of layers, edited bundle": (edited(z_spacing_um=2.0), r"z_spacing_um \(now 2\.0\)"),
    "spacing of layers, edited surface": (lying_surface(z_spacing_um=2.0), "z_spacing_um: the surface says 2.0"),
    "level": (level_one, "got voxel_size_um 8, but .* states 16 µm in its OME metadata"),
    "level, stated as it is": (level_one_told, r"voxel_size_um: bundle expects 8\.0 .*surface has 16\.0"),
    "axis order, surface": (
        lambda case: case.edit_axes(lambda axes: axes.reverse()),
        "expected axes .*run inkbatch prepare",
    ),
    "axis order, source": (misnamed_axes, "96 layers of 80 x 5 px: deeper than wide"),
    "channel meaning, surface": (
        lambda case: case.edit_axes(lambda axes: axes[0].update(type="channel", name="c")),
        "expected axes .*all of them space",
    ),
    "channel meaning, source": (three_channels, "axis 'c' has 3 entries"),
    "tile size, edited bundle": (edited(tile_px=32), r"tile_px \(now 32\)"),
    "tile size, of the network": (
        undivided_tile,
        "a tile of 40 x 40 px is not a multiple of 32 px",
    ),
    "stride": (edited(stride_px=16), r"stride_px \(now 16\)"),
    "activation": (edited(activation="sigmoid"), r"activation \(now 'sigmoid'\)"),
    "scaling": (edited(scaling="multiply"), r"scaling \(now 'multiply'\)"),
    "normaliser": (edited(normaliser={"kind": "robust-mad"}), r"normaliser \(now \{'kind': 'robust-mad'"),
    "normaliser, percentiles": (normalised(percentiles=[0.5, 99.5]), r"normaliser \(now .*99\.5"),
    "normaliser, statistics": (normalised(statistics="segment"), r"normaliser \(now .*'segment'"),
    "normaliser, what counts": (normalised(counts="nonzero"), r"normaliser \(now .*'nonzero'"),
    "normaliser, taken out": (normalised(kind=None), r"normaliser \(now 'its default'\)"),
    "normaliser, of the network": (
        saved_with(normaliser={"kind": "network"}),
        "first layer of identity does not take the tile's own statistics, .* normaliser is 'network'",
    ),
    "centre of the layers": (edited(layers={"count": 3, "centre": "halves"}), r"layers \(now .*'halves'"),
    "order of the choice": (edited(layers={"count": 3, "counted_in": "reading"}), r"layers \(now .*'reading'"),
    "window, of 2026": (edited(window="gaussian-cdf"), r"window \(now 'gaussian-cdf'\)"),
    "stitching, divisor": (stitched(divide_by="count"), r"stitching \(now .*'count'"),
    "stitching, last tile": (stitched(last_tile="none"), r"stitching \(now .*'last_tile': 'none'"),
    "stitching, tiles": (stitched(tiles="whole"), r"stitching \(now .*'whole'"),
    "stitching, closing": (stitched(closing_px=7), r"stitching \(now .*'closing_px': 7"),
    "stitching, empty tiles": (stitched(empty_tiles="count"), r"stitching \(now .*'empty_tiles': 'count'"),
    "stitching, outside": (stitched(outside="keep"), r"stitching \(now .*'keep'"),
    "display range": (edited(display_range=[0.25, 0.75]), r"display_range \(now \[0\.25, 0\.75\]\)"),
    "rounding of exports": (edited(export_rounding="truncate"), r"export_rounding \(now 'truncate'\)"),
    "width of boundaries": (edited(boundary_px=3), r"boundary_px \(now 3\)"),
    "checkpoint keys, missing": (
        lambda case: case.weights(lambda tensors: tensors.pop(next(iter(tensors))) and None),
        "keys do not match .*missing",
    ),
    "checkpoint keys, unexpected": (
        lambda case: case.weights(lambda tensors: tensors.update(surplus=torch.zeros(1))),
        "keys do not match .*unexpected surplus",
    ),
    "checkpoint keys, another shape": (lambda case: case.weights(fewer_channels), r"keys do not match .*: model \("),
    "weights, exchanged": (
        lambda case: (case.bundle / "weights.safetensors").write_bytes(b"other") and None,
        "sha256 is",
    ),
}


def infer_config(case: Case, **changes: Any) -> InferConfig:
    values = {"segment": case.segment.segment, "root": str(case.segment.root), "bundle": str(case.bundle)}
    return InferConfig(**{**values, "device": "cpu", "unit_px": 64, **changes})


def pictures(case: Case) -> list[Path]:
    """Anything that could be taken for a map."""
    found = case.segment.root / "predictions"
    return [path for path in found.rglob("*") if path.name == "preview.png" or "/c/" in str(path)]


@pytest.mark.parametrize("mismatch", REFUSED)
def test_a_mismatch_is_refused_by_name_and_leaves_no_picture(case, mismatch):
    seed, words = REFUSED[mismatch]

    def seeded_run() -> None:
        seed(case)  # some mismatches are refused on preparing
        run(infer_config(case), RunContext())

    with pytest.raises(InkbatchError, match=words) as caught:
        seeded_run()
    assert caught.value.exit_code in (64, 65)
    assert pictures(case) == []


@pytest.mark.parametrize("mismatch", REFUSED)
def test_a_probe_refuses_the_same_and_leaves_no_verdict(case, mismatch):
    seed, words = REFUSED[mismatch]

    def seeded_probe() -> None:
        seed(case)
        values = {"segment": case.segment.segment, "root": str(case.segment.root), "bundle": str(case.bundle)}
        run_probe(ProbeConfig(**values, at=((0, 0),), window_px=32, device="cpu"), RunContext())

    with pytest.raises(InkbatchError, match=words):
        seeded_probe()
    assert list((case.segment.root / "probes").rglob("verdict.json")) == []


OVERRIDDEN: dict[str, tuple[Callable[[Case], None], dict[str, Any]]] = {
    "divisor": (edited(divisor=400), {"divisor": 400}),
    "clip": (edited(clip=[0, 200]), {"clip": [0, 200]}),
    "16->8 rule": (saved_with(intensity=("window:*",)), {"intensity": ["keep"]}),
    "lookup table": (saved_with(lut=((0, 0), (255, 255))), {"lut": None}),
    "CLAHE": (saved_with(clahe={"clip_limit": 2.0, "cell_px": 128}), {"clahe": None}),
    "depth order": (edited(depth_order="reversed"), {"depth_order": "reversed"}),
    "voxel size": (saved_with(voxel_size_um=3.24), {"voxel_size_um": 8.0}),
    "window": (saved_with(layers_range=(4, 7)), {"layers": {"count": 3, "source_range": [1, 4]}}),
    "tile size": (edited(tile_px=32), {"tile_px": 32}),
    "stride": (edited(stride_px=16), {"stride_px": 16}),
    "blending": (edited(window="uniform"), {"window": "uniform"}),
    "stitching": (edited(stitching={"divide_by": "count"}), {"stitching": {"divide_by": "count"}}),
    "one rule of stitching": (saved_with(), {"stitching.empty_tiles": "count", "stitching.outside": "keep"}),
    "display range": (edited(display_range=[0.2, 0.8]), {"display_range": [0.2, 0.8]}),
}


@pytest.mark.parametrize("mismatch", OVERRIDDEN)
def test_an_override_is_carried_out_and_recorded(case, mismatch):
    seed, override = OVERRIDDEN[mismatch]
    seed(case)
    report = run(infer_config(case, override=override), RunContext())
    manifest = json.loads(Path(str(report.location / "manifest.json")).read_text())
    assert report.complete
    assert manifest["config"]["override"] == override
    assert pictures(case)


def test_what_the_issue_lists_is_in_the_table():
    listed = ["divisor", "clip", "16->8 rule", "lookup table", "CLAHE", "depth order", "layer count", "window"]
    listed += ["normaliser", "scaling", "stitching", "display range", "centre of the layers", "rounding of exports"]
    listed += ["voxel size", "level", "axis order", "channel meaning", "tile size", "checkpoint keys"]
    assert [name for name in listed if not any(row.startswith(name) for row in REFUSED)] == []


ROWS_OF_RULES = {
    "reads": "kind of pictures",
    "z_spacing_um": "spacing of layers",
    "scaling": "scaling",
    "normaliser.kind": "normaliser",
    "normaliser.percentiles": "normaliser, percentiles",
    "normaliser.statistics": "normaliser, statistics",
    "normaliser.counts": "normaliser, what counts",
    "layers.centre": "centre of the layers",
    "layers.counted_in": "order of the choice",
    "stitching.divide_by": "stitching, divisor",
    "stitching.last_tile": "stitching, last tile",
    "stitching.tiles": "stitching, tiles",
    "stitching.closing_px": "stitching, closing",
    "stitching.empty_tiles": "stitching, empty tiles",
    "stitching.outside": "stitching, outside",
    "display_range": "display range",
    "export_rounding": "rounding of exports",
    "boundary_px": "width of boundaries",
}


def test_every_rule_that_came_later_has_a_row():
    rules = {f"normaliser.{key}" for key in Normaliser.model_fields}
    rules |= {f"stitching.{key}" for key in Stitching.model_fields}
    rules |= {f"layers.{key}" for key in LayerRule.younger}
    rules |= Contract.younger - {"normaliser", "stitching"}
    assert set(ROWS_OF_RULES) == rules
    assert set(ROWS_OF_RULES.values()) <= set(REFUSED)


def test_layers_asked_for_in_another_number_are_refused(case):
    with pytest.raises(InkbatchError, match="the bundle expects 3"):
        run(infer_config(case, layers=(0, 4)), RunContext())
    assert pictures(case) == []
