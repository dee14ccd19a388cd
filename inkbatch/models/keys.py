"""Keys of a state dict, compared with those of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

SHOWN = 20  # keys that a message lists


def key_faults(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """List what keeps tensors from being loaded strictly: keys that are missing, unexpected or of another shape.

    Args:
        own: The network's state dict.
        given: The file's.
    """
    rows = [f"missing {name}" for name in own if name not in given]
    rows += [f"unexpected {name}" for name in given if name not in own]
    return rows + [
        f"{name}: model {tuple(own[name].shape)}, file {tuple(tensor.shape)}"
        for name, tensor in given.items()
        if name in own and own[name].shape != tensor.shape
    ]


def first_of(rows: Sequence[str]) -> str:
    """Join the first rows for a message, and count the others."""
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return "; ".join(rows[:SHOWN]) + more
