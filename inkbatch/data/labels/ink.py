"""Ink in stored labels: uint8, 0 is certainly bare, 255 certainly ink."""

from __future__ import annotations

LABEL_MAX = 255
INK_LABEL = 128  # from here on (inclusive) a pixel counts as ink
LAST_BARE = INK_LABEL - 1  # the highest value that is not ink
INK_SHARE = 0.5  # the same as a share of full scale: of labels as floats, and of pictures with a range of their own
