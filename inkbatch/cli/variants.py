"""Options that let `inkbatch infer` pass each tile several times: layer windows, views, directions, null inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from inkbatch.cli.values import parse_groups, parse_names, parse_starts


@dataclass(frozen=True)
class VariantOptions:
    """Options of the variants of a map, as a group (see `option_groups`)."""

    layer_starts: Annotated[
        str | None, typer.Option(help="Layer windows by their first layers, START:STOP:STEP, half-open (10:20:2).")
    ] = None
    layer_groups: Annotated[
        str | None, typer.Option(help="Layer windows one by one: half-open ranges with commas between (10:36,20:46).")
    ] = None
    store_windows: Annotated[
        bool, typer.Option("--store-windows", help="Store one prediction per layer window instead of one of them all.")
    ] = False
    tta: Annotated[
        str | None,
        typer.Option(
            help="Test-time augmentation: further views of each tile, with commas between: flip-y, flip-x, turn-90, "
            "turn-180, turn-270; flips, turns; or allowed (all that the bundle allows)."
        ),
    ] = None
    combine: Annotated[
        str | None, typer.Option(help="Combine views and layer windows by their mean (default) or max.")
    ] = None
    directions: Annotated[
        str | None, typer.Option(help="Direction of the layers: forward, reversed, or both (a prediction for each).")
    ] = None
    null: Annotated[
        str | None, typer.Option(help="Also infer null inputs, a prediction for each: shuffled, repeated.")
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return the settings that they state; None where an option was not given."""
        return {
            "layer_starts": parse_starts(self.layer_starts),
            "layer_groups": parse_groups(self.layer_groups),
            "store_windows": self.store_windows or None,
            "tta": parse_names(self.tta),
            "combine": self.combine,
            "directions": self.directions,
            "nulls": parse_names(self.null),
        }
