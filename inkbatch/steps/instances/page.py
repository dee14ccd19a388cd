"""The page of instances: where they are, how large, and what became of every proposal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from inkbatch.data.instances.selection import REASONS
from inkbatch.io.store.location import Location
from inkbatch.reports.charts.shapes import Axis, Line
from inkbatch.reports.charts.svg import line_chart
from inkbatch.reports.page import Chart, Figure, Link, Page, Picture, Promise, Section, Table, Words
from inkbatch.reports.stored import RERUN, bundle_warnings, interruptions, links, money, pixels
from inkbatch.reports.timing import spent
from inkbatch.reports.viewer_links import objects_link
from inkbatch.run.finished import StoredRun
from inkbatch.text import count_text

FILES = (
    ("labels", "a folder per picture: labels.zarr, uint32 with a pyramid; 0 is no object"),
    ("instances.csv", "a row per instance: place, size, shape, intensity, probability"),
    ("instances.parquet", "the same, typed"),
    ("outlines", "GeoJSON per picture, x and y in pixels, with all properties"),
    ("coco.json", "COCO, outlines as polygons"),
    ("coco-rle.json", "COCO, masks as run lengths"),
    ("npy", "labels per picture, uint32, as NumPy has them"),
    ("overlays", "outlines over each picture"),
    ("proposals.csv", "a row per proposal, and what became of it"),
    ("instances.json", "counts and size distributions"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, bytes, machine"),
)
STAGES = ("opening the maps", "measuring", "reading and writing", "finishing")
SHOWN = 4  # pictures on the page
LISTED = 50  # pictures in the table
REJECTED = "all proposals were rejected; look at the reasons, and at the scale of the tiles if a network refined them"
MUCH = 0.5  # of the proposals: so many rejected ask for a look


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a result.

    Args:
        run: The run, in ``ROOT/instances/{subject}/{result}``.
        root: Not needed.
    """
    config, facts = run.manifest["config"], (run.folder / "instances.json").read_mapping()
    counts: Mapping[str, int] = facts["counts"]
    pictures = facts["pictures"]
    return Page(
        job="instances",
        title=f"{config['subject']} / {config['result']}",
        sentence=(
            f"{count_text(facts['instances'], 'instance')} in {count_text(len(pictures), 'picture')}: objects from "
            f"probability {config['proposals']['object_from']:g}, {_outlined(run, counts)}."
        ),
        hero=(*_overlays(run, pictures), _size_chart(facts)),
        figures=(
            Figure(f"{facts['instances']:,}", "instances", _by_source(counts)),
            Figure(f"{counts['proposals']:,}", "proposals", "by components and by regions"),
            Figure(f"{counts['proposals_merged']:,}", "merged", "proposals in an instance that has one"),
            Figure(f"{counts['proposals_rejected']:,}", "rejected", "see the reasons below"),
            *money(run),
        ),
        warnings=(*doubts(facts), *bundle_warnings(run), *interruptions(run)),
        contract=(
            _tiles(counts),
            Promise("proposals", "none vanishes", f"{counts['proposals']:,} accounted for", "proposals.csv"),
        ),
        contract_caption="What holds for this result.",
        spent=spent(run.rows, STAGES),
        sections=(
            Section("Proposals and rejections", (_fates(counts), _reasons(counts))),
            Section("Sizes", (_quantiles(facts),)),
            Section("Pictures", (_pictures(pictures),)),
            Section("Settings", (Words(_settings(config)),)),
        ),
        repeat=RERUN,
        files=links(run.folder, FILES),
    )


def _tiles(counts: Mapping[str, int]) -> Promise:
    if "instances_refined" not in counts:
        return Promise(
            "tiles", "no object depends on units", "joined across units", "basins are joined by their labels"
        )
    found = f"{counts['instances_first_pass']:,} from the first pass"
    return Promise("tiles", "no object is cut at a seam", found, "objects that leave their tile are the watershed's")


def _outlined(run: StoredRun, counts: Mapping[str, int]) -> str:
    network = run.manifest["inputs"].get("refine")
    if network is None:
        return "parted by watershed"
    return f"outlined by {network['name']} ({network['kind']}, weights {network['weights_sha256'][:12]}…)"


def _by_source(counts: Mapping[str, int]) -> str:
    if "instances_refined" not in counts:
        return f"{counts['instances_without_proposal']:,} without a proposal"
    return f"{counts['instances_refined']:,} refined, {counts['instances_first_pass']:,} from the first pass"


def _overlays(run: StoredRun, pictures: list[dict[str, Any]]) -> Iterator[Picture]:
    for one in pictures[:SHOWN]:
        shown = pixels(run.folder / f"overlays/{one['picture']}.png")
        if shown is not None:
            um = run.manifest["config"]["pixel_um"]
            yield Picture(
                shown,
                alt=f"{one['picture']} with the outlines of {count_text(one['instances'], 'instance')} in amber.",
                caption=f"{one['picture']}: {count_text(one['instances'], 'instance')}.",
                width_um=None if um is None else um * one["shape_yx"][1],
                link=Link("In the viewer", objects_link(one["picture"], run.manifest["config"]["result"])),
            )


