"""Report pages: one file that carries all it shows, made of what is stored alone."""

from __future__ import annotations

import html
import json
import re
import shutil

import numpy as np
import pytest
import typer

from inkbatch.cli.app import app
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Chart, Code, Figure, Link, Page, Picture, Section, Table, Words
from inkbatch.reports.render import MOST_BYTES, MOST_ROWS, render, scale_bar, usd_text
from inkbatch.reports.stored import root_of
from inkbatch.reports.viewer_links import viewer_link
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.record import REPORT_NAME, SCORE_NAME, report_place
from inkbatch.steps.infer import job as infer
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.report import job as report
from inkbatch.steps.report.registry import PAGES, write_report
from inkbatch.testing.faults import preempted_context
from inkbatch.testing.maps import store_picture
from inkbatch.testing.reports import MAKERS, faults_of_page, inferred, prepared
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers
from inkbatch.text import seconds_text

VIEWER = viewer_link("", Box(0, 0, 1, 1), "").partition("#")[0]


@pytest.fixture(scope="module", params=sorted(MAKERS))
def made(request, tmp_path_factory):
    """A finished run of every job that has a page: its folder, and its page."""
    folder = MAKERS[request.param](tmp_path_factory.mktemp(request.param))
    return folder, report_place(folder, request.param)


def test_every_page_has_a_run_that_tests_it():
    assert set(MAKERS) == set(PAGES)


def test_the_job_leaves_a_page_that_carries_all_it_shows(made):
    assert faults_of_page(made[1].read_bytes()) == []


def test_a_page_made_anew_from_stored_files_has_the_same_bytes(made):
    folder, place = made
    before = place.read_bytes()
    place.delete()
    assert write_report(folder) == place
    assert place.read_bytes() == before


