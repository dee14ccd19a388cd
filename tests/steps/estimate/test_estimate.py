"""estimate: work is counted as infer would do it, seconds and money can be followed by hand, errors are said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from inkbatch.cli.app import main
from inkbatch.errors import ConfigError, DataError
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.run.prices import MACHINE_VARIABLE, PRICES_VARIABLE, RATE_VARIABLE, machines
from inkbatch.steps.estimate.job import EstimateConfig, run
from inkbatch.steps.estimate.throughput import FIGURES_VARIABLE, is_same_device, read_throughputs, stored_throughputs
from inkbatch.steps.infer import job as infer
from inkbatch.testing.segments import identity_bundle

FLOPS = 1e6  # per tile, of the tiny bundles
TABLE = """
machines:
  box: {gpu: "1 x T9", bf16_tflops: 1, on_demand: 36.0, spot: [3.6, 7.2], as_of: "2026-11", source: "a test"}
"""
FIGURE = {"device": "Maker T9 80GB", "architecture": "identity", "flops_per_tile": FLOPS, "precision": "bf16"}
FIGURE |= {"tiles_per_s": 10.0, "as_of": "2026-11-01", "source": "a test"}


@pytest.fixture
def box(tmp_path, monkeypatch):
    """A price table with one machine, and nothing else from the environment."""
    for name in (MACHINE_VARIABLE, RATE_VARIABLE, FIGURES_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "prices.yaml").write_text(TABLE)
    monkeypatch.setenv(PRICES_VARIABLE, str(tmp_path / "prices.yaml"))


@pytest.fixture
def figures(tmp_path, monkeypatch):
    (tmp_path / "figures.yaml").write_text(yaml.safe_dump({"figures": [FIGURE]}))
    monkeypatch.setenv(FIGURES_VARIABLE, str(tmp_path / "figures.yaml"))


@pytest.fixture
def settings(tiny_segment, bundle_folder, tmp_path):
    (tmp_path / "segments.yaml").write_text(
        yaml.safe_dump({"segments": {"tiny": {"source": str(tiny_segment.source)}, "raw": {"source": "layers"}}})
    )
    values = {"root": str(tiny_segment.root), "bundle": str(bundle_folder), "unit_px": 64, "device": "cpu"}

    def make(**changes):
        return EstimateConfig(**{**values, "catalog": str(tmp_path / "segments.yaml"), **changes})

    return make


def infer_tiny(config: EstimateConfig, **changes):
    values = {"segment": "tiny", "root": config.root, "bundle": config.bundle, "unit_px": 64, "device": "cpu"}
    return infer.run(infer.InferConfig(**values, **changes), RunContext())


def test_a_prepared_segment_is_counted_as_infer_computes_it(settings, box):
    config = settings(segment="tiny", machine="box")
    (row,) = run(config).segments
    report = infer_tiny(config)
    assert (row.work.units, row.work.tiles) == (report.units, report.facts["tiles"])
    assert row.work.exact


def test_a_segment_that_is_not_prepared_gets_an_upper_bound(settings, box):
    prepared, raw = (run(settings(segment=name, machine="box")).segments[0].work for name in ("tiny", "raw"))
    assert not raw.exact
    assert raw.units == prepared.units
    assert prepared.tiles < raw.tiles < 1.6 * prepared.tiles  # a fifth of it holds no papyrus


def test_without_a_figure_seconds_follow_from_the_data_sheet(settings, box):
    report = run(settings(segment="tiny", machine="box"))
    tiles = report.segments[0].work.tiles
    assert report.seconds == pytest.approx((tiles * FLOPS / 0.40e12, tiles * FLOPS / 0.15e12))
    assert report.price.usd((100, 200)) == {"on demand": pytest.approx((1, 2)), "spot": pytest.approx((0.1, 0.4))}
    assert "not measured" in str(report)


def test_a_stored_figure_of_the_device_and_network_is_preferred_and_its_source_is_said(settings, box, figures):
    report = run(settings(segment="tiny", machine="box"))
    tiles = report.segments[0].work.tiles
    assert report.seconds[0] < tiles / 10 < report.seconds[1]
    assert "10 tiles/s in bf16 seen on Maker T9 80GB (a test; 2026-11-01)" in str(report)


def test_a_figure_of_another_network_is_not_used(settings, box, figures, tmp_path):
    identity_bundle(tmp_path / "bundle4", layers=4)
    document = json.loads((tmp_path / "bundle4/bundle.json").read_text())
    document["flops_per_tile"] = 2 * FLOPS
    (tmp_path / "bundle4/bundle.json").write_text(json.dumps(document))
    report = run(settings(segment="tiny", machine="box", bundle=str(tmp_path / "bundle4")))
    assert "not measured" in report.rate.source


@pytest.mark.parametrize("segment", ["tiny", "raw"])
def test_every_view_and_window_is_one_more_pass_per_tile(settings, box, figures, segment, tmp_path):
    identity_bundle(tmp_path / "bundle", tta_axes=("flip-y", "turn-180"))
    one = run(settings(segment=segment, machine="box"))
    asked = {"tta": ("allowed",), "layer_starts": (0, 2)}
    six = run(settings(segment=segment, machine="box", **asked))
    assert six.segments[0].work.passes_per_tile == 6  # three views of two windows
    assert six.segments[0].work.tiles == one.segments[0].work.tiles
    assert six.seconds == pytest.approx([6 * value for value in one.seconds])
    assert "tiles x 6 passes" in str(six)
    groups = run(settings(segment=segment, machine="box", layer_groups=((0, 3), (2, 5))))
    assert groups.seconds == pytest.approx([2 * value for value in one.seconds])
    with pytest.raises(ConfigError, match="does not allow flip-x"):
        run(settings(segment=segment, machine="box", tta=("flip-x",)))


def test_a_real_run_of_variants_is_compared_by_its_passes(settings, box, figures, tmp_path):
    identity_bundle(tmp_path / "bundle", tta_axes=("flip-y",))
    config = settings(segment="tiny", machine="box")
    folder = infer_tiny(config, tta=("flip-y",)).location
    row = (folder / "run.json").read_json()
    fast = {"device": "cuda", "device_name": "Maker T9 80GB", "loop_s": 2 * row["tiles"] / 10}
    (folder / "run.json").write_json({**row, **fast})
    (real,) = run(config).segments[0].real_runs
    assert real.passes == 2 * real.tiles
    assert real.error == pytest.approx((0.85 + 1.30) / 2 - 1)  # as fast as the figure


def test_a_real_run_says_its_start_up_and_whether_it_had_the_cores_for_itself(settings, box, figures):
    config = settings(segment="tiny", machine="box")
    folder = infer_tiny(config).location
    row = (folder / "run.json").read_json()
    assert row["cpu_s"] >= 0
    (folder / "run.json").write_json({**row, "setup_s": 4.0, "loop_s": 10.0, "cpu_s": 5.0, "cores": 2})
    assert "(after 4 s of start-up, with 0.5 of 2 cores to itself)" in str(run(config))
    (folder / "run.json").write_json({**row, "setup_s": 4.0, "loop_s": 10.0, "cpu_s": 19.0, "cores": 2})
    assert "(after 4 s of start-up)" in str(run(config))


def test_windows_that_were_stored_together_are_one_real_run(settings, box, figures):
    config = settings(segment="tiny", machine="box")
    infer_tiny(config, layer_starts=(0, 2), store_windows=True)
    (real,) = run(config).segments[0].real_runs
    assert real.passes == 2 * real.tiles


def test_the_whole_catalog_sums_up_and_says_what_is_refused(settings, box, figures, tmp_path):
    catalog = yaml.safe_load((tmp_path / "segments.yaml").read_text())
    catalog["segments"]["gone"] = {"source": str(tmp_path / "nowhere")}
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump(catalog))
    report = run(settings(all=True, machine="box"))
    rows = {row.segment: row for row in report.segments}
    assert {"tiny", "raw", "gone", "demo"} <= rows.keys()
    assert rows["gone"].work is None
    assert str(tmp_path / "nowhere") in rows["gone"].refusal
    assert report.seconds[1] == pytest.approx(sum(row.seconds[1] for row in report.segments))
    assert "1 refused" in str(report)
    with pytest.raises(DataError):
        run(settings(segment="gone", machine="box"))


def test_the_error_is_said_where_a_real_run_exists(settings, box, figures):
    config = settings(segment="tiny", machine="box")
    folder = infer_tiny(config).location
    row = (folder / "run.json").read_json()
    tiles = row["tiles"]
    (folder / "run.json").write_json({**row, "device": "cuda", "device_name": "Maker T9 80GB", "loop_s": tiles / 5})
    (real,) = run(config).segments[0].real_runs
    assert real.tiles == tiles
    assert real.error == pytest.approx((0.85 + 1.30) / 2 / 10 * 5 - 1)  # it was half as fast as the figure
    assert "46% too short" in str(run(config))


def test_a_real_run_is_not_compared_in_digits_with_an_estimate_under_a_minute(settings, box, figures):
    config = settings(segment="tiny", machine="box")
    folder = infer_tiny(config).location
    row = (folder / "run.json").read_json()
    row |= {"device": "cuda", "device_name": "Maker T9 80GB", "loop_s": 2.0, "tiles": 100, "tile_passes": 100}
    (folder / "run.json").write_json(row)
    assert "the estimate says under a minute" in str(run(config))
    assert "too short" not in str(run(config))


def test_a_real_run_on_another_device_is_named_and_not_compared(settings, box, figures):
    config = settings(segment="tiny", machine="box")
    infer_tiny(config)
    (real,) = run(config).segments[0].real_runs
    assert real.error is None
    assert "another device, not compared" in str(run(config))


def test_calibration_measures_here_and_is_a_figure_afterwards(settings, box, tmp_path, monkeypatch):
    config = settings(segment="tiny", calibrate=True, calibrate_s=0.2, save=str(tmp_path / "mine.yaml"))
    report = run(config)
    (figure,) = read_throughputs(tmp_path / "mine.yaml")
    assert report.rate.seconds_per_tile[0] < 1 / figure.tiles_per_s < report.rate.seconds_per_tile[1]
    assert "measured now" in report.rate.source
    assert "money unknown" in str(report)
    monkeypatch.setenv(FIGURES_VARIABLE, str(tmp_path / "mine.yaml"))
    monkeypatch.setenv(RATE_VARIABLE, "36")
    again = run(settings(segment="tiny"))
    assert f"{figure.tiles_per_s:g} tiles/s" in again.rate.source
    assert again.price.usd((100, 200)) == {"stated": pytest.approx((1, 2))}


def test_what_cannot_be_reckoned_is_refused_with_a_cure(settings, box):
    with pytest.raises(ConfigError, match="give --calibrate"):
        run(settings(segment="tiny"))
    with pytest.raises(ConfigError, match="measures the device at hand"):
        run(settings(segment="tiny", machine="box", calibrate=True))
    with pytest.raises(ConfigError, match="not in the price table"):
        run(settings(segment="tiny", machine="bx"))


def test_devices_match_by_whole_words():
    assert is_same_device("L4", "NVIDIA L4")
    assert not is_same_device("L4", "NVIDIA L40S")
    assert is_same_device(machines()["p5.4xlarge"].device, "NVIDIA H100 80GB HBM3")
    assert is_same_device("AMD EPYC 7B13, 2 cores", "AMD EPYC, 2 cores")
    assert not is_same_device("AMD EPYC 7B13, 16 cores", "AMD EPYC, 2 cores")


def test_every_shipped_figure_says_when_and_where_it_was_seen(box):
    assert stored_throughputs()
    assert all(figure.as_of and figure.source for figure in stored_throughputs())


def test_the_command_line_prints_json(settings, box, figures, capsys):
    config = settings(segment="tiny", machine="box")
    arguments = ["estimate", "tiny", "--bundle", config.bundle, "--root", config.root, "--machine", "box"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--set", "unit_px=64", "--json"])
    assert stopped.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert document["segments"][0]["work"]["units"] == 12
    assert document["total"]["usd"]["on demand"][0] > 0
    with pytest.raises(SystemExit) as stopped:
        main(["estimate", "--bundle", config.bundle])
    assert stopped.value.code == 64
    assert "--all" in capsys.readouterr().err
    assert not Location.parse(Path(config.root) / "predictions").exists()


def test_a_job_under_a_minute_says_so_instead_of_digits(settings, box):
    text = str(run(settings(segment="tiny", machine="box")))
    assert "under a minute, under 0.6 USD" in text
    assert "MB/s makes it longer" not in text
