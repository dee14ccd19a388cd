"""train: a dataset becomes a bundle that infer takes; what cannot be trained is refused by name; folds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.errors import (
    ConfigError,
    CorruptDataError,
    DataError,
    LayerRangeError,
    MismatchError,
    NonFiniteError,
    Preempted,
)
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.models import build_model
from inkbatch.models.bundle import Bundle, load_matching
from inkbatch.models.rules import Normaliser
from inkbatch.predict.reference import check_reference
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.progress import LineReporter
from inkbatch.run.verifying import verify
from inkbatch.steps.dataset import job as build_dataset
from inkbatch.steps.infer import job as infer
from inkbatch.steps.train.job import TrainConfig, describe, make_plan, run
from inkbatch.testing.training import NETWORK, TILE_PX, tiny_dataset, tiny_run, write_labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tiny_dataset(tmp_path / "root")
    return tmp_path / "root"


def config_of(root: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.checked(tiny_run(root, **changes), "test")


def bundle_of(root: Path, name: str = "first") -> Bundle:
    return Bundle.open(Location.parse(root / "runs" / name / "bundle"))


def edited(root: Path, **changes: Any) -> None:
    place = Location.parse(root / "datasets" / "tiny")
    DatasetIndex.open(place).model_copy(update=changes).save(place)


def test_a_run_learns_planted_ink_and_its_bundle_infers(root):
    report = run(config_of(root, epochs=8, optimiser={"rate": 1e-2}, augment={"depth_shift": 1}), RunContext())
    assert report.complete
    bundle = bundle_of(root)
    contract = bundle.contract
    assert (contract.tile_px, contract.stride_px, contract.layers.count, contract.divisor) == (TILE_PX, 16, 4, 255)
    found = bundle.document.metrics["validation"]["overall"]
    assert found["auc"] > 0.95
    assert found["threshold"] == pytest.approx(contract.threshold, abs=1e-6)
    assert check_reference(bundle.build(), bundle, torch.device("cpu")) < 1e-4
    inferred = infer.run(
        infer.InferConfig(segment="s1", bundle=str(bundle.location), root=str(root), device="cpu", name="p"),
        RunContext(),
    )
    ink = np.asarray(
        Prediction.open(inferred.location).read(
            infer.make_plan(  # the same contract, the same map
                infer.InferConfig(segment="s1", bundle=str(bundle.location), root=str(root), device="cpu", name="p")
            )
            .units[0]
            .write_box
        )
    )
    assert ink.max() > contract.threshold > ink.min()


def test_a_run_normalises_by_statistics_of_segments_and_its_bundle_says_so(root):
    normaliser = {"kind": "robust-mad", "statistics": "segment"}
    rules = {"stitching": {"divide_by": "count"}, "display_range": (0.25, 0.75)}
    report = run(config_of(root, epochs=1, input={"normaliser": normaliser}, **rules), RunContext())
    contract = bundle_of(root).contract
    assert contract.normaliser == Normaliser(**normaliser)
    assert (contract.stitching.divide_by, contract.display_range) == ("count", (0.25, 0.75))
    assert (report.location / "statistics" / "s0" / "segment-statistics.json").exists()
    asked = {"segment": "s1", "bundle": str(root / "runs" / "first" / "bundle"), "root": str(root), "device": "cpu"}
    assert infer.run(infer.InferConfig(**asked, name="p"), RunContext()).complete


def test_statistics_leave_no_room_for_a_divisor(root):
    with pytest.raises(ConfigError, match="robust-mad takes no divisor"):
        run(config_of(root, input={"normaliser": {"kind": "robust-mad"}, "divisor": 200}), RunContext())


def test_every_epoch_leaves_scores_curves_and_a_picture(root):
    run(config_of(root), RunContext())
    folder = root / "runs" / "first"
    with (folder / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["epoch"], row["segment"]) for row in rows] == [
        (epoch, name) for epoch in "12" for name in ("overall", "s1")
    ]
    assert all(0 <= float(row["f05"]) <= 1 and 0 <= float(row["auc"]) <= 1 for row in rows)
    with (folder / "losses.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 12
    for name in ("curves.png", "validation/epoch-001-s1.png", "validation/epoch-002-s1.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    facts = json.loads((folder / "complete.json").read_text())
    assert facts["scores"]["f05"] == pytest.approx(max(float(row["f05"]) for row in rows), abs=1e-6)


def test_the_bundle_holds_the_best_epoch_and_patience_stops(root):
    run(config_of(root, epochs=9, patience=1, optimiser={"rate": 1e-8}, monitor="loss"), RunContext())
    folder = root / "runs" / "first"
    with (folder / "metrics.csv").open() as lines:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(lines) if row["segment"] == "overall"]
    best = json.loads((folder / "complete.json").read_text())["best_epoch"]
    assert losses[best - 1] == min(losses)
    assert len(losses) in (best + 1, 9)
    assert len(losses) < 9


def test_labels_of_another_size_are_refused(root):
    write_labels(root, "s0", np.zeros((90, 96), np.uint8))
    with pytest.raises(
        MismatchError, match=r"segment s0: expected .*ink_labels\.zarr to be \(96, 96\) .* got \(90, 96\)"
    ):
        run(config_of(root), RunContext())


def test_a_split_without_samples_is_refused(root):
    index = DatasetIndex.open(Location.parse(root / "datasets" / "tiny"))
    edited(root, samples=tuple(sample for sample in index.samples if sample.split == "train"))
    with pytest.raises(DataError, match="split 'validation' holds no sample"):
        make_plan(config_of(root))


def test_a_dataset_without_ink_is_refused(root):
    index = DatasetIndex.open(Location.parse(root / "datasets" / "tiny"))
    edited(root, samples=tuple(sample.model_copy(update={"ink_share": 0.0}) for sample in index.samples))
    with pytest.raises(DataError, match="split 'train' holds ink; check the ink labels"):
        make_plan(config_of(root))


def test_a_dataset_that_is_not_there_is_refused(root):
    with pytest.raises(DataError, match=r"dataset other: no index\.json"):
        make_plan(config_of(root, dataset="other"))


def test_more_layers_than_the_samples_hold_are_refused(root):
    model = {"architecture": "smp", "config": {**NETWORK, "depth_layers": 5}}
    with pytest.raises(
        LayerRangeError, match=r"the network takes 5 layers, samples hold 4; set model\.config\.depth_layers"
    ):
        make_plan(config_of(root, model=model))


def test_a_tile_that_the_network_cannot_take_is_refused(root):
    model = {"architecture": "smp", "config": {**NETWORK, "family": "FPN", "decoder": {}}}
    with pytest.raises(ConfigError, match="tile of 24 x 24 px is not a multiple of 32 px"):
        make_plan(config_of(root, model=model, tile_px=24))


def test_unknown_keys_and_two_ways_to_fold_are_refused(root):
    with pytest.raises(ConfigError, match="unknown key 'optimizer'; did you mean 'optimiser'"):
        config_of(root, optimizer={"rate": 1})
    with pytest.raises(ConfigError, match="not both"):
        config_of(root, fold=0, folds="all")


def test_a_bundle_for_each_fold_needs_folds(root):
    model = {"architecture": "smp", "config": NETWORK, "start_from": "runs/first/fold-{fold}/bundle"}
    with pytest.raises(ConfigError, match=r"model\.start_from: expected a run with fold or folds, .* set folds: all"):
        config_of(root, model=model)
    assert config_of(root, model=model, fold=2).start_from == "runs/first/fold-2/bundle"


def test_a_loss_that_is_no_number_names_its_batch(root):
    settings = config_of(root, input={"std": 1e-44}, batch=2)
    with pytest.raises(
        NonFiniteError, match=r"loss of epoch 1, step 0 is nan; its batch holds the samples s0-y"
    ) as caught:
        run(settings, RunContext())
    assert "lower optimiser.rate, set clip_gradient" in str(caught.value)
    assert not list((root / "runs" / "first").glob("checkpoints/*"))


def test_a_run_starts_from_a_bundle_of_the_same_network(root):
    run(config_of(root), RunContext())
    start = str(bundle_of(root).location)
    model = {"architecture": "smp", "config": NETWORK, "start_from": start}
    run(config_of(root, run="second", model=model, epochs=1, optimiser={"rate": 1e-12}), RunContext())
    first, second = (bundle_of(root, name).build().state_dict() for name in ("first", "second"))
    for name, tensor in first.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-7)
    other = {**model, "config": {**NETWORK, "decoder": {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}}}
    with pytest.raises(MismatchError, match=r"keys do not match smp.*set model.start_with=matching"):
        run(config_of(root, run="third", model=other), RunContext())
    other["start_with"] = "matching"
    run(config_of(root, run="third", model=other, epochs=1, optimiser={"rate": 1e-12}), RunContext())
    third = bundle_of(root, "third")
    left = third.document.training["left_out"]
    assert "net.decoder.blocks.0.conv1.0.weight: model (8, 24, 3, 3), file (16, 24, 3, 3)" in left
    encoder = "net.encoder.model.conv_stem.weight"
    torch.testing.assert_close(third.build().state_dict()[encoder], first[encoder], rtol=0, atol=1e-7)
    assert not any(row.startswith(encoder) for row in left)


def test_a_start_from_a_network_that_shares_little_is_refused():
    network = build_model("smp", {**NETWORK, "depth_layers": 4})
    one = {"net.encoder.model.conv_stem.weight": network.state_dict()["net.encoder.model.conv_stem.weight"]}
    with pytest.raises(MismatchError, match=r"expected at least 50% of the weights of smp by name and shape, got 0%"):
        load_matching(network, one, "here")


def test_a_frozen_encoder_stays_and_the_rest_learns(root):
    model = {"architecture": "smp", "config": NETWORK, "encoder": {"freeze_encoder": True}}
    run(config_of(root, model=model, epochs=1), RunContext())
    torch.manual_seed(0)
    from inkbatch.models import build_model

    fresh = build_model("smp", {**NETWORK, "depth_layers": 4}).state_dict()
    trained = bundle_of(root).build().state_dict()
    same = {name for name in fresh if torch.equal(fresh[name], trained[name])}
    assert {name for name in fresh if ".encoder." in name} <= same
    assert any(".decoder." in name and name not in same for name in fresh)


def test_folds_are_runs_of_their_own_with_a_table(root):
    tiny_dataset(root, folds=3, name="folded")
    settings = config_of(root, dataset="folded", folds="all", epochs=1)
    parts = [run(settings, RunContext(shard=ShardSpec(number, 2))) for number in (1, 0)]
    assert [(part.stored, part.left) for part in parts] == [(1, 2), (2, 0)]
    folder = root / "runs" / "first"
    with (folder / "folds.csv").open() as lines:
        rows = {row["fold"]: row for row in csv.DictReader(lines)}
    assert list(rows) == ["0", "1", "2", "mean", "std"]
    values = [float(rows[str(fold)]["f05"]) for fold in range(3)]
    assert float(rows["mean"]["f05"]) == pytest.approx(np.mean(values), abs=1e-5)
    assert float(rows["std"]["f05"]) == pytest.approx(np.std(values), abs=1e-5)
    for fold in range(3):
        assert bundle_of(root, f"first/fold-{fold}").document.training["fold"] == fold
    before = (folder / "folds.csv").read_bytes()
    whole = config_of(root, run="whole", dataset="folded", folds="all", epochs=1)
    assert run(whole, RunContext()).stored == 3
    assert (root / "runs" / "whole" / "folds.csv").read_bytes() == before
    (folder / "fold-2/bundle/weights.safetensors").write_bytes(b"damaged")
    model = {"architecture": "smp", "config": NETWORK, "start_from": f"{folder}/fold-{{fold}}/bundle"}
    with pytest.raises(CorruptDataError, match=r"fold-2/bundle/weights.safetensors: sha256 is"):
        run(config_of(root, run="on", dataset="folded", folds="all", model=model), RunContext())
    assert not (root / "runs" / "on").exists()  # no fold trained before the last one's start was found damaged


def test_encoder_weights_that_are_not_there_are_refused_before_the_run_is_begun(root):
    encoder = {"encoder_weights": str(root / "gone.safetensors")}
    model = {"architecture": "smp", "config": NETWORK, "encoder": encoder}
    with pytest.raises(DataError, match=r"gone\.safetensors"):
        run(config_of(root, run="pretrained", model=model), RunContext())
    assert not (root / "runs" / "pretrained").exists()


def test_a_fold_that_is_not_there_is_refused(root):
    with pytest.raises(ConfigError, match="has no folds; leave folds out"):
        make_plan(config_of(root, folds="all"))
    with pytest.raises(ConfigError, match="no fold 1; it has no folds"):
        make_plan(config_of(root, fold=1))


def test_a_dry_run_says_what_would_be_done_and_does_nothing(root):
    text = describe(config_of(root))
    assert "25 training and 25 validation samples" in text
    assert "2 epochs of 6 steps of 4 samples" in text
    assert "0 of 12 steps" in text
    assert not (root / "runs").exists()


def test_samples_larger_than_the_tile_are_cropped_and_stitched(root):
    tiny_dataset(root, sample_px=48, name="large")
    run(config_of(root, dataset="large", tile_px=32, epochs=1), RunContext())
    contract = bundle_of(root).contract
    assert (contract.tile_px, contract.stride_px) == (32, 16)


def built(root: Path, name: str, **changes: Any) -> None:
    values = {
        "name": name,
        "root": str(root),
        "segments": ["s0", "s1"],
        "sample_px": TILE_PX,
        "sampling": {"kind": "grid", "stride_px": 16},
        "splits": {"kind": "lists", "train": ["s0"], "validation": ["s1"]},
    }
    build_dataset.run(build_dataset.BuildDatasetConfig.checked({**values, **changes}, "test"), RunContext())


def test_an_index_and_its_pack_train_alike(root):
    losses = []
    for form in ("index", "pack"):
        built(root, form, form=form)
        run(config_of(root, run=form, dataset=form, epochs=1), RunContext())
        losses.append((root / "runs" / form / "losses.csv").read_bytes())
    assert losses[0] == losses[1]


def test_stitched_pairs_train_and_the_plain_samples_validate(root):
    built(root, "pairs", pairs={"count": 8})
    index = DatasetIndex.open(Location.parse(root / "datasets" / "pairs"))
    plan = make_plan(config_of(root, dataset="pairs"))[0]
    assert any(sample.parts for sample in plan.train)
    assert index.samples_of("validation") == plan.validation
    assert run(config_of(root, dataset="pairs", epochs=1), RunContext()).complete


def test_a_run_on_an_object_store_stops_goes_on_and_leaves_the_bytes_of_a_local_one(root, s3_root):
    for path in root.rglob("*"):
        if path.is_file() and "sources" not in path.parts:
            (s3_root / str(path.relative_to(root))).write_bytes(path.read_bytes())
    run(config_of(root, epochs=1), RunContext())
    remote = config_of(root, epochs=1).model_copy(update={"root": str(s3_root)})
    context = RunContext()
    with pytest.raises(Preempted):
        run(remote, context, lambda steps: context.stop.set("a test") if steps == 2 else None)
    seen: list[int] = []
    assert run(remote, RunContext(), seen.append).complete
    assert seen == [3, 4, 5, 6]
    for name in ("bundle/weights.safetensors", "bundle/bundle.json", "metrics.csv", "losses.csv", "complete.json"):
        assert (s3_root / "runs/first" / name).read_bytes() == (root / "runs/first" / name).read_bytes()


def test_training_says_loss_and_score_of_every_epoch_and_counts_from_one(root, capsys):
    run(config_of(root), RunContext(reporter=LineReporter(as_json=False)))
    lines = [line for line in capsys.readouterr().err.splitlines() if ": epoch " in line]
    with (root / "runs" / "first" / "metrics.csv").open() as rows:
        overall = [row for row in csv.DictReader(rows) if row["segment"] == "overall"]
    assert [row["epoch"] for row in overall] == ["1", "2"]
    for number, (line, row) in enumerate(zip(lines, overall, strict=True), start=1):
        assert line.startswith(
            f"train first: epoch {number} of 2: loss {float(row['train_loss']):.4g}, validation loss "
        )
        assert f"F0.5 {float(row['f05']):.3f}" in line
    assert "the best so far" in lines[0]


def test_a_finished_run_names_its_files_verify_reads_them_and_lost_ones_are_made_again(root, monkeypatch):
    names = Location.names
    monkeypatch.setattr(Location, "names", lambda self: [] if self.name == "validation" else names(self))  # it lags
    run(config_of(root, epochs=1), RunContext())
    folder = root / "runs/first"
    complete = json.loads((folder / "complete.json").read_text())
    named = set(complete["files"])
    assert {"bundle/weights.safetensors", "bundle/bundle.json", "metrics.csv", "curves.png", "data.json"} <= named
    assert any(name.startswith("validation/epoch-001-") for name in named)
    found = verify(str(folder))
    assert (found.objects, found.faults, found.notes) == (len(named), [], [])
    weights = folder / "bundle/weights.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert "weights.safetensors: expected" in verify(str(folder)).faults[0]
    weights.unlink()
    assert run(config_of(root, epochs=1), RunContext()).stored == 1
    assert weights.read_bytes() == before
    assert json.loads((folder / "complete.json").read_text()) == complete
    assert run(config_of(root, epochs=1), RunContext()).stored == 0
    picture = next(name for name in sorted(named) if name.startswith("validation/"))
    (folder / picture).write_bytes((folder / picture).read_bytes()[:100])
    assert run(config_of(root, epochs=1), RunContext()).stored == 1
    assert set(json.loads((folder / "complete.json").read_text())["files"]) == named - {picture}
    assert not (folder / picture).exists()
    assert verify(str(folder)).faults == []
