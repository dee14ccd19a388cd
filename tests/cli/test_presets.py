"""Every shipped preset runs through the command line on phantoms or generated data: small, but whole in structure."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from inkbatch.cli.app import app
from inkbatch.cli.outcome import run_command
from inkbatch.config import read_yaml
from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.geometry import Box
from inkbatch.io.clahe import equalise
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ClaheSettings
from inkbatch.models.bundle import Bundle
from inkbatch.models.presets import load_preset
from inkbatch.presets import load_preset as load_job_preset
from inkbatch.presets import preset_names
from inkbatch.testing.segments import write_layers
from inkbatch.training.metrics import OVERALL

REPOSITORY = Path(__file__).parent.parent.parent
SHAPE = (160, 192)
SMALL_NET = ["model.config.decoder={encoder_depth: 3, decoder_channels: [16, 8, 8]}"]
QUICK = ["epochs=1", "batch=4", "device=cpu", "threads=2"]


def inkbatch(*arguments: Any, sets: list[str] = (), code: int = 0) -> None:
    words = [str(word) for word in arguments]
    for item in sets:
        words += ["--set", item]
    assert run_command(lambda: app(args=words, standalone_mode=False)) == code


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory: presets name their inputs relative to it."""
    monkeypatch.chdir(tmp_path)
    for name in ("INKBATCH_ROOT", "INKBATCH_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def letters(seed: int) -> np.ndarray:
    """A picture of letters (Y, X), 0 or 255."""
    picture = np.zeros(SHAPE, np.uint8)
    rng = np.random.default_rng(seed)
    for y in (60, 130):
        for x in (8, 72, 132):
            text = "ABOPTX"[int(rng.integers(6))]
            cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 2.2, 255, 9)
    return picture


def phantom(name: str, layers: int, seed: int, labels: str, **prepare: Any) -> None:
    """Plant letters into noise through the command line, prepare the result, and put the truth where labels lie."""
    stack = np.random.default_rng(seed).integers(70, 150, (layers, *SHAPE), dtype=np.uint8)
    write_layers(Path(f"papyrus/{name}"), stack)
    Path("letters").mkdir(exist_ok=True)
    cv2.imwrite(f"letters/{name}.png", letters(seed))
    place = Path(labels.format(segment=name))
    ink = ["amplitude=40", f"depth_layer={layers // 2}"]
    places = [f"source=papyrus/{name}", f"labels=letters/{name}.png", f"output=phantoms/{name}"]
    inkbatch("phantom", sets=[*places, *ink])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(Path(f"phantoms/{name}/truth.png").read_bytes())
    extra = [word for key, value in prepare.items() for word in (f"--{key}", value)]
    stated = ["--depth-order", "forward", "--voxel-size-um", 8, "--set", "shard_px=64"]
    inkbatch("prepare", name, "--source", f"phantoms/{name}/layers", *stated, *extra)


def index_of(name: str) -> DatasetIndex:
    return DatasetIndex.open(Location.parse(f"root/datasets/{name}"))


def bundle_of(run: str) -> Bundle:
    return Bundle.open(Location.parse(f"root/runs/{run}/bundle"))


def resolved(run: str) -> dict[str, Any]:
    """The settings that the run was carried out with."""
    return json.loads(Path(f"root/runs/{run}/manifest.json").read_text())["config"]


@pytest.mark.parametrize(
    "name", ["first-letters-synthetic", pytest.param("first-letters-coco", marks=pytest.mark.slow)]
)
def test_first_letters(name):
    for number, segment in enumerate(("s1", "s2", "s3")):
        phantom(segment, 52, number, "train_scrolls/{segment}/{segment}_inklabels.png")
    sets = ["segments=[s1, s2, s3]", "sample_px=64", "pairs.count=5", "held_out_sampling.min_papyrus=0.4"]
    if name.endswith("coco"):
        boxes_of_letters()
    else:
        sets += ["sampling.per_segment=3"]
    inkbatch("build-dataset", "--preset", name, sets=sets)
    index = index_of(name)
    assert index.contract.layer_count == 35
    assert {segment.layers for segment in index.segments} == {(15, 50)}
    singles = [sample for sample in index.samples_of("train", 0) if sample.parts is None]
    pairs = [sample for sample in index.samples_of("train", 0) if sample.parts]
    assert {sample.segment for sample in singles} == {"s2", "s3"}
    assert len(pairs) == 3
    assert all(sample.shape_yx == (64, 128) for sample in pairs)
    assert all(sample.segment == "s1" for sample in index.samples_of("validation", 0))
    if name.endswith("synthetic"):
        assert all(sample.ink_share >= 0.15 for sample in singles)
    small = ["tile_px=32", "stride_px=32", "sampler.samples_per_epoch=4"]
    inkbatch("train", "--preset", name, sets=[*QUICK, *small, "augment.cut_out_px=6"])
    bundle = bundle_of(name)
    assert (bundle.document.architecture, bundle.contract.layers.source_range) == ("i3d", (15, 50))
    assert (bundle.contract.clip, bundle.contract.divisor) == ((0, 200), 255)
    assert resolved(name)["loss"]["label_smoothing"] == 0.5


