"""Statistics of a whole segment, for contracts that normalise by them: counted once, from all prepared layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkbatch.geometry import Box, cut
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Contract
from inkbatch.models.rules import Normaliser
from inkbatch.predict.normalise import Statistics, statistics_of, statistics_of_counts

FILE_NAME = "segment-statistics.json"
READ_PX = 1024


def needs_segment(rule: Normaliser) -> bool:
    """Tell whether a normaliser takes statistics of the whole segment."""
    return rule.by_statistics and not rule.per_tile


def stored_statistics(
    contract: Contract, volume: SurfaceVolume, folder: Location, device: torch.device, check: Callable[[], None]
) -> Statistics | None:
    """Return a segment's statistics; the first process counts and stores them, the others read the run's folder.

    Args:
        contract: The bundle's contract.
        volume: The surface.
        folder: The run's folder.
        device: Where they are used.
        check: Called between squares; raises on a stop.

    Returns:
        Statistics of shape (1,); None where the contract takes none of a segment.
    """
    if not needs_segment(contract.normaliser):
        return None
    return kept_statistics(folder, device, lambda: segment_statistics(volume, contract.normaliser, check))


def kept_statistics(folder: Location, device: torch.device, count: Callable[[], Statistics]) -> Statistics:
    """Read statistics that a run's folder keeps, or count and keep them; shape (1,), on `device`."""
    place = folder / FILE_NAME
    try:
        values: Mapping[str, Any] = place.read_mapping()
    except FileNotFoundError:
        values = {key: float(value) for key, value in count()._asdict().items()}
        place.write_json(values)
    return Statistics(*(torch.tensor([values[key]], dtype=torch.float32, device=device) for key in Statistics._fields))


def segment_statistics(volume: SurfaceVolume, rule: Normaliser, check: Callable[[], None]) -> Statistics:
    """Count every value of every prepared layer, square by square, and take the statistics."""
    counts = np.zeros(np.iinfo(volume.dtype).max + 1, np.int64)
    for box in cut(volume.shape_yx, READ_PX, READ_PX):
        check()
        counts += np.bincount(_values(volume, box), minlength=len(counts))
    return statistics_of_counts(torch.from_numpy(counts)[None], rule)


def array_statistics(contract: Contract, layers: NDArray[Any], device: torch.device) -> Statistics | None:
    """Compute the same statistics of layers in memory (Z, Y, X): of a picture, or of made-up values."""
    if not needs_segment(contract.normaliser):
        return None
    return statistics_of(torch.from_numpy(layers)[None].to(device), contract.normaliser)


def _values(volume: SurfaceVolume, box: Box) -> NDArray[Any]:
    return volume.read(range(volume.layer_count), box).reshape(-1)
