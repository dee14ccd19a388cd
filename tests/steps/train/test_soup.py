import io
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from inkbatch.cli.app import app
from inkbatch.errors import DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle
from inkbatch.run.finished import open_run
from inkbatch.run.job import RunContext
from inkbatch.steps.train import soup, soup_page
from inkbatch.testing import report_runs
from inkbatch.training.checkpoints import CheckpointStore
from inkbatch.training.finish import checkpoint_weights


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soup")
    report_runs.averaged(folder)
    return folder / "root"


@pytest.fixture
def root(averaged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(averaged, tmp_path / "root"))


def config(root: Path, **changes: object) -> soup.SoupConfig:
    return soup.SoupConfig.checked({"run": "first", "root": str(root), "last": 2, "device": "cpu", **changes}, "soup")


def store(root: Path) -> CheckpointStore:
    return CheckpointStore(Location.parse(root / "runs/first/checkpoints"))


def test_the_bundle_holds_the_mean_of_the_checkpoints(averaged):
    members = [checkpoint_weights(store(averaged).load(entry)) for entry in store(averaged).pointer().epochs]
    assert len(members) == 2
    found = Bundle.open(Location.parse(averaged / "runs/first-soup-2/bundle")).build().state_dict()
    trained = [name for name, tensor in found.items() if tensor.is_floating_point() and "running_" not in name]
    for name in trained:
        expected = sum(member[name].double() for member in members) / 2
        torch.testing.assert_close(found[name], expected.to(found[name].dtype), rtol=0, atol=0)
    renewed = [name for name in found if name.endswith("running_mean")]
    assert renewed
    assert any(not torch.equal(found[name], members[0][name]) for name in renewed)


def test_scores_of_members_are_those_of_their_epochs(averaged):
    found = (Location.parse(averaged) / "runs/first-soup-2/soup.json").read_json()
    rows = (averaged / "runs/first/metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("f05")
    of_epoch = {row.split(",")[0]: float(row.split(",")[column]) for row in rows[1:] if ",overall," in row}
    for member in found["members"]:
        assert member["f05"] == pytest.approx(of_epoch[str(member["epoch"])], abs=1e-6)
    assert 0 < found["scores"]["overall"]["auc"] < 1


def test_the_page_warns_of_a_soup_that_is_worse_than_its_best_member(root):
    run = open_run(str(root / "runs/first-soup-2"))
    place = run.folder / "soup.json"
    found = place.read_json()
    found["members"][0]["f05"], found["scores"]["overall"]["f05"] = 0.5, 0.4
    place.write_json(found)
    warned = soup_page.page(run, Location.parse(root)).warnings
    assert warned[0].startswith("The soup scores lower than its best member (F0.5 0.400 against 0.500)")
    found["scores"]["overall"]["f05"] = 0.6
    place.write_json(found)
    assert soup_page.page(run, Location.parse(root)).warnings[0].startswith("One run is one measurement")


def test_its_bundle_says_what_trained_it(averaged):
    first = Bundle.open(Location.parse(averaged / "runs/first/bundle")).document
    mean = Bundle.open(Location.parse(averaged / "runs/first-soup-2/bundle")).document
    assert mean.training["pixels"] == first.training["pixels"]
    assert (mean.training["soup_of"], mean.training["epochs"]) == ("first", [2, 1])
    assert mean.name == "first-soup-2"


def test_the_same_command_again_does_nothing_and_another_name_gives_equal_weights(root):
    assert soup.run(config(root, statistics_steps=2), RunContext()).stored == 0
    soup.run(config(root, statistics_steps=2, name="again"), RunContext())
    weights = [(root / "runs" / name / "bundle/weights.safetensors").read_bytes() for name in ("first-soup-2", "again")]
    assert weights[0] == weights[1]


def test_a_file_of_the_bundle_that_is_lost_is_made_again(root):
    weights = root / "runs/first-soup-2/bundle/weights.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1])
    assert soup.run(config(root, statistics_steps=2), RunContext()).stored == 1
    assert weights.read_bytes() == kept


def test_fewer_checkpoints_than_asked_for_are_refused_with_the_setting(root):
    with pytest.raises(MismatchError, match="expected checkpoints of the last 3 epochs, got 2; .* keep_epochs=3"):
        soup.make_plan_of_soup(config(root, last=3))


def test_weights_of_another_seed_are_refused(root):
    kept = store(root)
    newest, older = kept.pointer().epochs
    state = kept.load(older)
    torch.manual_seed(99)
    for name, tensor in state["net"].items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            state["net"][name] = torch.randn_like(tensor)
    kept.keep_epochs = 2
    kept.save(state, older.step, older.epoch, ends_epoch=True)
    kept.save(kept.load(newest), newest.step, newest.epoch, ends_epoch=True)
    with pytest.raises(MismatchError, match=r"epochs 2 and 1 have a cosine of -?0\.\d+, expected at least"):
        soup.run(config(root, name="mixed"), RunContext())
    assert not (root / "runs/mixed/complete.json").exists()


def test_a_checkpoint_that_is_gone_is_named(root):
    entry = store(root).pointer().epochs[1]
    (root / "runs/first/checkpoints" / entry.file).unlink()
    with pytest.raises(DataError, match=f"{entry.file}: this checkpoint is gone"):
        soup.run(config(root, name="other"), RunContext())


def test_checkpoints_of_epochs_are_kept_beside_the_last_two(tmp_path):
    kept = CheckpointStore(Location.parse(tmp_path), keep_epochs=3)
    for epoch in range(1, 6):
        kept.save({"epoch": epoch, "half": 1}, epoch * 10 - 5, epoch)
        kept.save({"epoch": epoch}, epoch * 10, epoch, ends_epoch=True)
    assert [entry.epoch for entry in kept.pointer().epochs] == [5, 4, 3]
    assert all(
        torch.load(io.BytesIO((tmp_path / one.file).read_bytes()))["epoch"] == one.epoch
        for one in kept.pointer().epochs
    )
    assert len(list(tmp_path.glob("step-*.ckpt"))) == 4


def test_the_command_says_what_it_would_average(averaged):
    words = ["soup", "first", "--last", "2", "--root", str(averaged), "--name", "dry", "--dry-run"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "mean of the weights after epochs 1, 2" in result.output
