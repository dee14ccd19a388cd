"""The depth probe on phantoms whose order, depth and ink are known; `infer --layers auto`; resumed probes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inkbatch.errors import ConfigError, DataError, LayerRangeError, MismatchError, Preempted
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.chains import infer as run_infer
from inkbatch.steps.infer.job import InferConfig
from inkbatch.steps.infer.plan import make_plan as plan_infer
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.probe.evidence import Scene
from inkbatch.steps.probe.job import ProbeConfig, make_plan, run, verdict_lines
from inkbatch.steps.stored_probe import read_verdict
from inkbatch.testing.faults import preempted_context, stored_bytes
from inkbatch.testing.papyrus import (
    DEMO_INK_LAYER,
    DEMO_LAYERS,
    bare_demo_stack,
    demo_letters,
    demo_stack,
    planted,
    synthetic_papyrus,
)
from inkbatch.testing.segments import write_layers

CORNERS = ((0, 0), (0, 128), (0, 256), (128, 64), (256, 0), (256, 200))  # windows of one tile on 384 x 384 px
FEW = CORNERS[:4]


@dataclass(frozen=True)
class Phantom:
    """A segment whose truth is known.

    Attributes:
        stack: Layers as they are stored.
        ink_layer: Where the ink lies, counted in `stack`.
        visible: Whether some reading puts ink of good contrast where the bundle was trained to see it.
        has_ink: Whether there is any ink.
    """

    stack: np.ndarray
    ink_layer: int
    visible: bool
    has_ink: bool

    def is_right(self, verdict: dict[str, Any]) -> bool:
        """Tell if the network gets the ink in the layer that it was trained on, or in the next one."""
        scene = Scene(DEMO_LAYERS, ("forward", 0))
        place = scene.place(self.ink_layer, (verdict["depth_order"], verdict["start"]))
        return abs(place - DEMO_INK_LAYER) <= 1


def phantom(
    papyrus: np.ndarray, letters: np.ndarray, layer: int, *, amplitude: float, turned: bool, seed: int = 0
) -> Phantom:
    """Plant letters, and store the stack the other way round if it is to be `turned`."""
    stack = planted(papyrus, letters, amplitude=amplitude, depth_layer=layer, seed=seed) if amplitude else papyrus
    if turned:
        stack, layer = stack[::-1], len(stack) - 1 - layer
    places = [
        Scene(DEMO_LAYERS, ("forward", 0)).place(layer, (order, start))
        for order in ("forward", "reversed")
        for start in range(len(stack) - DEMO_LAYERS + 1)
    ]
    in_reach = any(abs(place - DEMO_INK_LAYER) <= 1 for place in places)
    return Phantom(np.ascontiguousarray(stack), layer, in_reach and amplitude >= 30, amplitude > 0)


def prepared(folder: Path, stack: np.ndarray) -> Path:
    """Prepare a stack as segment ``phantom``; the folder is its ROOT."""
    source = write_layers(folder / "layers", stack)
    values = {"segment": "phantom", "root": str(folder / "root"), "source": str(source)}
    run_prepare(PrepareConfig(**values, depth_order="forward", voxel_size_um=7.91), RunContext())
    return folder / "root"


def config_of(root: Path, **changes: Any) -> ProbeConfig:
    values = {"segment": "phantom", "bundle": "demo", "root": str(root), "device": "cpu", "window_px": 128}
    return ProbeConfig(**{**values, "at": FEW, **changes})


def probed(folder: Path, stack: np.ndarray, **changes: Any) -> dict[str, Any]:
    return read_verdict(run(config_of(prepared(folder, stack), **changes), RunContext()).location)


def infer_config(root: Path, **changes: Any) -> InferConfig:
    values = {"segment": "phantom", "bundle": "demo", "root": str(root), "device": "cpu", "layers": "auto"}
    return InferConfig(**{**values, **changes})


def auto_probe(root: Path, **changes: Any) -> None:
    """Run what a user runs before `infer --layers auto`."""
    run(config_of(root, **changes), RunContext())


@pytest.mark.parametrize("turned", [False, True])
def test_the_demo_is_clear_in_both_orders(tmp_path, turned):
    stack = demo_stack()[:, :384, :384]
    found = probed(tmp_path, stack[::-1] if turned else stack)
    assert (found["verdict"], found["depth_order"]) == ("clear", "reversed" if turned else "forward")
    assert found["layers"] == [0, 13]
    assert found["confidence"] >= 0.95
    assert found["numbers"]["seen_best_at"]["forward"] == pytest.approx(DEMO_INK_LAYER, abs=0.7)
    assert (tmp_path / "root/probes/phantom/demo/probe.png").stat().st_size > 5000


@pytest.mark.parametrize(("layer", "turned"), [pytest.param(6, False, marks=pytest.mark.slow), (4, True)])
def test_a_displaced_window_is_found_and_used(tmp_path, layer, turned):
    case = phantom(synthetic_papyrus((17, 384, 384), 11), LETTERS, layer, amplitude=50, turned=turned, seed=11)
    root = prepared(tmp_path, case.stack)
    run(config_of(root, at=CORNERS), RunContext())
    found = read_verdict(Location.parse(root / "probes/phantom/demo"))
    assert found["usable"], found["reason"]
    assert case.is_right(found)
    assert found["verdict"] == ("clear" if found["displaced_by"] == 0 else found["verdict"])
    plan = plan_infer(infer_config(root))
    assert plan.layers == range(found["start"], found["start"] + 13)
    assert plan.contract.depth_order == ("reversed" if turned else "forward")
    assert plan.manifest.config["probe"]["verdict"] == found["verdict"]


LETTERS = demo_letters()[:384, :384]


@pytest.mark.parametrize(
    "kind", ["bare papyrus", "bare synthetic papyrus", "ink that no reading reaches", "a window too early"]
)
def test_a_blind_segment_is_never_usable(tmp_path, kind):
    bare = bare_demo_stack()[:, :384, :384]
    stack = {
        "bare papyrus": lambda: bare,
        "bare synthetic papyrus": lambda: synthetic_papyrus((15, 384, 384), 5),
        "ink that no reading reaches": lambda: phantom(bare, LETTERS, 6, amplitude=50, turned=False).stack,
        "a window too early": lambda: demo_stack()[np.maximum(np.arange(13) - 3, 0), :384, :384],
    }[kind]()
    found = probed(tmp_path, stack)
    assert not found["usable"]
    with pytest.raises(DataError, match=r"verdict is .*not used.*--layers START:STOP"):
        plan_infer(infer_config(tmp_path / "root"))


def test_a_stopped_probe_goes_on_and_ends_with_the_same_bytes(tmp_path):
    root = prepared(tmp_path, demo_stack()[:, :128, :256])
    corners = ((0, 0), (0, 128))
    folder = run(config_of(root, at=corners), RunContext()).location.path
    whole = stored_bytes(folder)
    shutil.rmtree(folder)
    with pytest.raises(Preempted, match="run the same command again"):
        run(config_of(root, at=corners), preempted_context(1))
    report = run(config_of(root, at=corners), RunContext())
    assert report.skipped >= 1
    assert report.stored == 2 - report.skipped
    assert stored_bytes(folder) == whole


def test_infer_makes_a_probe_where_none_is_stored_and_records_it(tmp_path):
    root = prepared(tmp_path, demo_stack()[::-1, :256, :256])
    report = run_infer(infer_config(root), RunContext())
    manifest = json.loads(Path(str(report.location / "manifest.json")).read_text())
    stored = read_verdict(Location.parse(root / "probes/phantom/demo"))
    assert report.complete
    assert manifest["config"]["probe"]["depth_order"] == "reversed" == stored["depth_order"]
    assert manifest["config"]["probe"]["digest"] == stored["digest"]
    assert manifest["config"]["override"] == {"depth_order": "reversed"}


def test_shards_do_not_probe_each_for_itself(tmp_path):
    root = prepared(tmp_path, demo_stack()[:, :128, :128])
    with pytest.raises(DataError, match="this is shard 0/2: all must use the same; run inkbatch probe phantom"):
        run_infer(infer_config(root), RunContext(shard=ShardSpec(0, 2)))


def test_a_plan_without_a_stored_verdict_names_the_command(tmp_path):
    root = prepared(tmp_path, demo_stack()[:, :128, :128])
    with pytest.raises(DataError, match="run inkbatch probe phantom --bundle demo first"):
        plan_infer(infer_config(root))


def test_a_verdict_on_another_surface_or_contract_is_refused(tmp_path):
    root = prepared(tmp_path, demo_stack()[:, :128, :128])
    auto_probe(root, at=((0, 0),))
    with pytest.raises(MismatchError, match="made with another contract"):
        plan_infer(infer_config(root, override={"divisor": 200}))
    with pytest.raises(ConfigError, match="leave out --override depth_order"):
        plan_infer(infer_config(root, override={"depth_order": "reversed"}))
    shutil.rmtree(root / "segments")
    prepared(tmp_path, demo_stack()[:, :128, :160])
    with pytest.raises(MismatchError, match="made with another surface; run inkbatch probe .* --replace"):
        plan_infer(infer_config(root))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"at": ((0, 64),)}, ConfigError, "leaves the surface"),
        ({"at": ((0, 0), (0, 0))}, ConfigError, "given twice"),
        ({"override": {"divsor": 1}}, ConfigError, "did you mean 'divisor'"),
        ({"override": {"layers": {"count": 14}}}, LayerRangeError, "bundle expects 14 layers, surface has 13"),
    ],
)
def test_settings_that_cannot_be_carried_out_are_refused(tmp_path, changes, error, words):
    root = prepared(tmp_path, demo_stack()[:, :128, :128])
    with pytest.raises(error, match=words):
        make_plan(config_of(root, **changes))


def test_ink_of_no_contrast_is_refused():
    with pytest.raises(ConfigError, match="plants no ink"):
        ProbeConfig.checked({"segment": "phantom", "bundle": "demo", "amplitude": 0}, "probe")


def test_windows_are_chosen_on_papyrus(tmp_path):
    stack = demo_stack()[:, :384, :512].copy()
    stack[:, :, :256] = 0
    plan = make_plan(config_of(prepared(tmp_path, stack), at=None, windows=3))
    assert len(plan.units) == 3
    assert all(unit.write_box.x0 >= 256 for unit in plan.units)


def test_the_words_name_order_layers_and_cure(tmp_path):
    root = prepared(tmp_path, demo_stack()[:, :128, :256])
    report = run(config_of(root, at=((0, 0), (0, 128))), RunContext())
    text = "\n".join(verdict_lines(report.location))
    for words in ("verdict:", "order, layers 0:13", "confidence", "front face", "layers shuffled", "probe.png"):
        assert words in text


def random_phantom(seed: int) -> Phantom:
    """One of many: real or synthetic papyrus, either order, several depths and contrasts, with and without ink.

    Some of the real ones are spoiled: read from up to four layers too early or too late, the outermost layer repeated.
    """
    rng = np.random.default_rng([7, seed])
    real = bool(rng.integers(2))
    turned, amplitude = bool(rng.integers(2)), float(rng.choice([0, 20, 35, 50, 50, 65]))
    y, x = int(rng.integers(640 - 384 + 1)), int(rng.integers(1024 - 384 + 1))
    top, left = int(rng.integers(640 - 384 + 1)), int(rng.integers(1024 - 384 + 1))
    letters = np.ascontiguousarray(demo_letters()[top : top + 384, left : left + 384][:, :: int(rng.choice([-1, 1]))])
    if real:
        papyrus, layer = bare_demo_stack()[:, y : y + 384, x : x + 384], int(rng.choice([2, 3, 3, 4, 6]))
    else:
        papyrus, layer = synthetic_papyrus((17, 384, 384), seed), int(rng.integers(3, 8))
    whole = phantom(papyrus, letters, layer, amplitude=amplitude, turned=turned, seed=seed)
    return late(whole, int(rng.integers(-4, 5))) if real and rng.random() < 0.5 else whole


def late(case: Phantom, shift: int) -> Phantom:
    """The same segment from `shift` layers later on."""
    last = len(case.stack) - 1
    layer = case.ink_layer - shift
    in_reach = min(abs(layer - DEMO_INK_LAYER), abs(last - layer - DEMO_INK_LAYER)) <= 1
    return Phantom(
        case.stack[np.clip(np.arange(last + 1) + shift, 0, last)], layer, case.visible and in_reach, case.has_ink
    )


SEEDS = 80


@pytest.mark.many_seeds
@pytest.mark.timeout(7200)
def test_clear_verdicts_are_right_and_blind_segments_are_never_clear(tmp_path):
    """At least 95 % of the usable verdicts are right, none is on a segment without visible ink, and many are usable."""
    right, wrong, blind, visible = [], [], [], 0
    for seed in range(SEEDS):
        case = random_phantom(seed)
        found = probed(tmp_path / str(seed), case.stack, at=CORNERS)
        visible += case.visible
        if not found["usable"]:
            continue
        hit = case.is_right(found)  # faint ink may be seen, too
        (right if hit and case.has_ink else wrong if case.visible else blind).append((seed, found["verdict"]))
    print(
        f"{SEEDS} phantoms, {visible} with visible ink: {len(right)} right, {len(wrong)} wrong {wrong}, blind {blind}"
    )
    assert blind == []
    assert len(right) >= 0.95 * (len(right) + len(wrong))
    assert len(right) >= 0.4 * visible
