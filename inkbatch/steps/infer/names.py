"""Names of predictions: bundle, tile, stride, and what sets a map apart from the bundle's plain one."""

from __future__ import annotations

from collections.abc import Sequence

from inkbatch.config import digest
from inkbatch.data.maps.series import Series
from inkbatch.errors import ConfigError
from inkbatch.models.bundle import Contract
from inkbatch.predict.variants import Combine, LayerWindow, View

LONGEST_NAME = 128  # characters of a folder's name
LONGEST_LIST = 48  # characters of windows that are listed one by one


def box_name(box: Sequence[int] | None) -> str:
    """Name the part of a quick look: ``-box0-0-2048-2048``; empty for whole maps."""
    return "" if box is None else "-box" + "-".join(map(str, box))


def series_name(series: Series) -> str:
    """Name the order of the layers: ``-reversed``, ``-shuffled``; empty for layers as the bundle reads them."""
    return "" if series == Series() else f"-{series.name.removeprefix('forward-')}"


def prediction_name(
    given: str | None, bundle: str, contract: Contract, variants: str, series: str, *, stored_each: bool
) -> str:
    """Name one prediction.

    Args:
        given: The user's name, or None. It is taken as it is; only maps that are stored side by side need their
            variants behind it.
        bundle: Name of the bundle.
        contract: The contract that the run follows.
        variants: From `variants_name`.
        series: From `series_name`.
        stored_each: The job stores a map per window.

    Raises:
        ConfigError: The name is too long for a folder.
    """
    plain = f"{bundle}-tile{contract.tile_px}-stride{contract.stride_px}"
    name = (plain + variants if given is None else given + variants * stored_each) + series
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"prediction {name}: the name has {len(name)} characters, {LONGEST_NAME} are the most")
    return name


def variants_name(views: Sequence[View], windows: Sequence[LayerWindow], combine: Combine, *, stored_each: bool) -> str:
    """Name one prediction's variants: ``-layers10-36_12-38-tta-90-180-270-max``; may be empty.

    Args:
        views: The views that are combined.
        windows: The windows of this prediction.
        combine: How they are combined.
        stored_each: The job stores a map per window: each is named by its layers.
    """
    name = ""
    if stored_each or len(windows) > 1:
        ranges = [window.source for window in windows if window.source is not None]
        listed = "_".join(f"{start}-{stop}" for start, stop in ranges)
        fits = len(listed) <= LONGEST_LIST
        name += f"-layers{listed}" if fits else f"-{len(ranges)}windows-{digest(ranges)[:8]}"
    if len(views) > 1:
        name += "-tta" + "".join(f"-{view.name.rpartition('-')[2]}" for view in views[1:])
    if len(views) * len(windows) > 1 and combine == "max":
        name += "-max"
    return name
