"""Verdicts on made tiles of known fault: 18 kinds, many seeds; real papyrus is fine."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from inkbatch.steps.preflight.measure import measure
from inkbatch.steps.preflight.verdict import Expectation, TileVerdict, judge, profile_is_judged, sheets_of
from inkbatch.testing.faulty import KINDS, MadeTile, made_tile
from inkbatch.testing.papyrus import bare_demo_stack

QUICK = ("fine, layers inside the sheet", "outside in part", "blank, one value", "blank, noise", "seam, real papyrus")
SEEDS = 20
LAYERS_OFF = 1.0  # the sheet's offset is told within this
FACTOR_OFF = 0.35  # share of the true scale


def verdict_on(made: MadeTile) -> TileVerdict:
    depth = len(made.layers)
    quarter = depth // 4 if profile_is_judged(depth, made.voxel_um) else 0
    return judge(measure(made.layers), Expectation(made.voxel_um, quarter, depth - quarter, 4, made.expected_um))


def is_right(made: MadeTile, found: TileVerdict) -> bool:
    if found.word != made.verdict:
        return False
    if made.number is None:
        return True
    slack = {"scale": FACTOR_OFF * made.number, "outside": 0.01, "blank": 0.01}.get(made.verdict, LAYERS_OFF)
    return abs(found.number - made.number) <= slack


@pytest.mark.parametrize("kind", [*QUICK, "off-centre up"])
def test_a_made_fault_is_named_with_its_number(kind):
    made = made_tile(kind, 0)
    assert is_right(made, verdict_on(made)), (verdict_on(made), made.number)


@pytest.mark.many_seeds
@pytest.mark.timeout(3600)
def test_at_least_95_of_100_verdicts_are_right():
    """Over all kinds; of each kind at least 85 of 100, and of fine tiles at least 95."""
    right: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for kind in KINDS:
        for seed in range(SEEDS):
            made = made_tile(kind, 1000 + seed)
            found = verdict_on(made)
            right[kind] += is_right(made, found)
            if not is_right(made, found):
                wrong[kind][f"{found.word} {found.number:.2f}"] += 1
        print(f"{kind:<32} {right[kind]} of {SEEDS} {dict(wrong[kind]) or ''}")
    print(f"all: {right.total()} of {SEEDS * len(KINDS)}")
    assert right.total() >= 0.95 * SEEDS * len(KINDS)
    assert min(right[kind] for kind in KINDS) >= 0.85 * SEEDS
    assert sum(right[kind] for kind in KINDS if kind.startswith("fine")) >= 0.95 * 4 * SEEDS


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_real_papyrus_is_fine_in_every_tile(dtype):
    stack = bare_demo_stack().astype(dtype) * (257 if dtype == "uint16" else 1)
    for y in (0, 384):
        for x in (0, 256, 512, 768):
            found = judge(measure(stack[:, y : y + 256, x : x + 256]), Expectation(7.91, 0, 13, 4, 7.91))
            assert found == TileVerdict("fine", 0.0), (y, x)


def test_what_is_outside_does_not_disturb_the_rest_of_a_tile():
    stack = bare_demo_stack()[:, :256, 512:768].copy()
    whole = measure(stack)
    stack[:, :, :60] = 0
    part = measure(stack)
    assert part.inside == pytest.approx(196 / 256)
    assert part.missing == 0
    assert part.structure == pytest.approx(whole.structure, rel=0.2)
    assert judge(part, Expectation(7.91, 0, 13, 4, 7.91)).word == "fine"


def test_a_narrow_tile_at_the_border_is_judged_without_lines_and_grain():
    found = measure(bare_demo_stack()[:, :256, :40])
    assert (found.seam, found.blocks) == (1.0, 0.0)
    assert np.isnan(found.grain_px)
    assert judge(found, Expectation(7.91, 0, 13, 4, 7.91)).word == "fine"


def test_a_dip_shorter_than_the_gap_parts_no_sheet():
    profile = np.array([0.0, 0, 9, 9, 2, 9, 9, 0, 0, 0, 0, 8, 8, 0])
    assert [(first, last) for _, first, last in sheets_of(profile, 2.0)] == [(2, 6), (11, 12)]
    assert [(first, last) for _, first, last in sheets_of(profile, 1.0)] == [(2, 3), (5, 6), (11, 12)]
    assert sheets_of(profile, 2.0)[1][0] == pytest.approx(11.5)
