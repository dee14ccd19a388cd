"""Plan of a round: its number, the round before it, labels, blocks, and the names of all that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from inkbatch.data.datasets.listed_blocks import BlockHome
from inkbatch.data.datasets.round_blocks import TEST, BlockLabels, Homes, Place, deal_blocks, kept_out_boxes
from inkbatch.data.labels.painting_version import labels_folder, outdated, version_names
from inkbatch.data.labels.round_labels import KeptLabels, LabelsOfSegment, StoredLabels
from inkbatch.data.labels.round_versions import PaintedLabels, chosen_labels, origin_of, relabelled
from inkbatch.data.maps.yardstick import VerdictName, require_judge, stopped_because
from inkbatch.data.segments.prepared import SURFACE, open_prepared, segment_folder, surface_content
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import cells, cut
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.encoder_weights import NONE
from inkbatch.run.record import RunFolder, RunManifest, require_complete
from inkbatch.run.states import contents_now, differences, state_changes, states_of
from inkbatch.steps.round.names import BLOCKS, DOCUMENT, fold_bundle, round_folder, round_name
from inkbatch.steps.round.settings import OWN_LABELS, RoundConfig, RoundSegment
from inkbatch.training.settings import OF_FOLD, TrainConfig


@dataclass(frozen=True)
class RoundPlan:
    """Everything that is known before a pixel is computed.

    Attributes:
        config: The round; its number and the versions of its labels are stated.
        train: Settings of its training.
        surfaces: By segment id.
        labels: By segment id: the labels that it takes.
        before: Folder of the round before it, or None.
        starts: By fold (``fold-0``): digest of the weights of the round before it that its network goes on from; empty
            where networks start as in the first round.
        manifest: The round's manifest.
    """

    config: RoundConfig
    train: TrainConfig
    surfaces: Mapping[str, SurfaceVolume]
    labels: Mapping[str, LabelsOfSegment]
    before: Location | None
    starts: Mapping[str, str]
    manifest: RunManifest

    @property
    def number(self) -> int:
        """Number of the round, from 1."""
        return int(self.config.round or 1)

    @property
    def name(self) -> str:
        """Name of the round's dataset, training run and maps."""
        return round_name(self.config.name, self.number)

    @property
    def out(self) -> Location:
        """ROOT of all that the round makes."""
        return Location.parse(self.config.output_root or self.config.root)

    @property
    def folder(self) -> Location:
        """The round's folder."""
        return round_folder(self.out, self.config.name, self.number)

    @property
    def record(self) -> RunFolder:
        """The round's run."""
        return RunFolder(self.folder, self.manifest)

    def labels_folder(self, segment: str) -> Location:
        """Return the folder of the round's copy of a segment's labels."""
        return self.folder / "labels" / segment

    def first_labels(self, segment: str) -> Location:
        """Return the folder of the labels of the round that fixed the yardstick."""
        if self.number == 1:
            return self.labels_folder(segment)
        return round_folder(Location.parse(self.config.root), self.config.name, 1) / "labels" / segment

    @property
    def label_notes(self) -> list[str]:
        """Notes for a person on the painted labels that the round takes."""
        painted = {name: found.version.facts for name, found in self.labels.items() if isinstance(found, PaintedLabels)}
        said = (outdated(facts, surface_content(self.config.root, name)) for name, facts in painted.items())
        return [line for line in said if line]

    @property
    def reach_px(self) -> int:
        """A tile and its context: how far a network sees, and what training shows it beyond a sample."""
        return max(self.config.sample_px, self.train.tile_px or 0) + self.config.context_px

    @cached_property
    def homes(self) -> Homes:
        """Yardstick and folds; of a later round as the first one dealt them.

        Raises:
            InkbatchError: See `deal_blocks` and `require_judge`.
        """
        config, edge = self.config, self.config.block_px
        known: Mapping[str, Sequence[tuple[int, int, BlockHome]]] | None = None
        if self.before is not None:
            known = {name: [tuple(row) for row in rows] for name, rows in _blocks_of(self.before, edge).items()}
            require_same_rules(known, config, str(self.before / BLOCKS))
            self._require_same_yardstick(self.before, known)
        blocks: dict[Place, BlockLabels] = {}
        for segment, surface in self.surfaces.items():
            for box in cut(surface.shape_yx, edge, edge):
                ink, counted = self.labels[segment].read(box)
                counted &= surface.read_mask(box)
                found = BlockLabels(int(np.count_nonzero(counted)), int(np.count_nonzero(ink & counted)))
                blocks[segment, box.y0 // edge, box.x0 // edge] = found
        dealt = deal_blocks(
            blocks,
            folds=config.folds.count,
            by_segment=config.folds.by == "segments",
            kept_out=config.yardstick.segments,
            share=config.yardstick.share,
            seed=config.seed,
            known=known,
        )
        if known is None:
            require_judge(self._filled(dealt), has_ink=True)  # before networks are trained that nothing could compare
        return dealt

    def _require_same_yardstick(
        self, before: Location, known: Mapping[str, Sequence[tuple[int, int, BlockHome]]]
    ) -> None:
        """Refuse a yardstick on another surface: maps of the round before cannot be compared with those of this one."""
        keys = [f"{SURFACE} {name}" for name, rows in known.items() if any(home == TEST for _, _, home in rows)]
        now = {key: self.manifest.state[key] for key in keys if key in self.manifest.state}
        if changed := state_changes((before / "manifest.json").read_mapping().get("state"), now):
            raise MismatchError(
                f"round {self.name}: expected the yardstick on the surfaces of {before.name}, got "
                f"{'; '.join(changed)}; restore them, or begin a series with another name"
            )

    def _filled(self, homes: Homes) -> int:
        """Count the bootstrap's blocks with labels."""
        edge, count = self.config.yardstick.region_px, 0
        for segment, surface in self.surfaces.items():
            for block in kept_out_boxes(homes.get(segment, ()), self.config.block_px, surface.shape_yx):
                boxes = cells(block, edge, edge)
                count += sum(bool((self.labels[segment].read(box)[1] & surface.read_mask(box)).any()) for box in boxes)
        return count


def make_plan(config: RoundConfig) -> RoundPlan:
    """Find the round's number and labels, and check its settings; of pixels only labels are read.

    Without a stated number that is the round that is not complete; else the last one again if nothing changed since,
    so that a command that is repeated does nothing; else the next.

    Raises:
        ConfigError: Settings that cannot be carried out, or a series that has stopped by its rule.
        DataError: A segment or the round before it is not whole.
    """
    if config.round is not None:
        return _plan(config, config.round)
    out, number = Location.parse(config.output_root or config.root), 1
    while (round_folder(out, config.name, number) / "complete.json").exists():
        number += 1
    if number == 1 or (round_folder(out, config.name, number) / "manifest.json").exists():
        return _plan(config, number)
    last = _unchanged(config, number - 1, out)
    if last is None:
        _require_not_stopped(config, number, out)
    return last or _plan(config, number)


def _unchanged(config: RoundConfig, number: int, out: Location) -> RoundPlan | None:
    """Plan a complete round once more; None where labels, settings or surfaces changed since."""
    try:
        found = (round_folder(out, config.name, number) / "manifest.json").read_mapping()
        taken = {one["id"]: one["version"] for one in found["config"]["segments"]}
    except KeyError:  # an older version did not say which labels it took
        return None
    origins = {origin_of(round_name(config.name, one)) for one in range(1, number + 1)}
    left_open = [one.id for one in config.segments if one.version is None]
    if any(relabelled(config.root, name, taken.get(name, OWN_LABELS), origins) for name in left_open):
        return None
    plan = _plan(config, number)
    changed = differences(found, plan.manifest.document) or state_changes(found.get("state"), plan.manifest.state)
    return None if changed else plan


def _plan(config: RoundConfig, number: int) -> RoundPlan:
    out, root = Location.parse(config.output_root or config.root), Location.parse(config.root)
    ids = [one.id for one in config.segments]
    if unknown := [name for name in config.yardstick.segments if name not in ids]:
        raise ConfigError(
            f"yardstick.segments: expected one of the segments {', '.join(ids)}, got {', '.join(unknown)}; list it "
            "among segments, too"
        )
    before = None
    if number > 1:
        before = round_folder(root, config.name, number - 1)
        what = f"round {number} of {config.name}: the one before it"
        if not before.exists() and (elsewhere := round_folder(out, config.name, number - 1)).exists():
            raise ConfigError(
                f"{what}: expected at {before}, beside its segments, got it at {elsewhere}; output_root repeats one "
                "round elsewhere: for a series in another ROOT prepare the segments there, or copy that round"
            )
        require_complete(before, what, f"run inkbatch round {config.name} --round {number - 1} first")
    config = config.model_copy(update={"segments": _as_begun(config, round_folder(out, config.name, number))})
    surfaces = {name: open_prepared(config.root, name)[0] for name in ids}
    kept = _kept_labels(config, number, surfaces)
    labels = {one.id: kept.get(one.id) or labels_of(config.root, one, surfaces[one.id]) for one in config.segments}
    goes_on = before is not None and config.start == "before"
    starts = dict((before / DOCUMENT).read_mapping()["weights_sha256"]) if before is not None and goes_on else {}
    start = fold_bundle(root, config.name, number - 1, OF_FOLD).uri if goes_on else None
    train = train_config(config, number, out, start)
    config = config.model_copy(update={"round": number, "segments": _pinned(config, labels)})
    settings = config.model_dump(mode="json", exclude={"root", "output_root", "train"})
    settings["train"] = {key: value for key, value in train.result_settings().items() if key not in ("dataset", "run")}
    inputs: dict[str, Any] = {"labels": {name: dict(found.identity) for name, found in labels.items()}}
    folders = {f"{SURFACE} {name}": segment_folder(config.root, name) / "prepare" for name in ids}
    if starts:
        inputs["starts"] = starts
    if before is not None:
        inputs["before"] = before.name
        folders[f"round {before.name}"] = before
    state = states_of(folders)
    manifest = RunManifest("round", settings, inputs, 1, config.request(), state, lambda: contents_now(folders))
    return RoundPlan(config, train, surfaces, labels, before, starts, manifest)


def _kept_labels(config: RoundConfig, number: int, surfaces: Mapping[str, SurfaceVolume]) -> dict[str, LabelsOfSegment]:
    """Open the labels that this very round took before: of a round to go on with, or to repeat elsewhere.

    People paint on in the version that a round took; a round that has begun keeps to what it copied. Of a round that is
    complete its copy stands in for versions that were deleted since.
    """
    root, out = Location.parse(config.root), Location.parse(config.output_root or config.root)
    folder = round_folder(out, config.name, number)
    is_own = (folder / "manifest.json").exists()
    if not is_own and root != out:
        folder = round_folder(root, config.name, number)
    is_complete = is_own and (folder / "complete.json").exists()
    try:
        taken = (folder / "manifest.json").read_mapping()["inputs"]["labels"]
    except (FileNotFoundError, KeyError):  # not begun, or by an older version
        return {}
    found: dict[str, LabelsOfSegment] = {}
    for one in config.segments:
        identity = taken.get(one.id, {})
        is_there = one.version in (OWN_LABELS, *version_names(labels_folder(config.root, one.id)))
        if str(identity.get("version", OWN_LABELS)) == one.version and not (is_complete and is_there):
            kept = KeptLabels.open(folder / "labels" / one.id, surfaces[one.id].shape_yx, identity)
            found |= {one.id: kept} if kept else {}
    return found


def labels_of(root: str, segment: RoundSegment, surface: SurfaceVolume) -> LabelsOfSegment:
    """Open the labels that a round takes of a segment.

    Raises:
        DataError: There are none.
        MismatchError: They are of another surface.
    """
    if segment.version != OWN_LABELS:
        painted = chosen_labels(root, segment.id, segment.version, surface.shape_yx)
        if painted is not None:
            return painted
    return StoredLabels.open(segment_folder(root, segment.id), surface.shape_yx, f"segment {segment.id}")


def train_config(config: RoundConfig, number: int, out: Location, start: str | None) -> TrainConfig:
    """Make the settings of the round's training.

    Args:
        config: The round.
        number: Its number.
        out: ROOT of all that it makes.
        start: Address of the networks of the round before that those of this one go on from; None: none.

    Raises:
        ConfigError: They do not validate.
    """
    name = round_name(config.name, number)
    settings = {**config.train, "dataset": name, "run": name, "root": out.uri, "folds": "all"}
    if number > 1 and config.new_share is not None:
        settings["sampler"] = {"new_share": config.new_share, **settings.get("sampler", {})}
    train = TrainConfig.checked(settings, f"round {config.name}, train")
    if start is None:
        return train
    model, encoder = train.model, train.model.encoder.model_copy(update={"encoder_weights": NONE})
    whole = {"start_from": start, "start_with": "all", "encoder": encoder}
    return train.model_copy(update={"model": model.model_copy(update=whole)})


def verdicts_before(root: Location, series: str, number: int) -> list[VerdictName]:
    """Return the verdicts of all rounds before this one, in order."""
    return [(round_folder(root, series, one) / DOCUMENT).read_mapping()["verdict"] for one in range(1, number)]


def _require_not_stopped(config: RoundConfig, number: int, out: Location) -> None:
    """Refuse a next round that nobody stated.

    Raises:
        ConfigError: The series has stopped by its rule.
    """
    why = stopped_because(verdicts_before(out, config.name, number), config.yardstick.patience)
    if why is not None:
        raise ConfigError(
            f"round {config.name}: stopped after round {number - 1}: {why} on the yardstick; label other papyrus and "
            f"state --round {number}, or set yardstick.patience higher"
        )


def _as_begun(config: RoundConfig, folder: Location) -> tuple[RoundSegment, ...]:
    """State the versions that a round began with, where it has begun: newer ones are for the next round."""
    try:
        begun = (folder / "manifest.json").read_mapping()["config"]["segments"]
    except (FileNotFoundError, KeyError):  # not begun, or by an older version
        return config.segments
    known = {one["id"]: one["version"] for one in begun}
    return tuple(
        one if one.version is not None else one.model_copy(update={"version": known.get(one.id)})
        for one in config.segments
    )


def _pinned(config: RoundConfig, labels: Mapping[str, LabelsOfSegment]) -> tuple[RoundSegment, ...]:
    """State the version of every segment's labels."""
    return tuple(
        one.model_copy(update={"version": str(labels[one.id].identity.get("version", OWN_LABELS))})
        for one in config.segments
    )


def require_same_rules(
    known: Mapping[str, Sequence[tuple[int, int, BlockHome]]], config: RoundConfig, place: str
) -> None:
    """Refuse settings that would change the yardstick or the folds of a series.

    Args:
        known: Homes of blocks by segment, as the first round dealt them.
        config: The round.
        place: File that holds the homes.

    Raises:
        ConfigError: A segment of the yardstick is gone or came later, or the number of folds is another one.
    """
    fixed = {name for name, rows in known.items() if any(home == TEST for _, _, home in rows)}
    listed = {one.id for one in config.segments}
    cure = "yardstick and folds are fixed in the first round: set it back, or begin a series with another name"
    if gone := sorted(fixed - listed):
        raise ConfigError(f"{place}: expected {', '.join(gone)} among segments, for the yardstick, got none; {cure}")
    if new := sorted(set(config.yardstick.segments) - fixed):
        raise ConfigError(f"yardstick.segments: expected {', '.join(sorted(fixed))}, got {', '.join(new)}, too; {cure}")
    folds = len({home for rows in known.values() for _, _, home in rows} - {TEST})
    if folds != config.folds.count:
        raise ConfigError(f"folds.count: expected {folds}, as {place} holds, got {config.folds.count}; {cure}")


def _blocks_of(folder: Location, block_px: int) -> dict[str, Any]:
    found = (folder / BLOCKS).read_mapping()
    if found["block_px"] != block_px:
        raise DataError(
            f"{folder / BLOCKS}: expected blocks of {block_px} px, got {found['block_px']} px; block_px and the "
            "yardstick are fixed in the first round: set it back, or begin a series with another name"
        )
    return dict(found["homes"])
