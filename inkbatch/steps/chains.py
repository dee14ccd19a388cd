"""Jobs that first run another job they depend on: infer after a depth probe, build-dataset after labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from inkbatch.errors import ConfigError, DataError
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import JobReport, RunContext

if TYPE_CHECKING:
    from inkbatch.steps.dataset.job import BuildDatasetConfig, SegmentChoice
    from inkbatch.steps.infer.settings import InferConfig
    from inkbatch.steps.labels.settings import LabelsConfig


def infer(config: InferConfig, context: RunContext) -> JobReport:
    """Infer a segment; with ``layers: auto`` probe it first, unless a verdict is stored.

    Raises:
        InkbatchError: See `require_probe` and `inkbatch.steps.infer.job.run`.
    """
    from inkbatch.steps.infer.job import run

    if config.layers == "auto":
        require_probe(config, context)
    return run(config, context)


def require_probe(config: InferConfig, context: RunContext) -> None:
    """Run the probe whose verdict `infer --layers auto` reads, unless it is there.

    Args:
        config: The infer job; the probe takes its segment, bundle, overrides, device, precision and batch size.
        context: Circumstances of this process; the probe is never cut into shards.

    Raises:
        DataError: This is one shard of several and no verdict is stored: each would make its own.
        InkbatchError: See `inkbatch.steps.probe.job.run`.
    """
    from inkbatch.models.bundle import Bundle, bundle_location
    from inkbatch.steps.probe.job import ProbeConfig, run
    from inkbatch.steps.stored_probe import VERDICT_NAME, probe_folder

    segment, name = config.segment, Bundle.open(bundle_location(config.bundle)).document.name
    folder = probe_folder(config.root, segment, name)
    if (folder / "complete.json").exists():
        return
    if context.shard.count > 1:
        raise DataError(
            f"--layers auto, segment {segment}: no verdict at {folder / VERDICT_NAME}, and this is shard "
            f"{context.shard}: all must use the same; run inkbatch probe {segment} --bundle {config.bundle} first"
        )
    context.reporter.note(f"infer: --layers auto, no verdict is stored for {segment} and {name}: probing first")
    shared = ("segment", "bundle", "root", "override", "device", "precision", "batch_tiles")
    run(ProbeConfig(**{key: getattr(config, key) for key in shared}), context)


def build_dataset(config: BuildDatasetConfig, context: RunContext) -> JobReport:
    """Build a dataset; first make the ink labels of segments that state ``labels``.

    Raises:
        ConfigError: Label settings that a dataset must not state, or that do not validate.
        InkbatchError: See `inkbatch.steps.labels.job.run` and `inkbatch.steps.dataset.job.run`.
    """
    from inkbatch.io.store.location import Location
    from inkbatch.steps.dataset.job import run, with_named_segments
    from inkbatch.steps.labels.job import run as run_labels

    config = with_named_segments(config, Location.parse(config.root))
    whole = replace(context, shard=ShardSpec())
    for choice in config.choices:
        if choice.labels is not None:
            run_labels(labels_config(config, choice), whole)
    return run(config, context)


def labels_config(config: BuildDatasetConfig, choice: SegmentChoice) -> LabelsConfig:
    """Make the settings of `inkbatch labels` for one segment of a dataset.

    Raises:
        ConfigError: Settings that belong to the dataset, or that do not validate.
    """
    from inkbatch.steps.labels.settings import LabelsConfig

    stated = choice.labels or {}
    for key in ("segment", "root", "catalog", "replace"):
        if key in stated:
            raise ConfigError(f"segment {choice.id}: labels.{key} is not for a dataset; leave it out")
    values = {**stated, "segment": choice.id, "root": config.root, "catalog": config.catalog}
    return LabelsConfig.checked(values, f"segment {choice.id}, labels")
