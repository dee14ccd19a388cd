"""Facts of a labels job's first pass, joined and checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inkbatch.data.labels.component_facts import UnitFacts
from inkbatch.data.labels.seams import Merged, merge
from inkbatch.errors import DataError
from inkbatch.text import count_text

if TYPE_CHECKING:
    from inkbatch.steps.labels.settings import LabelsConfig
    from inkbatch.steps.labels.sources import LabelInputs

LISTED = 1_000  # components in components.json


@dataclass(frozen=True)
class Counted:
    """Counts over all units.

    Attributes:
        merged: The components; None for soft labels, which have none.
        highest: Largest share of full scale.
        plane: Plane of the label volume that the labels were taken from; None for a picture.
        held_out_px: Pixels on papyrus that the validation mask marks; None without one.
        free_px: Pixels on papyrus that are neither held out nor ignored by a mask; None without a validation mask.
    """

    merged: Merged | None
    highest: float
    plane: int | str | None
    held_out_px: int | None
    free_px: int | None

    @property
    def facts(self) -> dict[str, Any]:
        """Entries of ``complete.json``."""
        found = {"plane": self.plane, "held_out_px": self.held_out_px}
        return {key: value for key, value in found.items() if value is not None}


def counted(config: LabelsConfig, inputs: LabelInputs, documents: Sequence[Mapping[str, Any]]) -> Counted:
    """Join what the units found.

    Raises:
        DataError: No ink is left, several planes hold ink, or a mask marks nothing or everything.
    """
    highest = max(document["highest"] for document in documents)
    volume = inputs.labels.volume
    if volume is not None:
        volume.settle({plane for document in documents for plane in document.get("planes", ())})
    held_out = free = None
    if inputs.validation is not None:
        held_out, free = (sum(document[key] for document in documents) for key in ("held_out_px", "free_px"))
        _require_split(config, str(inputs.validation.source.uri), held_out, free)
    if inputs.supervision is not None and not any(document["supervised_px"] for document in documents):
        raise DataError(
            f"segment {config.segment}: expected a supervision mask that marks pixels, {inputs.supervision.source.uri} "
            "marks none; give another one, or leave it out"
        )
    merged = None if config.soft else _merged(config, inputs, documents, highest)
    if config.soft and highest == 0 and not config.allow_empty:
        raise DataError(
            f"segment {config.segment}: no ink is in {inputs.name}: all values are 0; give the labels that "
            "hold some, or set allow_empty"
        )
    return Counted(merged, highest, volume.plane if volume else None, held_out, free)


def _require_split(config: LabelsConfig, uri: str, held_out: int, free: int) -> None:
    place = f"segment {config.segment}: validation mask {uri}"
    if not held_out:
        raise DataError(f"{place}: expected some papyrus to hold out, got none; give another one, or leave it out")
    if not free:
        raise DataError(
            f"{place}: expected papyrus that is left to train on, got none: it covers all {held_out:,} px that "
            "count; give a smaller one, or hold the segment out as a whole (splits: {kind: lists})"
        )


def _merged(
    config: LabelsConfig, inputs: LabelInputs, documents: Sequence[Mapping[str, Any]], highest: float
) -> Merged:
    rules = config.clean
    merged = merge(
        [UnitFacts.stored(document.get("facts"), f"labels of segment {config.segment}") for document in documents],
        min_area_px=rules.min_area_px,
        fill_holes=rules.fill_holes,
        max_hole_px=rules.max_hole_px,
        listed=LISTED,
    )
    if merged.kept_count == 0 and not config.allow_empty:
        raise DataError(
            f"segment {config.segment}: no ink is left of {inputs.name}: "
            f"{count_text(merged.removed_count, 'component')} under {rules.min_area_px} px, and the largest value is "
            f"{highest:.3g} of full scale, the threshold {rules.threshold:g}; lower clean.min_area_px or "
            "clean.threshold, state white, or set allow_empty"
        )
    return merged