def test_every_command_of_a_page_can_be_given_as_it_stands(made):
    """Words in capitals are to be filled in; commands and options are real, files are there."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", made[1].read_bytes().decode()))
    commands = typer.main.get_command(app).commands
    named = re.findall(r"inkbatch ([a-z-]+)((?: (?:--)?[\w./=-]*[\w/])*)", text)
    assert named
    for name, words in named:
        assert name in commands, name
        known = {word for parameter in commands[name].params for word in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"(?<= )--[a-z-]+", words)) <= known, words
        files = {word for word in words.split() if word.endswith((".yaml", ".json"))}
        assert files <= {"manifest.json", "prepare/manifest.json", "labels/manifest.json"} or "fold-" in words, words


def test_links_lead_to_files_of_the_run(made):
    place = made[1]
    hrefs = re.findall(r'<a href="([^"]+)"', place.read_bytes().decode())
    assert hrefs
    for href in hrefs:
        assert href.startswith(("https://", "../", VIEWER)) or (place.parent / href).exists(), href


def test_the_checks_find_what_is_wrong():
    bad = b'<!doctype html><html><img src="http://a/b.png"><script></script><th>x</th></html>'
    found = " ".join(faults_of_page(bad))
    for words in ("not carried", "<script>", "without words", "language", "scope", "no h1"):
        assert words in found


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def page_of(*pictures, sections=()):
    return Page("test", "name", "Something ran.", tuple(pictures), (Figure("1", "one"),), sections=sections)


def test_many_noisy_pictures_still_fit_a_page():
    pictures = [Picture(noise(500, 700, seed), "nothing but noise", "noise", crisp=True) for seed in range(4)]
    assert len(render(page_of(*pictures))) < MOST_BYTES


def test_text_is_never_taken_for_markup():
    rows = (("<b>bold</b>", "a & b"),)
    data = render(page_of(sections=(Section("<i>", (Table('"quoted"', ("what", "found"), rows),)),))).decode()
    assert "<b>bold</b>" not in data
    assert "&lt;b&gt;bold&lt;/b&gt;" in data
    assert "<h2>&lt;i&gt;</h2>" in data


def test_a_long_table_is_cut_off_and_says_so():
    rows = tuple((f"row {number}", "x") for number in range(MOST_ROWS + 3))
    data = render(page_of(sections=(Section("many", (Table("rows", ("what", "found"), rows),)),))).decode()
    assert f"row {MOST_ROWS - 1}<" in data
    assert f"row {MOST_ROWS}<" not in data
    assert "3 more rows" in data


@pytest.mark.parametrize(
    ("width_um", "bar"),
    [(8100, ("2 mm", "24.69")), (1000, ("0.2 mm", "20.00")), (300, ("50 µm", "16.67")), (240_000, ("50 mm", "20.83"))],
)
def test_scale_bars_are_round(width_um, bar):
    assert scale_bar(Picture(noise(2, 2), "", "", width_um=width_um)) == bar


def test_times_and_money_are_said_as_people_do():
    assert [seconds_text(value) for value in (0.04, 61, 3599.6, 7265)] == [
        "0.0 s",
        "1 min 01 s",
        "1 h 00 min",
        "2 h 01 min",
    ]
    assert (usd_text(0.0123), usd_text(1234.5)) == ("0.0123 USD", "1,234.50 USD")


def text_of(place):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", place.read_bytes().decode()))


def infer_config(folder, **changes):
    values = {"segment": "tiny", "root": str(folder / "root"), "bundle": str(folder / "bundle"), "device": "cpu"}
    return infer.InferConfig.model_validate({**values, "unit_px": 64, **changes})


def test_money_is_shared_among_the_stages(tmp_path, monkeypatch):
    monkeypatch.setenv("INKBATCH_USD_PER_HOUR", "3600")
    folder = inferred(tmp_path)
    row = (folder / "run.json").read_json()
    assert usd_text(row["usd_stated"]) in text_of(folder / REPORT_NAME)
    assert "No price was stated" not in text_of(folder / REPORT_NAME)


def test_an_override_is_told_before_anything_else(tmp_path):
    inferred(tmp_path)
    found = infer.run(infer_config(tmp_path, name="bent", override={"divisor": 300.0}), RunContext())
    text = text_of(found.location / REPORT_NAME)
    assert "overridden: divisor=300.0" in text
    assert "not the bundle's own: divided by 300" in text.replace("&#39;", "'")
    assert text.index("Before you trust it") < text.index("Ink over papyrus")


def test_a_stride_of_ones_own_is_no_warning(tmp_path):
    inferred(tmp_path)
    found = infer.run(infer_config(tmp_path, name="coarse", stride_px=8), RunContext())
    text = text_of(found.location / REPORT_NAME)
    assert "asked for by this run: stride_px=8" in text
    assert "overridden" not in text


def test_views_and_windows_are_told(tmp_path):
    inferred(tmp_path)
    identity_bundle(tmp_path / "bundle", tta_axes=("flip-y",))
    changes = {"name": "turned", "tta": ("flip-y",), "layer_groups": ((0, 3), (2, 5)), "combine": "max"}
    found = infer.run(infer_config(tmp_path, **changes), RunContext())
    text = text_of(found.location / REPORT_NAME)
    assert "the max of several answers. Layer windows: 0:3, 2:5. Views of each tile: as it is, flip-y." in text
    assert "in 2 windows, each tile from 2 sides" in text
    assert "source layers 0:5" in text


def test_maps_that_were_made_together_each_have_a_page(tmp_path):
    inferred(tmp_path)
    changes = {"layer_groups": ((0, 3), (2, 5)), "store_windows": True, "name": None}
    found = infer.run(infer_config(tmp_path, **changes), RunContext())
    for place in (found.location, *found.beside):
        assert "One job made these maps together" in text_of(place / REPORT_NAME)


def test_layers_of_a_probe_are_told_and_are_no_override(tmp_path):
    folder = inferred(tmp_path)
    manifest = (folder / "manifest.json").read_json()
    manifest["config"]["override"] = {"depth_order": "reversed"}
    manifest["config"]["probe"] = {"verdict": "clear", "depth_order": "reversed", "confidence": 0.9}
    (folder / "manifest.json").write_json(manifest)
    write_report(folder)
    text = text_of(folder / REPORT_NAME)
    assert "Layers and depth order (reversed) were chosen by a depth probe (verdict clear, confidence 0.90)" in text
    assert "overridden" not in text


def test_the_rule_of_grey_values_is_shown_on_both_scales_and_lost_detail_is_told(tmp_path):
    source = write_layers(tmp_path / "layers", random_papyrus(dtype="uint16"))
    values = {"segment": "deep", "root": str(tmp_path / "root"), "source": str(source), "depth_order": "reversed"}
    values |= {"voxel_size_um": 8.0, "intensity": "window:20000:40000"}
    found = prepare.run(PrepareConfig.model_validate(values), RunContext())
    text = text_of(found.location.parent / REPORT_NAME)
    assert "uint16 of the source (before)" in text
    assert "35000" in text
    assert "the layers were turned round on reading" in text
    assert text.count("value that can be stored: detail is cut off there") == 2


def test_where_labels_are_known_the_page_shows_the_score_that_was_stored(tmp_path):
    folder = inferred(tmp_path)
    assert "against labels" not in text_of(folder / REPORT_NAME)
    complete = (folder / "complete.json").read_bytes()
    store_picture(tmp_path / "root", "tiny", "ink_labels", np.where(random_papyrus()[2] > 128, 255, 0))
    infer.run(infer_config(tmp_path), RunContext())  # the map is whole; labels have come since
    score, text = (folder / SCORE_NAME).read_json(), text_of(folder / REPORT_NAME)
    assert f"{score['f05']:.3f} F0.5 against labels" in text
    assert f"{score['best_f05']:.3f} best F0.5 against labels at {score['best_threshold']:.2f}" in text
    assert f"{score['auc']:.3f} AUC against labels" in text
    assert (folder / "complete.json").read_bytes() == complete
    infer.run(infer_config(tmp_path, name="another"), RunContext())
    other = folder.parent / "another"
    assert (other / SCORE_NAME).read_json()["f05"] == score["f05"]
    assert f"{score['f05']:.3f} F0.5 against labels" in text_of(other / REPORT_NAME)


def test_pages_lie_on_object_stores_as_well(tmp_path, s3_root):
    inferred(tmp_path)
    prepared_at = {"segment": "tiny", "root": s3_root.uri, "source": str(tmp_path / "layers"), "shard_px": 64}
    prepared_at |= {"depth_order": "forward", "voxel_size_um": 8.0}
    prepare.run(PrepareConfig.model_validate(prepared_at), RunContext())
    found = infer.run(infer_config(tmp_path, root=s3_root.uri), RunContext())
    assert "Ink over papyrus" in text_of(found.location / REPORT_NAME)
    assert len(list(report.run(report.ReportConfig(run="tiny", root=s3_root.uri)))) == 2


def test_a_stopped_run_has_no_page_and_the_resumed_one_tells_of_both_processes(tmp_path):
    folder = inferred(tmp_path)
    place = folder / REPORT_NAME
    (folder / "complete.json").delete()
    for marker in (folder / "done").names()[2:]:
        (folder / "done" / marker).delete()
    with pytest.raises(Exception, match="run the same command again"):
        infer.run(infer_config(tmp_path), preempted_context(1))
    assert not place.exists()
    infer.run(infer_config(tmp_path), RunContext())
    assert "A process stopped before its part was done" in text_of(place)
    assert "The processes of this run" in text_of(place)


def test_the_page_of_a_sharded_run_has_the_clocks_of_all_shards(tmp_path):
    inferred(tmp_path)
    for index in range(3):
        found = infer.run(infer_config(tmp_path, name="cut"), RunContext(shard=ShardSpec(index, 3)))
        assert (found.location / REPORT_NAME).exists() == (index == 2)
    assert "3 processes" in text_of(found.location / REPORT_NAME)


def test_a_finished_run_whose_page_is_missing_gets_it_from_the_same_command(tmp_path):
    place = inferred(tmp_path) / REPORT_NAME
    before = place.read_bytes()
    place.delete()
    infer.run(infer_config(tmp_path), RunContext())
    assert place.read_bytes() == before


class Listener:
    """A reporter that remembers its notes."""

    def __init__(self):
        self.notes = []

    def start(self, job, total, skipped, noun="unit"): ...
    def unit(self, name, facts): ...
    def advance(self, share, facts): ...
    def close(self): ...
    def note(self, text):
        self.notes.append(text)


def test_a_page_that_cannot_be_made_leaves_the_run_finished_and_says_so(tmp_path, monkeypatch):
    inferred(tmp_path)
    monkeypatch.setattr("inkbatch.steps.infer.job.report_page", lambda run, root: 1 / 0)
    listener = Listener()
    found = infer.run(infer_config(tmp_path, name="other"), RunContext(reporter=listener))
    assert found.complete
    assert (found.location / "complete.json").exists()
    assert not (found.location / REPORT_NAME).exists()
    (said,) = [note for note in listener.notes if "could not be made" in note]
    assert f"inkbatch report {found.location}" in said
    assert "division by zero" in said


def test_without_its_papyrus_the_map_is_shown_alone_and_the_page_says_why(tmp_path):
    folder = inferred(tmp_path)
    shutil.rmtree(tmp_path / "root/segments")
    write_report(folder)
    text = text_of(folder / REPORT_NAME)
    assert "not under this ROOT" in text
    assert "Ink over papyrus" not in text
    assert faults_of_page((folder / REPORT_NAME).read_bytes()) == []


def test_another_surface_of_the_same_name_is_not_shown_under_the_map(tmp_path):
    folder = inferred(tmp_path)
    place = tmp_path / "root/segments/tiny/prepare/manifest.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "digest": "another"}))
    write_report(folder)
    assert "Ink over papyrus" not in text_of(folder / REPORT_NAME)


def test_an_unfinished_run_gets_no_page(tmp_path):
    folder = inferred(tmp_path)
    (folder / "complete.json").delete()
    with pytest.raises(DataError, match="incomplete"):
        write_report(folder)


@pytest.mark.parametrize("how", ["folder", "manifest", "name"])
def test_report_finds_a_run_by_folder_manifest_or_name(tmp_path, how):
    folder = inferred(tmp_path)
    given = {"folder": folder.uri, "manifest": f"{folder}/manifest.json", "name": "tiny"}[how]
    root = str(tmp_path / "root") if how == "name" else None
    (folder / REPORT_NAME).delete()
    lines = list(report.run(report.ReportConfig(run=given, root=root)))
    assert (folder / REPORT_NAME).exists()
    assert len(lines) == (2 if how == "name" else 1)


def test_report_takes_the_folder_of_a_segment(tmp_path):
    segment = prepared(tmp_path).parent
    (segment / REPORT_NAME).delete()
    assert list(report.run(report.ReportConfig(run=segment.uri))) == [f"report: {segment / REPORT_NAME}"]


def test_report_says_what_is_not_there(tmp_path):
    inferred(tmp_path)
    config = report.ReportConfig(run="tiny", root=str(tmp_path / "root"), name="absent")
    with pytest.raises(DataError, match="no finished run of tiny absent"):
        list(report.run(config))
    folder = Location.parse(tmp_path / "root/labels")
    (folder / "manifest.json").write_json({"job": "labels", "config": {}, "inputs": {}, "digest": "x"})
    with pytest.raises(ConfigError, match="a labels run has no report page"):
        list(report.run(report.ReportConfig(run=folder.uri)))


def test_report_looks_for_a_name_in_every_room_of_results(tmp_path):
    rooms = {"preflights": "preflight", "probes": "probe", "predictions": "infer", "sweeps": "sweep"}
    rooms |= {"instances": "instances", "rounds": "round"}
    for room, job in rooms.items():
        manifest = {"job": job, "config": {}, "inputs": {}, "digest": "x"}
        (Location.parse(tmp_path) / room / "tiny/one/manifest.json").write_json(manifest)
    with pytest.raises(DataError, match="no finished run of tiny") as refused:
        list(report.run(report.ReportConfig(run="tiny", root=str(tmp_path))))
    assert [room for room in rooms if f"{room}/tiny/one is not finished" not in str(refused.value)] == []


def test_root_is_what_lies_above_the_room():
    assert root_of(Location.parse("s3://bucket/ink/predictions/a/b")).uri == "s3://bucket/ink"
    assert root_of(Location.parse("s3://bucket/ink/predictions/a/b/evaluation")).uri == "s3://bucket/ink"
    assert root_of(Location.parse("/data/elsewhere/run")).uri == "/data/elsewhere"


@pytest.mark.parametrize(
    "words",
    [
        "https://reader:s3cr3t@host/scans",
        "https://host/scans?token=s3cr3t",
        "WANDB_API_KEY=s3cr3t",
        "DB_PASS=s3cr3t",
        '{"AUTHORIZATION": "Bearer s3cr3t"}',
    ],
)
def test_no_secret_reaches_a_page_wherever_it_stands(words):
    svg = f"<svg><text>{words}</text></svg>"
    parts = (
        Words(words),
        Code(words),
        Table(words, (words,), ((words,), (Link(words, words),))),
        Chart(svg, words, words),
    )
    page = Page(
        job="test",
        title=words,
        sentence=words,
        hero=(Picture(noise(8, 8), words, words),),
        figures=(Figure(words, words, words),),
        warnings=(words,),
        sections=(Section(words, parts),),
        repeat=words,
        repeat_note=words,
        files=(Link(words, words, words),),
        foot=words,
    )
    assert "s3cr3t" not in render(page).decode()
