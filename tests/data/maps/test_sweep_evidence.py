"""Evidence of a sweep whose maps are known: what stands out, where, at which depth, and what is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inkbatch.data.maps.evidence import SMALL_PX
from inkbatch.data.maps.sweep import StoredSweep
from inkbatch.data.maps.sweep_evidence import EvidenceRules, PlantedWindow, alarms, evidence
from inkbatch.geometry import Box
from inkbatch.testing.sweeps import store_sweep

SHAPE, WINDOW = (640, 640), 64
DEPTHS = list(range(-4, 5))
SERIES = ("forward", "reversed", "forward-shuffled", "reversed-shuffled", "repeated")
RULES = EvidenceRules(window_mm=WINDOW * 8 / 1000, tile_px=32)
INK_DEPTH = 2
BUNDLES = ("a", "b")


def maps(inked: bool, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Two bundles: noise of their own, and strokes that both see in the upper left part, forward, around one depth."""
    rng = np.random.default_rng(seed)
    strokes = np.zeros(SHAPE, np.float32)
    strokes[::24, :320] = strokes[1::24, :320] = strokes[2::24, :320] = 1
    strokes[320:] = 0
    found: dict[str, dict[str, np.ndarray]] = {}
    for bundle in BUNDLES:
        found[bundle] = {}
        for name in SERIES:
            values = 0.3 + 0.05 * rng.standard_normal((len(DEPTHS), *SHAPE), np.float32)
            if inked and name == "forward":
                height = np.exp(-0.5 * ((np.array(DEPTHS) - INK_DEPTH) / 1.2) ** 2).astype(np.float32)
                values += 0.4 * height[:, None, None] * strokes
            values = np.clip(values, 0.01, 1)
            values[:, :, 600:] = 0
            found[bundle][name] = values.astype(np.float16)
    return found


@pytest.fixture(scope="module")
def inked(tmp_path_factory) -> StoredSweep:
    return store_sweep(tmp_path_factory.mktemp("inked"), maps(True), DEPTHS)


@pytest.fixture(scope="module")
def found(inked) -> dict:
    return evidence(inked, RULES)


def test_windows_with_what_two_bundles_see_are_called_and_hardly_any_other(found):
    called = [tuple(at[:2]) for at, q in zip(found["at"], found["q"], strict=True) if q <= 0.05]
    assert set(called) >= {(y, x) for y in range(0, 320, WINDOW) for x in range(0, 320, WINDOW)}
    assert found["called"] == len(called) <= 27  # 1 of 20 may be false
    best = found["rank"].index(1)
    assert found["direction"][best] == "forward"
    assert found["q"][best] < 0.05
    assert f"{len(called)} of 90 windows are unlike the null at q ≤ 0.05" in found["sentence"]


def test_agreement_depth_and_void_are_those_of_the_maps(found):
    best, forward = found["rank"].index(1), found["series"]["forward"]
    assert forward["agreement"][best] > 0.5
    assert abs(found["series"]["forward-shuffled"]["agreement"][best]) < 0.1
    assert forward["depth"][best] == pytest.approx(INK_DEPTH, abs=0.5)
    assert forward["depth_width"][best] == pytest.approx(2.0, abs=1.0)
    right = found["at"].index([0, 576, 64, 640])
    assert found["void"][right] == pytest.approx(1 - 24 / 64)
    assert found["judged"][right] is False
    assert found["near_border"][0] is True
    assert found["near_border"][found["at"].index([64, 64, 128, 128])] is False


