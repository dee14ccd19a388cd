"""The command line as a person meets it: exit codes, clear messages, no torch where none is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inkbatch.errors import EXIT_BUG, EXIT_CONFIG, EXIT_DATA, EXIT_TRY_AGAIN
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def layers(tmp_path) -> Path:
    return write_layers(tmp_path / "layers", random_papyrus((5, 90, 120)))


@pytest.fixture
def stated(tmp_path, layers) -> list[str]:
    return ["--root", tmp_path / "root", "--source", layers, "--set", "depth_order=forward", "--set", "voxel_size_um=8"]


def test_help_and_prepare_start_without_torch(stated):
    script = "import sys\nfrom inkbatch.cli.app import app\nfrom inkbatch.cli.outcome import run_command\n"
    script += "code = run_command(lambda: app(args=sys.argv[1:], standalone_mode=False))\n"
    script += "heavy = {'torch', 'transformers', 'segmentation_models_pytorch', 'matplotlib'} & set(sys.modules)\n"
    script += "sys.exit(f'imported {heavy}' if heavy else code)"
    for arguments in (["--help"], ["segments"], ["prepare", "tiny", *map(str, stated)]):
        result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


COMMANDS = [
    "prepare",
    "infer",
    "phantom",
    "export",
    "segments",
    "import-checkpoint",
    "import-promptable",
    "models",
    "bundle",
    "labels",
]
COMMANDS += ["round"]
COMMANDS += [
    "import-cvat",
    "label-versions",
    "export-labels",
    "import-labels",
    "vessels",
    "build-dataset",
    "train",
    "soup",
    "infer-pictures",
    "presets",
]
COMMANDS += [
    "ensemble",
    "evaluate",
    "clean",
    "instances",
    "evaluate-instances",
    "export-rle",
    "export-folders",
    "report",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(inkbatch, command):
    text = inkbatch(command, "--help").stdout
    assert "Usage" in text
    assert len(text.splitlines()) > 5


def test_the_whole_way_from_layers_to_picture(inkbatch, tmp_path, stated):
    identity_bundle(tmp_path / "bundle")
    inkbatch("prepare", "tiny", *stated)
    result = inkbatch("infer", "tiny", "--root", tmp_path / "root", "--bundle", tmp_path / "bundle", "--log", "json")
    assert "infer: complete" in result.stdout
    rows = [json.loads(line) for line in result.stderr.splitlines()]
    assert [row["event"] for row in rows] == ["start", "note", "unit", "note"]
    assert rows[1]["text"].startswith("picture so far: ")
    assert Path(rows[3]["text"].removeprefix("report: ")).name == "report.html"
    picture = result.stdout.split("picture: ")[1].split()[0]
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    inkbatch("export", "tiny", "--root", tmp_path / "root", "--to", tmp_path / "map.tif")
    assert (tmp_path / "map.tif").stat().st_size > 1000


def test_configs_from_a_file_and_from_set_are_one(inkbatch, tmp_path, stated):
    (tmp_path / "job.yaml").write_text("shard_px: 64\nintensity: keep\n")
    inkbatch("prepare", "tiny", *stated, "--config", tmp_path / "job.yaml", "--set", "codec=zstd")
    manifest = json.loads((tmp_path / "root/segments/tiny/prepare/manifest.json").read_text())
    assert (manifest["config"]["shard_px"], manifest["config"]["codec"]) == (64, "zstd")


def test_the_shipped_files_of_prepare_preflight_and_infer_run(inkbatch, tmp_path, stated):
    inkbatch("prepare", "tiny", *stated, "--config", REPOSITORY / "jobs/prepare.yaml")
    identity_bundle(tmp_path / "bundle")
    where = ["--root", tmp_path / "root", "--bundle", tmp_path / "bundle"]
    inkbatch("preflight", "tiny", *where, "--config", REPOSITORY / "jobs/preflight.yaml")
    inkbatch("infer", "tiny", *where, "--config", REPOSITORY / "jobs/infer.yaml")


def test_every_shipped_job_file_is_run_by_a_test():
    texts = [path.read_text() for path in (REPOSITORY / "tests/cli").glob("test_*.py")]
    for path in (REPOSITORY / "jobs").glob("*.yaml"):
        assert any(f"jobs/{path.name}" in text for text in texts), path


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["prepare"], EXIT_CONFIG, "Missing argument"),
        (["prepar"], EXIT_CONFIG, "No such command"),
        (["prepare", "nowhere"], EXIT_CONFIG, "not in the catalog; known are demo"),
        (["prepare", "dem"], EXIT_CONFIG, "did you mean 'demo'"),
        (["prepare", "../etc", "--source", "x"], EXIT_CONFIG, "an id is"),
        (["prepare", "demo", "--set", "shard_pix=3"], EXIT_CONFIG, "did you mean 'shard_px'"),
        (["prepare", "demo", "--set", "shard_px"], EXIT_CONFIG, "key=value"),
        (["prepare", "demo", "--memory", "2 bananas"], EXIT_CONFIG, "2GiB"),
        (["prepare", "demo", "--layers", "5"], EXIT_CONFIG, "START:STOP"),
        (["prepare", "demo", "--layers", "5:50"], EXIT_DATA, "0:13"),
        (["prepare", "demo", "--shard", "4/4"], EXIT_CONFIG, "first shard is 0"),
        (["prepare", "demo", "--config", "none.yaml"], EXIT_CONFIG, "none.yaml"),
        (["prepare", "demo", "--source", "/no/such/folder"], EXIT_DATA, "/no/such/folder"),
        (["infer", "demo", "--bundle", "/no/such/bundle"], EXIT_DATA, "run inkbatch prepare demo first"),
        (["infer", "demo"], EXIT_CONFIG, "'bundle' (--bundle) is required"),
        (["infer", "demo", "--bundle", "b", "--override", "divisor=]"], EXIT_CONFIG, "line 1: not YAML"),
        (["export", "demo"], EXIT_DATA, "demo"),
    ],
)
def test_refusals_have_a_code_and_say_what_to_do(inkbatch, tmp_path, arguments, code, words):
    root = [] if len(arguments) < 2 else ["--root", tmp_path / "root"]
    result = inkbatch(*arguments, *root, code=code, cwd=tmp_path)
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_users_catalog_wins_and_templates_serve_unlisted_segments(inkbatch, tmp_path, layers):
    (tmp_path / "segments.yaml").write_text(
        "defaults: {source: '{segment}', depth_order: forward, voxel_size_um: 8}\n"
        "segments:\n  '20231005123335': {source: layers, layers: [1, 4], depth_order: reversed}\n"
    )
    inkbatch("prepare", "20231005123335", "--root", "root", cwd=tmp_path)
    inkbatch("prepare", "layers", "--root", "root", cwd=tmp_path)
    manifest = json.loads((tmp_path / "root/segments/20231005123335/prepare/manifest.json").read_text())
    assert manifest["config"]["source_layers"] == [1, 4]
    assert manifest["config"]["depth_order"] == "reversed"
    assert "20231005123335" in inkbatch("segments", cwd=tmp_path).stdout


def test_a_catalog_with_a_number_as_id_or_a_wrong_key_is_refused(inkbatch, tmp_path):
    for text, words in [
        ("segments: {123: {source: a}}", "quotes"),
        ("segments: {a: {sauce: b}}", "did you mean 'source'"),
    ]:
        (tmp_path / "segments.yaml").write_text(text)
        assert words in inkbatch("segments", code=EXIT_CONFIG, cwd=tmp_path).stderr


def test_the_catalogs_schema_is_json(inkbatch):
    assert "segments" in json.loads(inkbatch("segments", "--schema").stdout)["properties"]


def test_the_schedulers_shard_is_taken(inkbatch, tmp_path, stated):
    result = inkbatch(
        "prepare", "tiny", *stated, "--set", "shard_px=64", INKBATCH_ARRAY_INDEX="1", INKBATCH_ARRAY_COUNT="3"
    )
    assert "still missing" in result.stdout
    assert "of 2 units" in result.stdout or "of 4 units" in result.stdout


def test_a_bug_of_ours_is_called_one(monkeypatch, capsys):
    from inkbatch.cli.outcome import run_command

    def broken():
        raise RuntimeError("oops")

    assert run_command(broken) == EXIT_BUG
    assert "bug in inkbatch" in capsys.readouterr().err


def test_storage_that_gives_up_is_worth_a_retry(capsys):
    from inkbatch.cli.outcome import run_command
    from inkbatch.errors import StorageError

    def failing():
        raise StorageError("s3://bucket/x: gave up")

    assert run_command(failing) == EXIT_TRY_AGAIN


def test_credentials_in_a_uri_are_refused_and_not_repeated(inkbatch, tmp_path):
    result = inkbatch("prepare", "demo", "--root", "s3://key:secret@bucket/x", code=EXIT_CONFIG, cwd=tmp_path)
    assert "secret" not in result.stderr + result.stdout


@pytest.mark.parametrize("arguments", [["infer", "s", "--layers", "9:3"], ["evaluate", "s", "--set", "betta=1"]])
def test_an_error_ends_with_the_help_of_its_command(inkbatch, tmp_path, arguments):
    said = inkbatch(*arguments, code=EXIT_CONFIG, cwd=tmp_path).stderr
    assert said.endswith(f"Try: inkbatch {arguments[0]} --help\n")
