"""From a `Page` to one HTML file that carries all it shows; equal pages give equal bytes."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from inkbatch.redaction import redact
from inkbatch.reports.page import Gallery, Page, Picture, Pixels, Spent
from inkbatch.text import seconds_text

TEMPLATE = "page.html.j2"
MOST_BYTES = 5_000_000  # of a page
PICTURES_BYTES = 3_300_000  # of all pictures before base64, which adds a third
ONE_PICTURE_BYTES = 900_000
MOST_ROWS = 200  # of a table; the file holds the rest
LOSSY = tuple(
    ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])
    for sampling in (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,)  # coloured ink keeps its edges
    for quality in (90, 80, 68, 54)
)
LOSSLESS = ("webp", [cv2.IMWRITE_WEBP_QUALITY, 101])  # above 100 OpenCV's WebP is without loss
FEW_COLOURS, COLOURS_STEP = 512, 4  # of every fourth pixel in both directions
SCALE_SHARE = 0.25  # of a picture's width that a scale bar takes at most
WIDE = 1.5  # pictures that are wider by this factor than high are shown below each other


def render(page: Page) -> bytes:
    """Write a page.

    Raises:
        ValueError: It is larger than `MOST_BYTES`: its sections hold too much text.
    """
    listed = [part for section in page.sections for part in section.parts]
    single = [one for part in listed for one in (part.parts if isinstance(part, Gallery) else (part,))]
    count = sum(isinstance(part, Picture) for part in [*page.hero, *single])
    most = min(ONE_PICTURE_BYTES, PICTURES_BYTES // max(count, 1))
    stacked = bool(page.hero) and isinstance(page.hero[0], Picture) and _is_wide(page.hero[0].pixels)
    template = _environment().get_template(TEMPLATE)
    shown = template.render(
        page=page, stacked=stacked, address=lambda one: Markup(_address(one.pixels, most, one.crisp))
    )
    data = shown.encode()
    if len(data) > MOST_BYTES:
        raise ValueError(f"report of {page.job} {page.title}: expected at most {MOST_BYTES:,} bytes, got {len(data):,}")
    return data


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("inkbatch.reports", ""),
        autoescape=True,
        finalize=_without_secrets,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": seconds_text, "usd": usd_text, "drawn": _drawn}
    environment.globals |= {"scale": scale_bar, "shares": _shares, "MOST_ROWS": MOST_ROWS}
    return environment


def _without_secrets(value: object) -> object:
    """Redact a value of the page; what is markup already is made here and stays."""
    return redact(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _drawn(svg: str) -> Markup:
    return Markup(redact(svg))


def usd_text(usd: float) -> str:
    """Format money for people; cents are shown where they matter."""
    return f"{usd:,.2f} USD" if usd >= 1 else f"{usd:.4f} USD"


def scale_bar(picture: Picture) -> tuple[str, str] | None:
    """Choose a scale bar, 1, 2 or 5 times a power of ten: its text, and its width in per cent of the picture."""
    if not picture.width_um:
        return None
    most = picture.width_um * SCALE_SHARE
    power = 10.0 ** math.floor(math.log10(most))
    length = power * max(step for step in (1, 2, 5) if step * power <= most)
    words = f"{length / 1000:g} mm" if length >= 100 else f"{length:g} µm"
    return words, f"{100 * length / picture.width_um:.2f}"


def _shares(spent: Spent) -> list[str]:
    """Return each stage's share of the time, per cent."""
    total = max(spent.seconds, 1e-9)
    return [f"{100 * stage.seconds / total:.2f}" for stage in spent.stages]


def _is_wide(pixels: Pixels) -> bool:
    height, width = pixels.shape[:2]
    return bool(width > WIDE * height)


def _address(pixels: Pixels, most: int, crisp: bool) -> str:
    """Encode a picture as a ``data:`` address of `most` bytes before base64: coarser, then smaller, until it fits.

    Drawings keep every pixel where they have few colours. All else is JPEG: a page is written at the end of every job,
    and WebP, a fifth smaller, takes thirty times as long.
    """
    shown = pixels
    while True:
        for kind, options in (*((LOSSLESS,) if crisp and _has_few_colours(shown) else ()), *LOSSY):
            done, data = cv2.imencode(f".{kind}", shown[..., ::-1] if shown.ndim == 3 else shown, options)
            if not done:
                raise ValueError(f"a picture of {shown.shape} cannot be encoded")
            if data.size <= most or max(shown.shape[:2]) <= 64:
                return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
        height, width = max(1, shown.shape[0] // 2), max(1, shown.shape[1] // 2)
        shown = cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]


def _has_few_colours(pixels: Pixels) -> bool:
    some = pixels[::COLOURS_STEP, ::COLOURS_STEP].reshape(-1, *pixels.shape[2:])
    return len(np.unique(some, axis=0)) <= FEW_COLOURS


def with_foot(page: Page, version: str, digest: str) -> Page:
    """Add the page's last line: the version that wrote the run, and the run's digest."""
    return replace(page, foot=f"inkbatch {version} · run {digest[:12]}")