def test_a_sweep_without_ink_calls_nothing_and_says_what_would_have_been_seen(tmp_path):
    sweep = store_sweep(tmp_path, maps(False, seed=5), DEPTHS)
    flat, peak = [0.0] * len(DEPTHS), [0.0] * 5 + [5.0, 9.0, 5.0, 0.0]
    loud, faint = {"forward": peak, "reversed": flat}, {"forward": flat, "reversed": flat}
    places = [(y, x) for y in range(0, 640, 128) for x in range(0, 512, 128)]
    planted = [PlantedWindow(place, {10.0: faint, 20.0: loud, 40.0: loud}) for place in places]
    found = evidence(sweep, RULES, planted)
    assert found["called"] == 0
    assert found["sentence"].startswith(
        "No strokes above contrast 20 in 96% of the area, unless they fill fewer than 20"
    )
    assert "4% could not be judged, because: 4% holds too little papyrus" in found["sentence"]
    assert found["blank"] is None
    assert found["control"][1] == {"contrast": 20, "found": 20, "windows": 20}
    assert found["control"][2] == {"contrast": 10, "found": 0, "windows": 20}


def test_windows_that_are_called_as_they_are_are_no_control(inked, found):
    """Nor do they lose what is in them to what was planted."""
    peak = [0.0] * 4 + [1.0, 6.0, 9.0, 6.0, 1.0]
    planted = [PlantedWindow(at, {20.0: {"forward": peak, "reversed": [0.0] * 9}}) for at in ((0, 0), (448, 128))]
    control = evidence(inked, RULES, planted)["control"]
    assert found["q"][0] <= 0.05 < found["q"][found["at"].index([448, 128, 512, 192])]
    assert control == [{"contrast": 20, "found": 1, "windows": 1}]


def test_what_was_left_out_before_is_not_judged_and_the_sentence_says_so(inked):
    left = EvidenceRules(RULES.window_mm, 32, left_out={"was left out by the preflight": 640 * 600})
    told = evidence(inked, left)
    assert told["ground"]["judged_px"] == 640 * 576
    assert told["ground"]["not_judged_px"]["was left out by the preflight"] == 640 * 600
    assert "50% was left out by the preflight" in told["sentence"]


def test_papyrus_that_a_network_does_not_read_is_not_judged(inked):
    told = evidence(inked, EvidenceRules(RULES.window_mm, 32, papyrus_px=640 * 640))
    assert told["ground"]["not_judged_px"]["is not read by every network"] == 640 * 40
    assert "6% is not read by every network" in told["sentence"]


def test_blank_ground_counts_false_alarms(inked):
    rules = EvidenceRules(RULES.window_mm, 32, blank=((320, 0, 640, 576),))
    blank = evidence(inked, rules)["blank"]
    assert blank["cm2"] == pytest.approx(320 * 576 * (8e-4) ** 2, rel=1e-3)
    assert blank["marks"] == [0, 0, 0]
    small = np.full((40, 40), 0.1, np.float32)
    small[10:14, 10:14] = 2.5
    small[30, 30] = 9  # a speck of 0.016 mm² is no stroke
    told = alarms(small, [Box(0, 0, 40 * SMALL_PX, 40 * SMALL_PX)], 8.0)
    assert told["marks"] == [1, 1, 0]
    assert told["marks_per_cm2"][0] == pytest.approx(1 / told["cm2"], rel=1e-2)


def test_a_network_that_is_sure_of_0_leaves_no_void(tmp_path):
    """A probability below 3e-8 is stored as 0; the counts tell where there is no value."""
    has_value = np.ones((128, 128), bool)
    has_value[:, 120:] = False
    sure = {}
    for bundle, rows in maps(False).items():
        sure[bundle] = {name: np.where(has_value, values[:, :128, :128], 0) for name, values in rows.items()}
        for values in sure[bundle].values():
            values[:, :64] = 0
    found = evidence(store_sweep(tmp_path, sure, DEPTHS, has_value=has_value), RULES)
    assert found["void"] == [0, 8 / 64, 0, 8 / 64]
    assert found["judged"] == [True] * 4
    z = []
    for rows in sure.values():
        real = np.stack([rows[name][:, has_value] for name in ("forward", "reversed")]).astype(np.float64)
        z.append(-real.mean() / real.std())
    assert found["series"]["forward"]["z"][:2] == pytest.approx([np.mean(z)] * 2, rel=1e-4)


def test_equal_maps_give_equal_documents(inked, found):
    assert json.dumps(evidence(inked, RULES)) == json.dumps(found)