def _size_chart(facts: Mapping[str, Any]) -> Chart:
    """Draw both cumulative size distributions."""
    sizes = facts["sizes"]
    title = "Equivalent diameters: share of instances, and of their area, below each."
    if not sizes:
        return line_chart(title, "No instance has a size.", Axis("diameter, px", 0, 1), Axis("share, %", 0, 100), ())
    um = sizes["pixel_um"]
    factor, unit = (1.0, "px") if um is None else (um / 1000, "mm")
    lines = [
        Line(
            f"by {key}",
            [
                (diameter * factor, share * 100)
                for diameter, share in zip(sizes[f"diameter_by_{key}_px"], sizes["share"], strict=True)
            ],
        )
        for key in ("number", "area")
    ]
    median = [sizes[f"by_{key}"]["d50"] * factor for key in ("number", "area")]
    alt = f"Size distributions: half of the instances are below {median[0]:.3g} {unit}, half of the area below "
    return line_chart(
        title, f"{alt}{median[1]:.3g} {unit}.", Axis(f"diameter, {unit}"), Axis("share, %", 0, 100), lines
    )


def doubts(facts: Mapping[str, Any]) -> Iterator[str]:
    """Name what makes a result doubtful, as ``instances.json`` tells it."""
    counts: Mapping[str, int] = facts["counts"]
    rejected = counts["proposals_rejected"] - counts.get("proposals_rejected_not largest", 0)  # which was asked for
    if rejected > MUCH * counts["proposals"]:
        yield (
            f"{rejected:,} of {counts['proposals']:,} proposals were rejected; look at the reasons "
            "before you count objects."
        )
    for proposed, cure in ((False, "lower proposals.object_from, or look at the map"), (True, REJECTED)):
        pictures = [one for one in facts["pictures"] if not one["instances"]]
        empty = [one["picture"] for one in pictures if bool(one["counts"]["proposals"]) is proposed]
        if empty:
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            yield f"No instance in {', '.join(empty[:3])}{more}: {cure}."
    if facts["larger_than_tile"]:
        yield (
            f"{count_text(facts['larger_than_tile'], 'instance')} larger than a tile: taken from the first pass, and "
            "marked larger_than_tile."
        )


def _fates(counts: Mapping[str, int]) -> Table:
    names = (
        ("proposals", "proposals"),
        ("proposals_instance", "… that are an instance"),
        ("proposals_merged", "… merged into one"),
        ("proposals_rejected", "… rejected"),
        ("regions", "regions of the watershed, with those too small"),
        ("regions_instance", "… that are an instance"),
        ("regions_clustered", "… whose proposal is that of a neighbour"),
        ("instances_without_proposal", "instances without a proposal of their own"),
        ("instances_refined", "instances outlined by the network"),
        ("instances_first_pass", "instances from the first pass"),
        ("instances_kept", "… because no mask was better for sure"),
    )
    rows = tuple((text, f"{counts[name]:,}") for name, text in names if name in counts)
    return Table("What became of proposals and regions.", ("what", "count"), rows, frozenset({1}))


def _reasons(counts: Mapping[str, int]) -> Table:
    rows = tuple(
        (reason, text, *(f"{counts.get(f'{what}_rejected_{reason}', 0):,}" for what in ("proposals", "regions")))
        for reason, text in REASONS.items()
    )
    shown = tuple(row for row in rows if row[2:] != ("0", "0")) or (("none", "nothing was rejected", "0", "0"),)
    return Table("Rejections by rule.", ("rule", "meaning", "proposals", "regions"), shown, frozenset({2, 3}))


def _quantiles(facts: Mapping[str, Any]) -> Table:
    sizes = facts["sizes"]
    rows = []
    for key in ("number", "area") if sizes else ():
        values = [sizes[f"by_{key}"][name] for name in ("d16", "d50", "d84")]
        mm = ["" if sizes["pixel_um"] is None else f"{value * sizes['pixel_um'] / 1000:.4g} mm" for value in values]
        rows.append((f"by {key}", *(f"{px:.2f} px {text}".strip() for px, text in zip(values, mm, strict=True))))
    caption = "Equivalent diameters below which 16, 50 and 84 % lie."
    return Table(caption, ("", "D16", "D50", "D84"), tuple(rows), frozenset({1, 2, 3}))


def _pictures(pictures: list[dict[str, Any]]) -> Table:
    rows = tuple(
        (
            one["picture"],
            "{} × {}".format(*one["shape_yx"]),
            f"{one['instances']:,}",
            f"{one['counts']['proposals']:,}",
            f"{one['counts']['proposals_merged']:,}",
            f"{one['counts']['proposals_rejected']:,}",
        )
        for one in pictures[:LISTED]
    )
    file = Link("instances.json", "instances.json", "all pictures") if len(pictures) > LISTED else None
    columns = ("picture", "size, px", "instances", "proposals", "merged", "rejected")
    return Table("Counts by picture.", columns, rows, frozenset({2, 3, 4, 5}), file=file)


def _settings(config: Mapping[str, Any]) -> str:
    proposals, selection = config["proposals"], config["selection"]
    return (
        f"Objects of at least {_plain(proposals['min_area'])} are proposed, centroids within "
        f"{_plain(proposals['cluster'])} are one "
        f"proposal, regions stay apart at necks below {proposals['neck']:g} of the narrower one and "
        f"grow into pixels of boundary by at most {_plain(proposals['grow'])}. Rejected: within "
        f"{_plain(selection['edge'])} of the picture's edge, mean background probability from "
        f"{selection['background']:g} on. Plain numbers are pixels."
    )


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
