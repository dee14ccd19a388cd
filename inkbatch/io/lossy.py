"""Pictures that were saved with losses (JPEG): how they are told, and which of their pixels count as marked.

Saving blurs the edge of a mask and spreads small values around it, so that "not 0" would mark pixels that nobody drew.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

JPG_MAGIC = b"\xff\xd8\xff"
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_IN_TIFF = (6, 7, 34892)  # values of the compression tag


def marked(values: NDArray[Any], *, lossy: bool) -> NDArray[np.bool_]:
    """Mark pixels of a mask: those that are not 0; where it was saved with losses, at least half of full scale."""
    found: NDArray[np.bool_] = values >= np.iinfo(values.dtype).max / 2 if lossy else values != 0
    return found


def is_lossy(data: bytes) -> bool:
    """Tell if a picture file was saved with losses."""
    if not data.startswith(TIFF_MAGIC):
        return data.startswith(JPG_MAGIC)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page: Any = tiff.pages[0]
            return int(page.compression) in JPEG_IN_TIFF
    except Exception:  # whoever decodes it says what is wrong
        return False
