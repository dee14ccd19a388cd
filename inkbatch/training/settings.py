"""The configuration of `inkbatch train`: one YAML describes a run."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from inkbatch.config import JobConfig, WindowName, parse_bytes
from inkbatch.models.encoder_weights import EncoderConfig
from inkbatch.models.rules import Grown, Normaliser, Stitching
from inkbatch.training.augment_settings import AugmentConfig
from inkbatch.training.losses import LossConfig
from inkbatch.training.optimise import OptimiserConfig, ScheduleConfig
from inkbatch.training.order import SamplerConfig

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
MonitorName = Literal["f05", "dice", "iou", "average_precision", "auc", "loss"]
TtaAxis = Literal["flip-y", "flip-x", "turn-90", "turn-180", "turn-270"]
NAME = r"^[a-z0-9][a-z0-9._-]{0,127}$"
OF_FOLD = "{fold}"  # in the address of a bundle: stands for the number of the fold


class ModelChoice(Grown):
    """The network of a run.

    Attributes:
        architecture: Registered name; ``inkbatch models`` lists them.
        config: Its shape.
        start_from: Bundle of the very same network whose weights the run starts from; None: fresh weights. ``{fold}``
            in it stands for the number of the fold, so that each starts from a bundle of its own.
        start_with: ``all`` weights of that bundle, or those that are ``matching``: its head or first layer may be
            another one, and keeps fresh weights. What was left out is listed.
        encoder: Pretrained or frozen encoder.
    """

    younger: ClassVar[frozenset[str]] = frozenset({"start_with"})

    architecture: str
    config: dict[str, Any] = Field(default_factory=dict)
    start_from: str | None = None
    start_with: Literal["all", "matching"] = "all"
    encoder: EncoderConfig = EncoderConfig()


class InputConfig(Grown):
    """Normalisation of stored intensities; part of the bundle's contract.

    Attributes:
        clip: Smallest and largest intensity, or None.
        divisor: Divides after clipping; None: the largest value of the dtype.
        scaling: ``divide`` by the divisor, or ``multiply`` by its reciprocal.
        mean: Subtracted after division.
        std: Divides at last.
        normaliser: Statistics of a tile or a segment in place of these numbers.
    """

    younger: ClassVar[frozenset[str]] = frozenset({"scaling", "normaliser"})

    clip: tuple[float, float] | None = None
    divisor: float | None = Field(None, gt=0)
    scaling: Literal["divide", "multiply"] = "divide"
    mean: float = 0.0
    std: float = Field(1.0, gt=0)
    normaliser: Normaliser = Normaliser()


class TrainConfig(Grown, JobConfig):
    """Settings of `inkbatch train`.

    Attributes:
        dataset: Name of a dataset under ROOT/datasets, or its folder.
        run: Name of the run, and of its bundle.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the run, where it is not to lie beside its dataset.
        fold: The fold that validates, for a dataset with folds.
        folds: Several folds as one job, each a run of its own: ``all``, or a list.
        model: The network.
        input: Normalisation of intensities.
        tile_px: Edge of the network's tiles; None: the dataset's sample_px. Larger samples are cropped at random.
        stride_px: Step between tiles in validation and inference; None: half a tile.
        window: Blending window of both.
        stitching: How maps of tiles become one, in both.
        display_range: Probabilities that pictures of the bundle's maps show as black and as white.
        tta_axes: Views that the bundle allows to be averaged.
        loss: Weighted sum of losses.
        sampler: Rules for drawing samples.
        augment: Augmentation of samples.
        optimiser: Optimiser and rates.
        schedule: Learning rate over the steps.
        epochs: Number of epochs.
        batch: Samples per forward pass, all devices together; they share it evenly.
        accumulate: Forward passes per optimiser step.
        clip_gradient: Largest norm of the gradient, or None.
        ema: Decay of the moving average of the weights, or None; validated and bundled instead of the weights.
        monitor: Validation score that chooses the best checkpoint.
        patience: Epochs without a better score after which training stops, or None.
        seed: Seed of weights, samples and augmentation.
        channels_last: Lay out convolutions channels-last: a quarter faster for networks of depthwise convolutions
            (MobileNet, EfficientNet) on a CPU, slower for others. Results differ by rounding.
        precision: ``auto`` is bf16 on CUDA and fp32 elsewhere.
        device: ``auto`` takes CUDA, then the CPU.
        devices: Devices per node, or ``auto``: as many as torchrun or Slurm started processes; where they started
            none, all GPUs (one process on a CPU).
        num_nodes: Nodes, or ``auto``: those of torchrun, Slurm or AWS Batch, else one.
        threads: Threads of each process that read batches ahead; None: 4, and where the data is local and the CPU
            computes as well, no more than its cores; four cores or fewer then read ahead only where reading waits.
        read_cache: Memory of each process for decoded chunks, so that tiles of one neighbourhood decode it once.
        save_every_steps: A checkpoint after so many steps, besides those at each epoch's end; None: none.
        save_every_minutes: And after so many minutes.
        keep_epochs: Last epochs whose checkpoints are kept, for `inkbatch soup`, besides the last two and the best.
    """

    job: ClassVar[str] = "train"
    younger: ClassVar[frozenset[str]] = frozenset({"stitching", "display_range"})

    dataset: str
    run: str = Field(pattern=NAME)
    root: str = "root"
    output_root: str | None = None
    fold: int | None = Field(None, ge=0)
    folds: Literal["all"] | tuple[int, ...] | None = None
    model: ModelChoice
    input: InputConfig = InputConfig()
    tile_px: int | None = Field(None, ge=1)
    stride_px: int | None = Field(None, ge=1)
    window: WindowName = "hann"
    stitching: Stitching = Stitching()
    display_range: tuple[float, float] = (0.0, 1.0)
    tta_axes: tuple[TtaAxis, ...] = ()
    loss: LossConfig = LossConfig()
    sampler: SamplerConfig = SamplerConfig()
    augment: AugmentConfig = AugmentConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    epochs: int = Field(10, ge=1)
    batch: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1)
    clip_gradient: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)
    monitor: MonitorName = "f05"
    patience: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    channels_last: bool = False
    precision: PrecisionName = "auto"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    devices: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    num_nodes: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    threads: int | None = Field(None, ge=1)
    read_cache: str = "1GiB"
    save_every_steps: int | None = Field(None, ge=1)
    save_every_minutes: float = Field(10.0, gt=0)
    keep_epochs: int = Field(0, ge=0)

    @field_validator("read_cache")
    @classmethod
    def _a_size(cls, text: str) -> str:
        parse_bytes(text)
        return text

    @model_validator(mode="after")
    def _one_way_to_fold(self) -> TrainConfig:
        if self.fold is not None and self.folds is not None:
            raise ValueError("give fold (one run) or folds (several), not both")
        return self

    @model_validator(mode="after")
    def _starts_of_folds(self) -> TrainConfig:
        if self.starts_by_fold and self.fold is None and self.folds is None:
            raise ValueError(
                f"model.start_from: expected a run with fold or folds, as {self.model.start_from} names a bundle for "
                f"each, got one without; set folds: all, or name one bundle without {OF_FOLD}"
            )
        return self

    @property
    def starts_by_fold(self) -> bool:
        """True if each fold starts from a bundle of its own."""
        return OF_FOLD in (self.model.start_from or "")

    @property
    def start_from(self) -> str | None:
        """Address of the bundle that this run (one fold) starts from; None: fresh weights."""
        start = self.model.start_from
        return start if start is None else start.replace(OF_FOLD, str(self.fold))

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the result, for the manifest. Devices do not: they share the batch.

        Of bundles by fold the address does not either: the manifest's inputs hold the digest of the weights.
        """
        place = {
            "root",
            "output_root",
            "folds",
            "device",
            "devices",
            "num_nodes",
            "threads",
            "read_cache",
            "save_every_steps",
            "save_every_minutes",
            "keep_epochs",
        }
        found = self.model_dump(mode="json", exclude=place)
        if self.starts_by_fold:
            found["model"]["start_from"] = OF_FOLD
        return found
