"""Plan of `inkbatch train`: dataset, samples, contract and network of each run, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from inkbatch.data.datasets.current import dataset_state, require_current
from inkbatch.data.datasets.index import DatasetIndex, Sample, root_of
from inkbatch.data.datasets.trained_pixels import joined_records, records_of
from inkbatch.data.labels.objects import CLASSES
from inkbatch.data.maps.stored import map_address
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models import build_model
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Bundle, Contract, bundle_address, bundle_location, load_matching, load_strictly
from inkbatch.models.encoder_weights import FILE_SUFFIXES, prepare_encoder
from inkbatch.models.inputs import require_tile
from inkbatch.predict.memory_format import arrange_all
from inkbatch.run.record import RunManifest
from inkbatch.run.signals import StopFlag
from inkbatch.training.contract import contract_of, model_settings
from inkbatch.training.data import require_fitting_loss, require_samples
from inkbatch.training.mixing import require_mixable
from inkbatch.training.module import InkModule
from inkbatch.training.order import EpochPlan, require_drawable
from inkbatch.training.settings import TrainConfig
from inkbatch.training.side_maps import require_stages
from inkbatch.training.statistics import sample_statistics


@dataclass(frozen=True)
class TrainPlan:
    """Plan of one run, made before anything is computed.

    Attributes:
        config: The run; `fold` is set where it is one of several.
        index: The dataset.
        dataset: The dataset's folder.
        train: Training samples.
        validation: Validation samples.
        contract: What the network will be fed.
        model: The network's settings.
        folder: The run's folder.
        manifest: The run's manifest.
    """

    config: TrainConfig
    index: DatasetIndex
    dataset: Location
    train: list[Sample]
    validation: list[Sample]
    contract: Contract
    model: dict[str, Any]
    folder: Location
    manifest: RunManifest

    def epoch_plan(self, devices: int) -> EpochPlan:
        """Plan how epochs are cut into steps on so many devices."""
        config = self.config
        return EpochPlan(
            self.train,
            config.sampler,
            config.seed,
            config.batch // devices,
            devices,
            config.accumulate,
            self.index.scrolls,
        )


def make_plan(config: TrainConfig) -> list[TrainPlan]:
    """Open the dataset, check it and the settings against each other; one plan per run, no weights are read.

    Raises:
        ConfigError: A value that cannot be carried out.
        DataError: The dataset is not there, a split is empty, or holds no ink.
    """
    root = Location.parse(config.root)
    dataset = Location.parse(config.dataset) if "/" in config.dataset else root / "datasets" / config.dataset
    index = DatasetIndex.open(dataset)
    folder = run_folder(config)
    if config.folds is None:
        return [_plan_one(config, index, dataset, folder)]
    folds = range(index.fold_count) if config.folds == "all" else config.folds
    if not folds:
        raise ConfigError(f"folds {config.folds}: dataset {index.name} has no folds; leave folds out, or build it with")
    plans = []
    for fold in folds:
        one = config.model_copy(update={"folds": None, "fold": fold})
        plans.append(_plan_one(one, index, dataset, folder / f"fold-{fold}"))
    return plans


def _plan_one(config: TrainConfig, index: DatasetIndex, dataset: Location, folder: Location) -> TrainPlan:
    train, validation = (index.samples_of(split, config.fold) for split in ("train", "validation"))
    require_samples(index.name, train, validation)
    require_fitting_loss(index, config.loss)
    require_mixable(index, config.augment, config.loss, config.input.normaliser)
    require_drawable(train, config.sampler, index.scrolls, config.batch)
    settings = model_settings(config, index)
    model = shape_of(config, settings)
    _require_classes(index, model)
    require_stages(model, config.loss.deep_supervision)
    contract = contract_of(config, index, model.config.depth_layers, root_of(dataset))
    require_tile(model, contract.tile_px, contract.tile_px)
    inputs = {"dataset": index.name, "digest": index.digest}
    start = start_of(config)
    if start is not None:
        inputs["start_from"] = start.document.weights_sha256
    require_current(dataset, index, root_of(dataset))
    state = dataset_state(dataset, index)
    manifest = RunManifest("train", config.result_settings(), inputs, 1, _request(config), state)
    return TrainPlan(config, index, dataset, train, validation, contract, settings, folder, manifest)


def start_of(config: TrainConfig) -> Bundle | None:
    """Open the bundle that a run starts from; None: fresh weights."""
    return None if config.start_from is None else Bundle.open(bundle_location(config.start_from))


def _require_classes(index: DatasetIndex, model: InkModel) -> None:
    """Refuse a network whose classes are not those of the labels.

    Raises:
        ConfigError: It has others.
    """
    wanted = len(CLASSES) if index.has_classes else 1
    if model.classes != wanted:
        raise ConfigError(
            f"dataset {index.name}: expected a network of {wanted} classes, as its labels have, got {model.classes}; "
            f"set model.config.classes={wanted} (of architecture smp)"
        )


def run_folder(config: TrainConfig) -> Location:
    """Return the folder of a run; its folds lie inside."""
    return root_of_runs(config) / "runs" / config.run


def root_of_runs(config: TrainConfig) -> Location:
    """Return the ROOT that takes the run."""
    return Location.parse(config.output_root or config.root)


def _request(config: TrainConfig) -> dict[str, Any]:
    """Return the request, with absolute addresses of dataset and weights."""
    asked = config.request(dataset=map_address(config.dataset))
    for part, key in ((asked["model"], "start_from"), (asked["model"]["encoder"], "encoder_weights")):
        if part[key] is not None and (key == "start_from" or part[key].endswith(FILE_SUFFIXES)):
            part[key] = bundle_address(part[key])
    return asked


def shape_of(config: TrainConfig, settings: Mapping[str, Any]) -> InkModel:
    """Build the network only for its sizes; its weights are not used."""
    return build_model(config.model.architecture, dict(settings))


def network_of(one: TrainPlan) -> tuple[InkModel, list[str]]:
    """Build the network with its first weights: fresh from the seed, a bundle's, or a pretrained encoder's.

    Returns:
        The network, and what was left out of the bundle that it starts from, see `load_matching`.

    Raises:
        InkbatchError: See `started_network`.
    """
    torch.manual_seed(one.config.seed)
    model, left_out = started_network(one.config, one.model)
    model.ask_for_gradients()
    prepare_encoder(model, one.config.model.encoder)
    return model, left_out


def started_network(config: TrainConfig, settings: Mapping[str, Any]) -> tuple[InkModel, list[str]]:
    """Build the network of a run with the weights of the bundle that it starts from, if any.

    Args:
        config: The run.
        settings: Settings of its network.

    Returns:
        The network, and what was left out of that bundle, see `load_matching`.

    Raises:
        ConfigError: The bundle is of another architecture.
        CorruptDataError: Its weights are damaged.
        MismatchError: They do not fit.
    """
    left_out: list[str] = []
    choice, bundle = config.model, start_of(config)
    model = build_model(choice.architecture, dict(settings))
    if bundle is not None:
        if choice.start_with == "matching":
            left_out = load_matching(model, bundle.build().state_dict(), str(bundle.location))
        elif bundle.document.architecture != choice.architecture:
            raise ConfigError(
                f"model.start_from {config.start_from}: is a {bundle.document.architecture}, the run trains a "
                f"{choice.architecture}; name a bundle of that architecture"
            )
        else:
            _load_all(model, bundle)
    return model, left_out


def _load_all(model: InkModel, bundle: Bundle) -> None:
    try:
        load_strictly(model, bundle.build().state_dict(), str(bundle.location))
    except MismatchError as error:
        raise MismatchError(
            f"{error}; to start with another head or first layer, set model.start_with=matching, which lists what it "
            "leaves out"
        ) from error


def shown_pixels(one: TrainPlan) -> list[dict[str, Any]]:
    """Record what the network of a run was shown of each segment, and the one that it started from, for its bundle."""
    own = records_of(one.index, {"train": one.train, "validation": one.validation}, root_of(one.dataset))
    start = start_of(one.config)
    return own if start is None else joined_records(own, start.document.training, str(start.location))


def module_of(one: TrainPlan, network: InkModel, stop: StopFlag) -> InkModule:
    """Join a network with the run's loss, contract and, where the contract needs them, statistics of the segments."""
    samples = [*one.train, *one.validation]
    statistics = sample_statistics(one.contract, one.index, samples, root_of(one.dataset), one.folder, stop.check)
    if one.config.channels_last:
        network = arrange_all(network)
    return InkModule(network, one.contract, one.config.loss, one.config.optimiser, statistics)
