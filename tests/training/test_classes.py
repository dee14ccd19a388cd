"""Three classes from the label image to the map: targets, loss, and the whole way on tiny made thin sections."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.data.labels.objects import CLASS_GREYS, boundary_classes
from inkbatch.data.synthetic.grains import GrainConfig, make_section, write_sections
from inkbatch.errors import ConfigError, DataError
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps import evaluate_pictures, infer_pictures
from inkbatch.steps.dataset import job as build
from inkbatch.steps.dataset.settings import BuildDatasetConfig
from inkbatch.steps.instances import job as instances
from inkbatch.steps.instances.settings import InstancesConfig
from inkbatch.steps.train import job as train
from inkbatch.training.augment import apply_changes
from inkbatch.training.augment_settings import AugmentConfig, draw_changes
from inkbatch.training.losses import LossConfig, LossTerm, ink_loss
from inkbatch.training.settings import TrainConfig
from inkbatch.training.targets import label_targets

MADE = GrainConfig(shape_yx=(96, 112), count=4, radius_px=(10, 20))
BOUNDARY_PX = 3  # not the usual one
CLASSES = LossConfig(terms=(LossTerm(name="cross-entropy"),))


def test_targets_say_one_class_in_each_pixel():
    labels = torch.tensor([[[[0, 255, 128]]]], dtype=torch.uint8)
    assert label_targets(labels, 3)[0, :, 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_cross_entropy_equals_torch_s_on_hard_labels():
    logits, classes = torch.randn(2, 3, 5, 4), torch.randint(0, 3, (2, 5, 4))
    target = functional.one_hot(classes, 3).permute(0, 3, 1, 2).float()
    weights = torch.tensor([0.6, 1.0, 5.0])
    each = functional.cross_entropy(logits, classes, weight=weights, reduction="none")
    counted = (torch.rand(2, 1, 5, 4) > 0.3).float()
    expected = (each[:, None] * counted).sum() / counted.sum()
    torch.testing.assert_close(ink_loss(logits, target, counted, CLASSES), expected)


def test_label_smoothing_pulls_towards_a_third():
    logits, target = torch.randn(1, 3, 2, 2), functional.one_hot(torch.ones(1, 2, 2, dtype=torch.long), 3)
    term = LossTerm(name="cross-entropy", class_weights=(1, 1, 1))
    config = LossConfig(terms=(term,), label_smoothing=0.3)
    smooth = ink_loss(logits, target.permute(0, 3, 1, 2).float(), torch.ones(1, 1, 2, 2), config)
    expected = functional.cross_entropy(logits, torch.ones(1, 2, 2, dtype=torch.long), label_smoothing=0.3)
    torch.testing.assert_close(smooth, expected)


def test_a_warp_keeps_the_sum_of_classes_where_pixels_count():
    rng = np.random.default_rng(0)
    change = draw_changes(AugmentConfig(warp=1.0, rotate_deg=30), rng, (32, 32), 32, 1, 1)
    labels = label_targets(torch.randint(0, 3, (1, 1, 32, 32)).mul(127).to(torch.uint8), 3)
    labels[:, 0] = 1 - labels[:, 1:].sum(1)
    _, moved, counted = apply_changes(torch.rand(1, 1, 32, 32), labels, torch.ones(1, 1, 32, 32).bool(), [change])
    assert counted.any()
    torch.testing.assert_close(moved.sum(1, keepdim=True)[counted], torch.ones(int(counted.sum())), atol=2e-3, rtol=0)


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sections")
    write_sections(Location.parse(str(folder)), MADE)
    return folder


def dataset_settings(sections, **changed) -> BuildDatasetConfig:
    return BuildDatasetConfig.model_validate(
        {
            "name": "grains",
            "root": str(sections / "root"),
            "images": {
                "folder": str(sections),
                "pictures": {"images": "images", "annotations": "instances"},
                "objects": {"boundary_px": BOUNDARY_PX},
            }
            | changed,
            "sample_px": 48,
            "sampling": {"kind": "grid", "stride_px": 32},
            "splits": {"kind": "shares", "train": 0.5, "validation": 0.25, "test": 0.25, "group": "segment"},
            "form": "pack",
        }
    )


def train_settings(sections, **changed) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "dataset": "grains",
            "run": "grains",
            "root": str(sections / "root"),
            "model": {
                "architecture": "smp",
                "config": {"encoder": "mobileone_s0", "decoder": {"decoder_channels": [32, 16, 8], "encoder_depth": 3}}
                | {"classes": 3},
            },
            "tile_px": 48,
            "loss": {"terms": [{"name": "cross-entropy"}], "label_smoothing": 0.1},
            "epochs": 1,
            "batch": 4,
            "device": "cpu",
        }
        | changed
    )


@pytest.fixture(scope="module")
def trained(sections):
    build.run(dataset_settings(sections), RunContext())
    train.run(train_settings(sections), RunContext())
    return sections / "root"


def test_a_dataset_holds_the_classes_of_its_label_images(trained):
    place = Location.parse(str(trained / "datasets" / "grains"))
    index = DatasetIndex.open(place)
    assert index.has_classes
    sample = index.samples[0]
    number = int(sample.segment[-3:])
    grains = make_section(MADE, number).instances
    expected = np.array(CLASS_GREYS, np.uint8)[boundary_classes(grains, BOUNDARY_PX, "here")]
    stored = SampleReader(index, place).read_stored(sample)
    np.testing.assert_array_equal(stored.labels, expected[sample.area.slices])


def test_maps_hold_three_probabilities_that_add_up_to_1_and_are_scored_by_object(trained):
    root = str(trained)
    bundle = str(trained / "runs" / "grains" / "bundle")
    config = infer_pictures.InferPicturesConfig(
        bundle=bundle, dataset="grains", root=root, forms=("npy", "png", "mask", "overlay"), output=f"{root}/maps"
    )
    infer_pictures.run(config, RunContext())
    (map_file,) = (trained / "maps").glob("*.npy")
    found = np.load(map_file)
    assert found.shape == (3, *MADE.shape_yx)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    evaluate_pictures.run(evaluate_pictures.EvaluatePicturesConfig(maps=f"{root}/maps"))
    scores = json.loads((trained / "maps" / "evaluation" / "evaluation.json").read_text())
    number = int(map_file.stem[-3:])
    inner = boundary_classes(make_section(MADE, number).instances, BOUNDARY_PX, "here") == 1
    assert scores["object_px"] == int(inner.sum())


def test_the_bundle_tells_maps_of_any_picture_how_wide_a_boundary_it_was_taught(trained, sections):
    bundle, maps = trained / "runs/grains/bundle", trained / "other-maps"
    config = infer_pictures.InferPicturesConfig(bundle=str(bundle), images=str(sections / "images"), output=str(maps))
    plan = infer_pictures.make_plan(config)
    assert plan.bundle.contract.boundary_px == BOUNDARY_PX
    infer_pictures.run(config, RunContext())
    for asked, grow_px in (({}, BOUNDARY_PX), ({"proposals": {"grow": 1}}, 1)):
        values = {"subject": "others", "maps": str(maps), "root": str(trained), **asked}
        assert instances.make_plan(InstancesConfig.checked(values, "instances")).limits.grow_px == grow_px


def test_ink_and_classes_do_not_mix(trained):
    with pytest.raises(ConfigError, match="expected a network of 3 classes"):
        train.make_plan(train_settings(trained.parent, run="b", model={"architecture": "smp", "config": {}}))
    with pytest.raises(ConfigError, match="expected loss terms cross-entropy, got dice"):
        train.make_plan(train_settings(trained.parent, run="b", loss={"terms": [{"name": "dice"}]}))


def test_a_boundary_that_eats_grains_is_refused_before_anything_is_built(sections, tmp_path):
    config = dataset_settings(sections, objects={"boundary_px": 9}).model_copy(update={"root": str(tmp_path)})
    with pytest.raises(DataError, match="a boundary of 9 px leaves nothing of"):
        build.run(config, RunContext())
    assert not (tmp_path / "datasets").exists()
