"""From what a bundle answered in some windows to a verdict: which order, which layers, how sure.

Planted ink says at which depth of its window the bundle sees ink, for each order: the *sensitivity*. Each reading
(order, first layer) is a hypothesis: "my ink is where planted ink is seen best". It predicts, through the
sensitivity, how loud every reading of the sweep answers; the prediction is compared with the answers by the cosine of
the angle between the two. The loudest reading need not be the right one: a bundle may answer loudly, and wrongly, where
it was never trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inkbatch.data.synthetic.strokes import INK_SHARE
from inkbatch.io.surface import DepthOrder
from inkbatch.steps.probe.evidence import MIN_AMOUNT, MIN_FIT, MIN_LIFT, NULL_SHARE, Evidence, Scene

Word = Literal["clear", "displaced", "blind", "no ink", "undecided", "false positives"]

MIN_RIDGE = 0.3  # of the planted ink's contrast, by which the layer with the ink must stand out
MAX_DOUBT = 3.5  # of the doubt about ink that nothing disturbs; texture had 3.7 and more, ink mostly below 2.8
LOUD = 0.1  # answer of a null input that is loud by itself
MIN_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """Verdict of a probe; see `judge`.

    Attributes:
        word: ``clear`` and ``displaced`` may be used; the others may not. ``blind`` is a bundle that does not see
            planted ink, ``no ink`` are windows that hold too little ink of their own, and ``undecided`` is said where
            several readings explain the answers.
        reason: In words, with the numbers that decided.
        order: Depth order of the best reading.
        start: Its first layer, as an index of the surface.
        displaced_by: Layers between it and the usual reading.
        confidence: Share of resampled probes that come to this reading and find it good enough.
        numbers: Everything that was weighed.
    """

    word: Word
    reason: str
    order: DepthOrder
    start: int
    displaced_by: int
    confidence: float
    numbers: Mapping[str, Any]

    @property
    def usable(self) -> bool:
        """True if `infer --layers auto` may use it."""
        return self.word in ("clear", "displaced")

    @property
    def words(self) -> str:
        """The verdict as people say it."""
        if self.word != "displaced":
            return self.word
        count = abs(self.displaced_by)
        return f"displaced by {count} layer{'s' if count > 1 else ''} ({'down' if self.displaced_by > 0 else 'up'})"


def judge(measures: Sequence[Mapping[str, Any]], scene: Scene, seed: int = 0) -> Verdict:
    """Weigh what all windows answered.

    Args:
        measures: What `inkbatch.steps.probe.measure.measure` returned for each window.
        scene: The network's depth and the usual reading.
        seed: Of the resampling.
    """
    evidence = Evidence(measures, scene)
    best = evidence.best(evidence.answers)
    numbers = evidence.numbers(best)
    confidence = 0.0 if best is None else evidence.confidence(best, seed)
    order, start = scene.usual if best is None else evidence.readings[best]
    word, reason = _weigh(evidence, best, confidence)
    displaced = start - scene.usual[1]
    if word == "clear" and displaced:
        word = "displaced"
    return Verdict(word, reason, order, start, displaced, round(confidence, 3), numbers)


def _weigh(evidence: Evidence, best: int | None, confidence: float) -> tuple[Word, str]:
    nulls, lift = evidence.nulls, max(evidence.peak_lift.values())
    loudest = max(nulls, key=lambda name: nulls[name]["answer"])
    if best is None:
        if nulls[loudest]["answer"] >= LOUD:
            return "false positives", (
                f"planted ink changes nothing (lift {lift:.2f}), yet null inputs are answered ({loudest}: "
                f"{nulls[loudest]['answer']:.2f}): whatever the map shows does not come from ink like this"
            )
        return "blind", (
            f"planted ink lifts the map by {lift:.2f} at most, expected {MIN_LIFT}: this bundle does not see ink like "
            "this on this papyrus; check divisor, clip and voxel size, or plant other ink (amplitude, width_layers)"
        )
    answer, fit, amount = evidence.answers[best], evidence.fits(evidence.answers)[best], evidence.amount(best)
    if amount < MIN_AMOUNT:
        return "no ink", (
            f"planted ink is seen (lift {lift:.2f}), but the windows hold too little of their own: ink on about "
            f"{amount * INK_SHARE:.0%}, expected {MIN_AMOUNT * INK_SHARE:.0%}; give windows on writing: at=[[y, x], …]"
        )
    for name, null in nulls.items():
        readable = name != "layers shuffled" or null["lift"] >= NULL_SHARE * lift
        if readable and null["answer"] >= NULL_SHARE * answer:
            return "false positives", (
                f"a null input ({name}) is answered with {null['answer']:.2f}, the best reading with {answer:.2f}"
            )
    if (loud := evidence.loud_bystander(best)) is not None:
        order, start = evidence.readings[loud]
        return "false positives", (
            f"a reading that cannot see the ink ({order} from layer {start}) answers with "
            f"{evidence.answers[loud]:.2f}, the best one with {answer:.2f}"
        )
    if (ridge := evidence.ridge(best)) < MIN_RIDGE:
        return "false positives", (
            f"where the map says ink, the layer that the bundle looks at stands out from those above and below it by "
            f"{ridge:.2f} of the planted ink's contrast, expected {MIN_RIDGE}: the map shows something else"
        )
    if (doubt := evidence.doubt(best)) > MAX_DOUBT:
        return "false positives", (
            f"where the map says ink it is {doubt:.1f} times as unsure as about ink that is planted into one layer "
            f"repeated, expected at most {MAX_DOUBT:g} times: it marks texture, or ink that it can hardly tell"
        )
    if fit < MIN_FIT:
        return "false positives", (
            f"the answers of all readings follow what planted ink predicts only by {fit:.2f}, expected {MIN_FIT}"
        )
    if (rival := evidence.rival(best)) is not None:
        order, start = evidence.readings[rival]
        return "undecided", (
            f"two readings show the same ink: {evidence.words(best)}, and {order} from layer {start} "
            f"({evidence.answers[rival]:.2f}); the answers cannot tell the order of the layers"
        )
    if confidence < MIN_CONFIDENCE:
        return "undecided", (
            f"the windows do not agree: only {confidence:.0%} of resampled probes come to this reading, "
            f"expected {MIN_CONFIDENCE:.0%}; probe more windows"
        )
    return "clear", f"{evidence.words(best)}, fits the planted ink's by {fit:.2f}"
