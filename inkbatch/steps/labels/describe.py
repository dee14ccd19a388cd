"""Description of a labels job's plan, for people."""

from __future__ import annotations

from inkbatch.data.labels.cleaning import CleaningRules
from inkbatch.data.maps.carried import Carried
from inkbatch.io.layers.one_plane import OnePlane
from inkbatch.steps.labels.plan import LabelsPlan, make_plan
from inkbatch.steps.labels.settings import LabelsConfig
from inkbatch.text import bytes_text

BASE_BYTES = 120 << 20  # the interpreter with numpy and OpenCV
BYTES_PER_MAP_PIXEL = 24  # of a carried map, per pixel of a unit: values and papyrus of two units as float32
BYTES_PER_PIXEL = 40  # of a unit: values of three units, two label maps, and the pairs of neighbours


def describe(config: LabelsConfig) -> str:
    """Describe the plan of a labels job, as lines of text. Only metadata are read, nothing is written."""
    plan = make_plan(config)
    height, width = plan.surface.shape_yx
    rules = config.clean
    side = min(config.unit_px, max(height, width)) + 2 * rules.dilation_px
    carried = plan.source.map_pixels if isinstance(plan.source, Carried) else 0.0
    maps = 1 + int(plan.has_ignored) + int(plan.inputs.validation is not None)
    done = "already complete"
    if not plan.record.is_complete():
        counted, cleaned = len(plan.facts_record.done()), len(plan.record.done())
        done = f"{counted} already counted and {cleaned} already cleaned"
    rows = [
        f"labels {config.segment}: {plan.inputs.name}",
        f"  surface       {height} x {width} px",
        *_chosen(plan),
        f"  ink           {_ink(config)}",
        f"  ignored       {_ignored(plan)}",
        f"  units         {len(plan.units)}, each in two passes; {done}",
        f"  reads         {2 * height * width / 2**20:,.0f} Mi pixels, in two passes",
        f"  writes        about {bytes_text(maps * height * width * 4 / 3)} (before compression) to {plan.folder}",
        f"  peak memory   about {bytes_text(BASE_BYTES + (BYTES_PER_PIXEL + BYTES_PER_MAP_PIXEL * carried) * side**2)}",
    ]
    return "\n".join(rows)


def _holes(rules: CleaningRules) -> str:
    if not rules.fill_holes:
        return ""
    return ", holes filled" if rules.max_hole_px is None else f", holes up to {rules.max_hole_px} px filled"


def _chosen(plan: LabelsPlan) -> list[str]:
    """Say which version and plane are taken, and what is held out."""
    versions, volume, rows = plan.inputs.versions, plan.source.volume, []
    if isinstance(plan.source, Carried):
        rows.append(f"  carried       {plan.source.how}")
    if versions is not None and str(versions):
        rows.append(f"  versions      {versions}")
    if volume is not None:
        rows.append(f"  plane         {_plane(volume)}")
    if plan.inputs.validation is not None:
        rows.append(f"  held out      pixels of {plan.inputs.validation.source.uri}")
    return rows


def _plane(volume: OnePlane) -> str:
    if volume.plane is None:
        return f"the one of {volume.planes} that holds ink"
    return f"the largest of all {volume.planes}" if volume.plane == "max" else f"{volume.plane} of {volume.planes}"


def _ink(config: LabelsConfig) -> str:
    rules = config.clean
    if config.soft:
        return "probabilities, as they are"
    return (
        f"{'below' if rules.invert else 'from'} {rules.threshold:g} of full scale, grown by {rules.dilation_px} px, "
        f"components from {rules.min_area_px} px{_holes(rules)}"
    )


def _ignored(plan: LabelsPlan) -> str:
    rules = plan.config.ignore
    image = plan.inputs.ignore_image
    parts = [f"pixels of {image.uri}"] if image is not None else []
    if plan.inputs.supervision is not None:
        parts.append(f"pixels outside {plan.inputs.supervision.source.uri}")
    if rules.uncertain:
        parts.append(f"values from {rules.uncertain[0]:g} to below {rules.uncertain[1]:g}")
    if rules.border != "none":
        parts.append(f"components at the border of the {rules.border}")
    return ", ".join(parts) or "nothing"
