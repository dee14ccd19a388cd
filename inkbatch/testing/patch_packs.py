"""A tiny patch pack, as the field writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

EDGE, LAYERS = 32, 6
SEGMENTS = ["20231210121321", "w05"]


def write_patch_pack(folder: Path, **changes: Any) -> dict[str, NDArray[Any]]:
    """Write patches on a grid of both segments; the last row, beyond a gap, validates.

    Args:
        folder: Where it goes.
        **changes: Arrays in place of those that are made, by name; None leaves a file out. `segments` is the content of
            ``segments.json``.

    Returns:
        The arrays by name.
    """
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any] | None] = {}
    for prefix, rows in (("train", range(3)), ("val", range(4, 5))):
        places = [(n, y * EDGE, x * EDGE) for n in range(2) for y in rows for x in range(3)]
        count = len(places)
        arrays[f"{prefix}_images"] = rng.integers(1, 255, (count, EDGE, EDGE, LAYERS), dtype=np.uint8)
        arrays[f"{prefix}_labels"] = rng.integers(0, 256, (count, EDGE, EDGE), dtype=np.uint8)
        arrays[f"{prefix}_xyxys"] = np.array([[x, y, x + EDGE, y + EDGE] for _, y, x in places], np.int32)
        arrays[f"{prefix}_seg_idx"] = np.array([n for n, _, _ in places], np.int64)
    arrays |= {key: value for key, value in changes.items() if key != "segments"}
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    (folder / "segments.json").write_text(json.dumps(changes.get("segments", SEGMENTS)))
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    return {name: array for name, array in arrays.items() if array is not None}
