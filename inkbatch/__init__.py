"""inkbatch: batch jobs that read ink in X-ray volumes of carbonised Herculaneum scrolls.

From Python::

    import inkbatch

    inkbatch.prepare("demo", root="root")
    inkbatch.infer("demo", bundle="demo", root="root")
    ink = inkbatch.open_prediction("demo", root="root")
    ink[0:512, 0:512]  # float32 probability

What stands in ``inkbatch.__all__`` is the public interface; nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from inkbatch.api import (
        JobReport,
        Prediction,
        Predictor,
        StoredArray,
        Surface,
        ensemble,
        evaluate,
        infer,
        open_bundle,
        open_prediction,
        open_surface,
        prepare,
        train,
    )

__all__ = [
    "JobReport",
    "Prediction",
    "Predictor",
    "StoredArray",
    "Surface",
    "__version__",
    "ensemble",
    "evaluate",
    "infer",
    "open_bundle",
    "open_prediction",
    "open_surface",
    "prepare",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import the public interface when one of its names is first used."""
    if name in __all__:
        from inkbatch import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