def boxes_of_letters() -> None:
    """A COCO file with the boxes around the letters of each phantom, as an annotation tool writes it."""
    images, annotations = [], []
    for number, segment in enumerate(("s1", "s2", "s3"), start=1):
        picture = cv2.imread(f"letters/{segment}.png", cv2.IMREAD_GRAYSCALE)
        images.append({"id": number, "file_name": f"{segment}.png", "height": SHAPE[0], "width": SHAPE[1]})
        for x, y, width, height, _ in cv2.connectedComponentsWithStats(picture)[2][1:].tolist():
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            annotations.append({**entry, "bbox": [x, y, width, height]})
    Path("coco").mkdir()
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ink"}]}
    Path("coco/boxes.json").write_text(json.dumps(document))


def test_scroll5_title():
    for number, segment in enumerate(("p1", "p2")):
        phantom(segment, 21, number, "parts/{segment}/label.png", preset="scroll5-title")
        ignore = np.zeros(SHAPE, np.uint8)
        ignore[:, :20] = 255
        cv2.imwrite(f"parts/{segment}/ignore.png", ignore)
    sets = [
        "segments=[p1, p2]",
        "sample_px=32",
        "sampling.stride_px=16",
        "splits.block_px=64",
        "splits.validation=0.15",
    ]
    inkbatch("build-dataset", "--preset", "scroll5-title", sets=sets)
    index = index_of("scroll5-title")
    assert {segment.layers for segment in index.segments} == {(5, 21)}
    assert index.contract.lut == load_preset("unetr-segformer-title").contract.lut
    reader = SampleReader.open(Location.parse("root/datasets/scroll5-title"))
    left = next(sample for sample in index.samples if sample.box[1] == 0)
    assert reader.read(left).ignore[:, :20].all()
    assert not reader.read(left).ignore[:, 20:].any()
    small = ["tile_px=32", "stride_px=32", "sampler.samples_per_epoch=8", "sampler.ink_from=0.01"]
    net = ["model.config.tile_px=32", "model.config.segformer=b0"]
    inkbatch("train", "--preset", "scroll5-title", sets=[*QUICK, *small, *net])
    bundle = bundle_of("scroll5-title")
    assert bundle.document.architecture == "unetr-segformer"
    assert bundle.contract.layers.source_range == (5, 21)
    one_tile = ["--device", "cpu", "--box", "0:32,0:32"]
    inkbatch("infer", "p1", "--bundle", "root/runs/scroll5-title/bundle", *one_tile)  # contracts agree


