"""Files and folders of rounds."""

from __future__ import annotations

from inkbatch.io.store.location import Location

DOCUMENT = "round.json"
BLOCKS = "blocks.json"
PROPOSALS = "proposals.json"


def round_name(series: str, number: int) -> str:
    """Name a round's dataset, training run and maps: ``letters-r001``."""
    return f"{series}-r{number:03d}"


def fold_bundle(root: Location, series: str, number: int, fold: int | str) -> Location:
    """Return the bundle of a fold's network: ``ROOT/runs/{series}-r001/fold-0/bundle``."""
    return root / "runs" / round_name(series, number) / f"fold-{fold}" / "bundle"


def round_folder(root: Location, series: str, number: int) -> Location:
    """Return ``ROOT/rounds/{series}/round-001``."""
    return root / "rounds" / series / f"round-{number:03d}"
