"""Blocks of a series of rounds: which are kept out, and which fold each of the others is in."""

import pytest

from inkbatch.data.datasets.round_blocks import TEST, BlockLabels, deal_blocks
from inkbatch.errors import ConfigError, DataError


def blocks(*inks, segment="s"):
    """Make one row of labelled blocks of 100 pixels with so many of ink."""
    return {(segment, 0, column): BlockLabels(100, ink) for column, ink in enumerate(inks)}


def dealt(found, **options):
    options = {"folds": 2, "by_segment": False, "kept_out": (), "share": 0.2, "seed": 3, **options}
    homes = deal_blocks(found, **options)
    return {(segment, *row[:2]): row[2] for segment, rows in homes.items() for row in rows}


def kept_out(found, **options):
    return [column for (_, _, column), home in sorted(dealt(found, **options).items()) if home == TEST]


@pytest.mark.parametrize(
    ("count", "share", "wanted"), [(3, 0.2, 1), (4, 0.2, 1), (5, 0.2, 1), (8, 0.2, 2), (20, 0.2, 4), (20, 0.3, 6)]
)
def test_a_share_of_the_labelled_blocks_is_kept_out_and_at_least_one(count, share, wanted):
    assert len(kept_out(blocks(*range(1, count + 1)), share=share)) == wanted


def test_a_share_of_less_than_half_a_block_adds_nothing_to_a_segment_that_is_kept_out():
    found = {**blocks(1, 2), **blocks(3, segment="t")}
    assert [place for place, home in dealt(found, kept_out=["t"]).items() if home == TEST] == [("t", 0, 0)]


def test_the_yardstick_is_spread_over_all_shares_of_ink():
    assert kept_out(blocks(*range(50, 40, -1))) == [2, 7]


def test_the_yardstick_holds_ink_though_most_blocks_are_bare():
    found = blocks(*[9] * 3, *[0] * 17)
    assert sum(found["s", 0, column].ink > 0 for column in kept_out(found)) == 1
    assert len(kept_out(found)) == 4


def test_nothing_kept_out_and_folds_without_ink_are_refused():
    with pytest.raises(ConfigError, match=r"got none; raise yardstick.share, or name yardstick.segments"):
        dealt(blocks(1, 2, 3), share=0)
    with pytest.raises(DataError, match="fold [01]: expected labels with ink, got none"):
        dealt(blocks(5, 6))
    with pytest.raises(DataError, match="the yardstick: expected labels with ink, got none"):
        dealt({**blocks(5, 6), **blocks(0, segment="t")}, kept_out=["t"], share=0)


def test_homes_stay_and_labels_that_were_taken_from_the_yardstick_since_change_nothing():
    first = deal_blocks(blocks(*range(1, 11)), folds=2, by_segment=False, kept_out=(), share=0.2, seed=3)
    out = [column for _, column, home in first["s"] if home == TEST]
    now = {place: BlockLabels(0, 0) if place[2] in out else one for place, one in blocks(*range(10, 0, -1)).items()}
    later = deal_blocks(now, folds=2, by_segment=False, kept_out=(), share=0.2, seed=4, known=first)
    assert later == first