def test_kaggle():
    for number, segment in enumerate("123"):
        phantom(segment, 36, number, "train/{segment}/inklabels.png")
    sets = ["sample_px=64", "sampling.stride_px=16"]
    inkbatch("build-dataset", "--preset", "kaggle-2.5d-unet", sets=sets)
    index = index_of("kaggle-2.5d-unet")
    assert (index.contract.layer_count, index.fold_count) == (6, 3)
    net = ["model.config.encoder=tu-mobilenetv3_small_050", "model.encoder.encoder_weights=none", *SMALL_NET]
    small = ["tile_px=64", "stride_px=32", "sampler.samples_per_epoch=4", "augment.cut_out_px=16"]
    inkbatch("train", "--preset", "kaggle-2.5d-unet", sets=[*QUICK, *net, *small])
    for fold, segment in enumerate("123"):
        metrics = bundle_of(f"kaggle-2.5d-unet/fold-{fold}").document.metrics["validation"]
        assert set(metrics) == {OVERALL, segment}
    rows = Path("root/runs/kaggle-2.5d-unet/folds.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["fold", "0", "1", "2", "mean", "std"]
    terms = [term["name"] for term in resolved("kaggle-2.5d-unet/fold-0")["loss"]["terms"]]
    assert terms == ["dice", "tversky", "bce"]


def test_scroll_9um():
    for number, segment in enumerate(("p1", "p2")):
        phantom(segment, 21, number, "labels/{segment}.png")
    of_scrolls = "segments=[{id: p1, scroll: scroll-1}, {id: p2, scroll: PHerc0172}]"
    small = ["sample_px=32", "sampling.stride_px=16", "splits.block_px=64", "splits.validation=0.15"]
    inkbatch("build-dataset", "--preset", "scroll-9um", sets=[of_scrolls, *small])
    assert index_of("scroll-9um").scrolls == {"p1": "scroll-1", "p2": "PHerc0172"}
    net = ["model.config.widths=[8, 16]", "model.config.blocks=[1, 1]", "model.config.stem_channels=4"]
    tiny = ["tile_px=32", "stride_px=16", "sampler.samples_per_epoch=8"]
    inkbatch("train", "--preset", "scroll-9um", sets=[*QUICK, *net, *tiny], code=64)  # the preset's own quotas
    quotas = "sampler.quotas={scroll-1: 3, PHerc0172: 1}"
    inkbatch("train", "--preset", "scroll-9um", sets=[*QUICK, *net, *tiny, quotas])
    bundle, settings = bundle_of("scroll-9um"), resolved("scroll-9um")
    contract, published = bundle.contract, load_preset("ink-9um").contract
    for key in ("normaliser", "window", "display_range", "tta_axes"):
        assert getattr(contract, key) == getattr(published, key), key
    assert (bundle.document.architecture, contract.layers.count) == ("stem3d-unet", 17)
    assert (settings["augment"]["depth_shift"], settings["loss"]["label_smoothing"]) == (2, 0.5)
    assert settings["sampler"]["quotas"] == {"scroll-1": 3, "PHerc0172": 1}
    inkbatch("infer", "p2", "--bundle", "root/runs/scroll-9um/bundle", "--device", "cpu")  # contracts agree


def test_ceramics():
    inkbatch("vessels", "vessels", "--preset", "ceramics-profile", sets=["count=10", "shape_yx=[96, 96]"])
    inkbatch("build-dataset", "--preset", "ceramics-profile", sets=["sample_px=96"])
    counts = [len(index_of("ceramics-profile").samples_of(split)) for split in ("train", "validation", "test")]
    assert counts == [7, 2, 1]
    frozen = ["model.encoder.encoder_weights=none", "model.config.decoder={decoder_channels: [32, 16, 16, 8, 8]}"]
    inkbatch("train", "--preset", "ceramics-profile", sets=[*QUICK, *frozen, "tile_px=96", "stride_px=96"])
    encoder = encoder_of("ceramics-profile")
    fresh = encoder_of_fresh(resolved("ceramics-profile"))
    assert all(np.array_equal(encoder[key], fresh[key]) for key in fresh)
    inkbatch("infer-pictures", "--preset", "ceramics-profile")
    maps = sorted(path.name for path in Path("root/predictions/ceramics-profile/ceramics-profile").glob("*.*y"))
    assert maps == ["test-00009.npy"]
    found = np.load("root/predictions/ceramics-profile/ceramics-profile/test-00009.npy")
    assert (found.shape, found.dtype) == ((96, 96), np.float32)
    assert found.min() >= 0
    assert found.max() <= 1
    one_profile(found)


def one_profile(found: np.ndarray) -> None:
    """Of what the tiny network found one object is left, outlined in millimetres."""
    from_where = float(np.quantile(found, 0.8))  # one epoch leaves nothing above 0.5
    sets = [f"proposals.object_from={from_where}", "proposals.min_area=1"]
    inkbatch("instances", "ceramics-profile", "--preset", "ceramics-profile", "--pixel-um", "500", sets=sets)
    place = Path("root/instances/ceramics-profile/profiles")
    drawing = xml.etree.ElementTree.parse(place / "outlines/test-00009.svg").getroot()
    assert (drawing.get("width"), drawing.get("height"), drawing.get("viewBox")) == ("48mm", "48mm", "0 0 48 48")
    (path,) = drawing.iter("{http://www.w3.org/2000/svg}path")
    (row,) = csv.DictReader((place / "instances.csv").open(encoding="utf-8"))
    (feature,) = json.loads((place / "outlines/test-00009.geojson").read_text())["features"]
    mm = [[float(value) for value in pair.split(",")] for pair in path.get("d").split("Z")[0][1:].split()]
    ring = feature["geometry"]["coordinates"][0] if feature["geometry"]["type"] == "Polygon" else None
    assert ring is not None
    np.testing.assert_allclose(mm, np.array(ring[:-1]) * 0.5, rtol=1e-5)
    largest = cv2.connectedComponentsWithStats((found >= np.float32(from_where)).astype(np.uint8), connectivity=4)[2]
    assert int(row["area_px"]) == largest[1:, cv2.CC_STAT_AREA].max()


def encoder_of(run: str) -> dict[str, np.ndarray]:
    net = bundle_of(run).build().net
    return {key: value.numpy() for key, value in net.encoder.state_dict().items()}


def encoder_of_fresh(settings: dict[str, Any]) -> dict[str, np.ndarray]:
    import torch

    from inkbatch.models import build_model

    torch.manual_seed(settings["seed"])
    net = build_model("smp", {"depth_layers": 3, **settings["model"]["config"]}).net
    return {key: value.numpy() for key, value in net.encoder.state_dict().items()}


def test_thin_sections():
    rng = np.random.default_rng(0)
    for folder in ("sections/images", "sections/masks"):
        Path(folder).mkdir(parents=True)
    for name in "abcd":
        mask = np.zeros((96, 128), np.uint8)
        for number, x in enumerate((20, 50, 80, 110), start=1):
            cv2.circle(mask, (x, int(rng.integers(20, 76))), 14, number, -1)
        picture = rng.integers(20, 90, (96, 128, 3), dtype=np.uint8) + np.uint8(60) * (mask > 0)[..., None]
        cv2.imwrite(f"sections/images/{name}.png", picture)
        cv2.imwrite(f"sections/masks/{name}.png", mask)
    tiles = ["sample_px=32", "sampling.stride_px=16", "images.clahe.cell_px=32", "images.objects.boundary_px=3"]
    inkbatch("build-dataset", "--preset", "thin-sections", sets=tiles)
    index = index_of("thin-sections")
    pictures = {split: {s.segment for s in index.samples_of(split)} for split in ("train", "validation", "test")}
    assert [len(pictures[split]) for split in ("train", "validation", "test")] == [2, 1, 1]
    sample = index.samples[0]
    raw = cv2.imread(f"sections/images/{sample.segment.removeprefix('picture-')}.png")[..., 2]
    whole = Box(0, 0, 96, 128)
    red = equalise(raw, whole, whole, ClaheSettings(clip_limit=2.0, cell_px=32))
    reader = SampleReader.open(Location.parse("root/datasets/thin-sections"))
    np.testing.assert_array_equal(reader.read(sample).layers[0], red[sample.area.slices])
    net = ["model.config.encoder=tu-mobilenetv3_small_050", *SMALL_NET, "tile_px=32", "stride_px=16"]
    inkbatch("train", "--preset", "thin-sections", sets=[*QUICK, *net, "sampler.samples_per_epoch=8"])
    assert bundle_of("thin-sections").contract.clahe == ClaheSettings(clip_limit=2.0, cell_px=32)
    inkbatch("infer-pictures", "--preset", "thin-sections")
    (tested,) = pictures["test"]
    maps = Path("root/predictions/thin-sections/thin-sections")
    assert [path.name for path in maps.glob("*.npy")] == [f"{tested}.npy"]
    found = np.load(maps / f"{tested}.npy")
    assert found.shape == (3, 96, 128)  # background, grain, boundary
    rules = [f"proposals.object_from={float(np.quantile(found[1], 0.7))}", "proposals.boundary_from=1.0"]
    rules += ["proposals.min_area=1", "selection.edge=0", "selection.background=1.0"]
    inkbatch("instances", "thin-sections", "--preset", "thin-sections", sets=rules)
    manifest = json.loads(Path("root/instances/thin-sections/thin-sections/manifest.json").read_text())
    assert manifest["config"]["proposals"]["grow"] == 3, "as wide as the dataset's boundary"
    labels = np.load(f"root/instances/thin-sections/thin-sections/npy/{tested}.npy")
    assert (labels.shape, labels.dtype) == ((96, 128), np.uint32)
    assert labels.max() >= 1
    inkbatch("evaluate-instances", "root/instances/thin-sections/thin-sections")
    scores = json.loads(Path("root/instances/thin-sections/thin-sections/evaluation/evaluation.json").read_text())
    assert (scores["pictures"], scores["true"]) == (1, 4)


def test_the_shipped_file_of_train_runs():
    phantom("s1", 4, 0, "labels/{segment}.png")
    sets = ["segments=[s1]", "labels.image=labels/{segment}.png", "labels.clean.min_area_px=0", "sample_px=32"]
    sets += ["sampling.stride_px=16", "splits.block_px=64", "splits.validation=0.3"]
    inkbatch("build-dataset", "letters", "--config", REPOSITORY / "jobs/build-dataset.yaml", sets=sets)
    net = ["model.config.encoder=tu-mobilenetv3_small_050", *SMALL_NET, "sampler.samples_per_epoch=8"]
    names = ["--dataset", "letters", "--run", "first"]
    inkbatch("train", *names, "--config", REPOSITORY / "jobs/train.yaml", sets=[*QUICK, *net])
    assert bundle_of("first").contract.layers.count == 4


def test_every_shipped_preset_is_run_by_a_test():
    text = Path(__file__).read_text()
    for name in preset_names():
        assert f'"{name}"' in text or f"jobs/presets/{name}.yaml" in text, name


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_what_it_keeps_where_it_differs_and_how_to_run_it(name):
    preset = load_job_preset(name)
    assert all((preset.reproduces, preset.kept, preset.differs, preset.data))
    for step in preset.steps:
        words = step.split()
        assert words[0] == "inkbatch"
        if "--preset" in words:
            assert words[words.index("--preset") + 1] == name
            assert words[1] in read_yaml(str(REPOSITORY / f"jobs/presets/{name}.yaml"))


@pytest.mark.parametrize("name", preset_names())
def test_both_pages_tell_the_command_of_every_preset(name):
    for page, job in (("datasets.md", "build-dataset"), ("training.md", "train")):
        text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
        assert f"`{name}`" in text, page
        if name != "first-letters-coco" or job == "build-dataset":
            assert f"inkbatch {job} --preset {name}" in text, page


def test_a_file_replaces_whole_keys_of_a_preset_and_set_changes_one_value():
    Path("own.yaml").write_text(yaml.safe_dump({"sampling": {"kind": "whole"}}))
    from inkbatch.presets import preset_settings
    from inkbatch.steps.dataset.job import BuildDatasetConfig

    preset = preset_settings("thin-sections", "build-dataset")
    job = BuildDatasetConfig.load("own.yaml", ["images.colour=grey"], {"name": "other"}, preset)
    assert job.sampling.kind == "whole"
    assert (job.images.colour, job.images.clahe.cell_px, job.name) == ("grey", 64, "other")
    again = BuildDatasetConfig.load(None, (), None, preset)
    assert again.images.colour == "rgb"  # the preset itself is not changed


def test_presets_are_listed_and_shown(capsys):
    inkbatch("presets")
    assert "scroll5-title: UNETR-SegFormer" in capsys.readouterr().out
    inkbatch("presets", "ceramics-profile")
    text = capsys.readouterr().out
    assert "$ inkbatch train --preset ceramics-profile" in text


def test_unknown_presets_and_missing_sections_are_named(capsys):
    inkbatch("train", "--preset", "scrol5-title", code=64)
    assert "did you mean 'scroll5-title'" in capsys.readouterr().err
    inkbatch("prepare", "x", "--preset", "thin-sections", code=64)
    assert "without a section for the job 'prepare'; it has sections for build-dataset" in capsys.readouterr().err
    Path("own.yaml").write_text("recipe: mine\ntrain: {dataset: x, run: y}\nbuild_datset: {}\n")
    inkbatch("train", "--preset", "./own.yaml", code=64)
    assert "did you mean 'build_dataset'" in capsys.readouterr().err
