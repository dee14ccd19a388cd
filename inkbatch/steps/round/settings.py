"""Settings of `inkbatch round`; one YAML file serves all rounds of a series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from inkbatch.config import JobConfig, LayerPair
from inkbatch.data.datasets.sampling import GridSampling, Sampling
from inkbatch.data.maps.proposals import ProposalRules
from inkbatch.data.maps.yardstick import ScoreName
from inkbatch.models.rules import Grown

OWN_LABELS = "own"
OF_ROUND = ("dataset", "run", "root", "output_root", "fold", "folds")  # of train: the round says them

BoundedName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]


class RoundSegment(JobConfig):
    """A segment of a series of rounds; its id alone may stand for it.

    Attributes:
        id: Segment id; it must be prepared.
        scroll: Scroll that it is part of, for quotas.
        layers: Half-open range of source layer numbers; None takes all that the surface holds.
        version: Label version, for example ``v003``; ``own`` takes the labels beside the surface, None the newest
            version, or those where there is none.
    """

    id: str
    scroll: str | None = Field(None, min_length=1)
    layers: LayerPair | None = None
    version: str | None = None


class FoldRules(JobConfig):
    """Division of the labelled papyrus into folds, fixed in the first round.

    Attributes:
        by: ``segments``: each in one fold; ``blocks``: squares of `block_px`, with a moat around each fold.
        count: Number of folds, and of networks.
    """

    by: Literal["segments", "blocks"] = "segments"
    count: int = Field(3, ge=2, le=32)


class YardstickRules(JobConfig):
    """The yardstick: labelled papyrus that is fixed in the first round, labels included, and never trains.

    Attributes:
        segments: Whole segments.
        share: Share of the labelled blocks of the other segments.
        region_px: Edge of a block of the bootstrap.
        draws: Draws of the bootstrap.
        level: Of its interval.
        score: Score that decides if a round is better.
        patience: Rounds in a row that may pass without being better; then the series stops.
    """

    segments: tuple[str, ...] = ()
    share: float = Field(0.2, ge=0, lt=1)
    region_px: int = Field(256, ge=16)
    draws: int = Field(1000, ge=100, le=100_000)
    level: float = Field(0.95, gt=0, lt=1)
    score: ScoreName = "f05"
    patience: int = Field(2, ge=1)


class RoundConfig(Grown, JobConfig):
    """Settings of `inkbatch round`.

    Attributes:
        name: Name of the series; its rounds lie in ``ROOT/rounds/{name}/round-001`` and on.
        round: Number of the round; None goes on with the one that is not complete, or begins the next if labels,
            settings or surfaces changed since the last.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of a round that is repeated elsewhere; a series goes on in `root` alone.
        segments: Segments with labels, wholly or in part.
        block_px: Edge of a block.
        folds: Division into folds.
        yardstick: Papyrus that is kept out for ever.
        sample_px: Edge of a sample.
        context_px: Pixels around a sample that augmentation may show.
        sampling: Sampling of training samples.
        seed: Of all chance outside of training.
        new_share: Share of each batch that samples with new labels take from the second round on; None: none.
        start: First weights of the networks from the second round on. ``fresh``: as in the first round; ``before``: the
            network of each fold goes on from that of the same fold of the round before.
        train: Settings of `inkbatch train`, without dataset, run and folds.
        proposals: Regions to label next.
    """

    job: ClassVar[str] = "round"
    spelled: ClassVar[Mapping[str, str]] = {"name": "NAME"}
    younger: ClassVar[frozenset[str]] = frozenset({"start"})

    name: BoundedName
    round: int | None = Field(None, ge=1, le=999)
    root: str = "root"
    output_root: str | None = None
    segments: tuple[RoundSegment, ...] = Field(min_length=1)
    block_px: int = Field(1024, ge=16)
    folds: FoldRules = FoldRules()
    yardstick: YardstickRules = YardstickRules()
    sample_px: int = Field(256, ge=1)
    context_px: int = Field(0, ge=0)
    sampling: Sampling = Field(default_factory=lambda: GridSampling(min_counted=0.25))
    seed: int = Field(0, ge=0)
    new_share: float | None = Field(0.3, gt=0, lt=1)
    start: Literal["fresh", "before"] = "fresh"
    train: dict[str, Any]
    proposals: ProposalRules = ProposalRules()

    @field_validator("segments", mode="before")
    @classmethod
    def _ids_alone(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"id": item} if isinstance(item, str) else item for item in value]

    @field_validator("segments")
    @classmethod
    def _once_each(cls, value: tuple[RoundSegment, ...]) -> tuple[RoundSegment, ...]:
        names = [segment.id for segment in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected each segment once, got {', '.join(twice)} twice; leave one of each out")
        return value

    @field_validator("train")
    @classmethod
    def _leaves_the_round_its_own(cls, value: dict[str, Any]) -> dict[str, Any]:
        if ours := [key for key in OF_ROUND if key in value]:
            raise ValueError(f"the round sets {', '.join(ours)} itself; leave that out")
        return value

    @model_validator(mode="after")
    def _blocks_hold_samples(self) -> Self:
        if self.block_px < self.sample_px:
            raise ValueError(f"block_px: expected at least sample_px, {self.sample_px}, got {self.block_px}")
        return self

    @property
    def trained_ids(self) -> tuple[str, ...]:
        """Segments that have folds: all but the yardstick's."""
        return tuple(one.id for one in self.segments if one.id not in self.yardstick.segments)
