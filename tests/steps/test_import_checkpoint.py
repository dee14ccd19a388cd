"""Published files become bundles: every preset, every kind of source, every refusal."""

import hashlib
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from inkbatch.errors import (
    EXIT_CONFIG,
    ConfigError,
    CorruptDataError,
    DataError,
    MismatchError,
    NonFiniteError,
    StorageError,
)
from inkbatch.io.store.location import Location
from inkbatch.models import hub
from inkbatch.models.bundle import Bundle
from inkbatch.steps.import_checkpoint import ImportConfig, run
from inkbatch.testing.golden import Golden
from inkbatch.testing.published import TINY_PRESET, tiny_published, write_checkpoint, write_preset

GOLDEN_FOLDER = Path(__file__).parent.parent / "models" / "golden"


@pytest.fixture
def golden():
    """Read a golden fixture by its name."""
    return lambda name: Golden.read(GOLDEN_FOLDER, name)


@pytest.fixture
def preset(tmp_path):
    """A preset of one's own, for a network that is small."""
    file = tmp_path / "tiny.yaml"
    write_preset(file)
    return str(file)


@pytest.fixture
def published():
    """The network whose weights are published."""
    return tiny_published()


@pytest.fixture
def checkpoint(tmp_path, published):
    """Its Lightning file."""
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, published)
    return str(path)


def save_changed(checkpoint: str, **changes: torch.Tensor | None) -> None:
    whole = torch.load(checkpoint, weights_only=True)
    changed = whole["state_dict"] | {key.replace("__", "."): value for key, value in changes.items()}
    whole["state_dict"] = {key: value for key, value in changed.items() if value is not None}
    torch.save(whole, checkpoint)


def test_a_bundle_answers_like_the_published_network(tmp_path, checkpoint, preset, published):
    lines = run(ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset))
    assert lines[-1] == f"bundle: {tmp_path / 'bundle'}"
    assert "3 layers (17:20), tile 32, stride 16, divided by 255" in lines[0]
    bundle = Bundle.open(Location.parse(tmp_path / "bundle"))
    subvolume = torch.rand(2, 1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(bundle.build()(subvolume), published(subvolume))


def test_the_bundle_says_where_it_came_from(tmp_path, checkpoint, preset):
    lines = run(ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset))
    document = Bundle.open(Location.parse(tmp_path / "bundle")).document
    assert (document.name, document.architecture, document.contract.divisor) == ("tiny", "timesformer", 255)
    assert document.source["uri"] == checkpoint
    assert f"sha256 {document.source['sha256']}" in lines[-2]
    assert document.source["hyper_parameters"] == {"size": 32, "enc": "i3d", "pred_shape": [9, 9]}
    assert document.source["preset"] == "tiny"
    assert document.source["changed"] == {}
    assert "divide by 255" in document.training["training"]


def test_work_is_counted_as_a_real_pass_has_it(tmp_path, checkpoint, preset, published):
    from torch.utils.flop_counter import FlopCounterMode

    run(ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        published(torch.zeros(1, 1, 3, 32, 32))
    document = Bundle.open(Location.parse(tmp_path / "bundle")).document
    assert document.flops_per_tile == counter.get_total_flops() > 0


def test_changes_reach_the_contract_and_are_written_down(tmp_path, checkpoint, preset):
    config = ImportConfig.load(
        None,
        [
            "contract.divisor=200",
            "contract.layers.source_range=[0, 4]",
            "contract.layers.count=4",
            "model.depth_layers=4",
        ],
        {"source": checkpoint, "dest": str(tmp_path / "bundle"), "preset": preset, "name": "mine"},
    )
    run(config)
    document = Bundle.open(Location.parse(tmp_path / "bundle")).document
    assert document.name == "mine"
    assert document.contract.divisor == 200
    assert (document.contract.layers.count, document.contract.layers.source_range) == (4, (0, 4))
    assert document.contract.stride_px == 16
    assert document.model["depth_layers"] == 4
    assert document.source["changed"] == {
        "model": {"depth_layers": 4},
        "contract": {"divisor": 200, "layers": {"source_range": [0, 4], "count": 4}},
    }


class TestDestination:
    def test_the_same_import_again_does_nothing(self, tmp_path, checkpoint, preset):
        config = ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset)
        run(config)
        weights = tmp_path / "bundle" / "weights.safetensors"
        before = weights.stat().st_mtime_ns
        assert run(config)[-1] == f"bundle: already at {tmp_path / 'bundle'}, nothing to do"
        assert weights.stat().st_mtime_ns == before

    def test_other_weights_of_the_same_file_are_another_bundle(self, tmp_path, checkpoint, preset):
        found = torch.load(checkpoint, weights_only=True)
        weights = found.get("state_dict", found)
        other = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        torch.save({"model": weights, "ema_model": other}, tmp_path / "two.pt")
        config = ImportConfig(
            source=str(tmp_path / "two.pt"), dest=str(tmp_path / "bundle"), preset=preset, weights="model"
        )
        run(config)
        assert "nothing to do" in run(config)[-1]
        with pytest.raises(ConfigError, match=r"it differs in weights \(of several copies in one file\)"):
            run(config.model_copy(update={"weights": "ema_model"}))

    @pytest.mark.parametrize("name", ["weights.safetensors", "reference.safetensors"])
    def test_a_bundle_that_lost_a_file_is_imported_again(self, tmp_path, checkpoint, preset, name):
        config = ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset)
        run(config)
        place = tmp_path / "bundle" / name
        before = place.read_bytes()
        place.write_bytes(before[:-1])
        assert "nothing to do" not in run(config)[-1]
        assert place.read_bytes() == before

    def test_the_same_file_from_another_place_is_the_same_bundle(self, tmp_path, checkpoint, preset):
        run(ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset))
        copy = tmp_path / "copy.ckpt"
        copy.write_bytes((tmp_path / "last.ckpt").read_bytes())
        assert "nothing to do" in run(ImportConfig(source=str(copy), dest=str(tmp_path / "bundle"), preset=preset))[-1]

    @pytest.mark.parametrize(
        ("changes", "differing"),
        [({"contract": {"divisor": 200}}, r"contract\.divisor"), ({"name": "other"}, "name")],
    )
    def test_another_bundle_is_never_overwritten(self, tmp_path, checkpoint, preset, changes, differing):
        config = ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset)
        run(config)
        before = (tmp_path / "bundle" / "bundle.json").read_bytes()
        with pytest.raises(
            ConfigError, match=rf"another bundle already exists there, it differs in {differing};"
        ) as caught:
            run(config.model_copy(update=changes))
        assert caught.value.exit_code == EXIT_CONFIG
        assert (tmp_path / "bundle" / "bundle.json").read_bytes() == before
        assert f"--replace: removed the bundle at {config.dest}" in run(config.model_copy(update=changes), replace=True)
        assert "nothing to do" in run(config.model_copy(update=changes))[-1]

    def test_other_weights_are_another_bundle(self, tmp_path, checkpoint, preset, published):
        config = ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset)
        run(config)
        save_changed(checkpoint, backbone__cls_token=torch.ones(1, 24))
        with pytest.raises(ConfigError, match=r"differs in source\.sha256;"):
            run(config)

    def test_an_import_that_was_killed_half_way_is_finished(self, tmp_path, checkpoint, preset):
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "weights.safetensors").write_bytes(b"half")
        run(ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset))
        Bundle.open(Location.parse(tmp_path / "bundle")).build()

    @pytest.mark.parametrize("root", ["memory_root", "s3_root"])
    def test_a_bundle_may_lie_on_a_store(self, request, checkpoint, preset, root):
        dest = request.getfixturevalue(root) / "bundle"
        config = ImportConfig(source=checkpoint, dest=dest.uri, preset=preset)
        run(config)
        Bundle.open(dest).build()
        assert "nothing to do" in run(config)[-1]

    def test_a_folder_with_a_damaged_bundle_is_not_taken(self, tmp_path, checkpoint, preset):
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "bundle.json").write_text("{}", encoding="utf-8")
        config = ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset)
        with pytest.raises(DataError, match="not a valid bundle"):
            run(config)
        run(config, replace=True)
        Bundle.open(Location.parse(tmp_path / "bundle")).build()


class TestSources:
    def test_safetensors_with_a_prefix(self, tmp_path, preset, published):
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file({f"model.{key}": value for key, value in published.state_dict().items()}, path)
        run(ImportConfig(source=str(path), dest=str(tmp_path / "bundle"), preset=preset))
        assert Bundle.open(Location.parse(tmp_path / "bundle")).build().config == published.config

    def test_a_file_on_s3(self, tmp_path, checkpoint, preset, s3_root):
        (s3_root / "net.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes())
        lines = run(ImportConfig(source=f"{s3_root}/net.ckpt", dest=str(tmp_path / "bundle"), preset=preset))
        assert f"source: {s3_root}/net.ckpt" in lines[-2]

    def test_a_file_on_the_web_is_fetched_once(self, tmp_path, checkpoint, preset, web):
        content = (tmp_path / "last.ckpt").read_bytes()
        (tmp_path / "web" / "net.ckpt").write_bytes(content)
        run(ImportConfig(source=f"{web.url}/net.ckpt", dest=str(tmp_path / "bundle"), preset=preset))
        assert web.served_bytes <= len(content) + 1
        assert Bundle.open(Location.parse(tmp_path / "bundle")).document.source["uri"] == f"{web.url}/net.ckpt"

    def test_a_file_of_the_hub_is_recorded_with_its_commit(self, tmp_path, checkpoint, preset, monkeypatch):
        commit = "a" * 40

        def fetched(reference):
            pinned = hub.HubReference(reference.repo, "last.ckpt", commit)
            return hub.HubFile(tmp_path / "last.ckpt", pinned, {"num_frames": 18})

        monkeypatch.setattr(hub, "fetch", fetched)
        lines = run(ImportConfig(source="hf://owner/net", dest=str(tmp_path / "bundle"), preset=preset))
        source = Bundle.open(Location.parse(tmp_path / "bundle")).document.source
        assert (source["uri"], source["revision"]) == (f"hf://owner/net/last.ckpt@{commit}", commit)
        assert source["config"] == {"num_frames": 18}
        assert (
            "note: the checkpoint's own num_frames is 18, the bundle's number of layers is 3; check which one is right"
            in lines
        )

    def test_a_file_whose_digest_is_written_down_is_recognised(self, tmp_path, checkpoint, preset):
        digest = hashlib.sha256((tmp_path / "last.ckpt").read_bytes()).hexdigest()
        published = [{"where": "hf://owner/net", "sha256": digest}]
        (tmp_path / "known.yaml").write_text(yaml.safe_dump({**TINY_PRESET, "published": published}), encoding="utf-8")
        known = ImportConfig(source=checkpoint, dest=str(tmp_path / "a"), preset=str(tmp_path / "known.yaml"))
        assert run(known)[-2].endswith(f"sha256 {digest}, as published at hf://owner/net")
        assert run(ImportConfig(source=checkpoint, dest=str(tmp_path / "b"), preset=preset))[-2].endswith(digest)

    @pytest.mark.parametrize(
        ("source", "error"), [("absent.ckpt", DataError), ("http://127.0.0.1:9/absent.ckpt", StorageError)]
    )
    def test_nothing_is_written_when_the_source_cannot_be_read(self, tmp_path, preset, source, error, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("inkbatch.io.store.retrying.RETRY_DELAYS_S", ())
        with pytest.raises(error, match=r"absent\.ckpt"):
            run(ImportConfig(source=source, dest=str(tmp_path / "bundle"), preset=preset))
        assert not (tmp_path / "bundle").exists()

    def test_a_pickle_that_would_run_a_program_is_refused(self, tmp_path, preset):
        torch.save({"state_dict": {"x": torch.zeros(1)}, "callback": print}, tmp_path / "evil.ckpt")
        with pytest.raises(DataError, match=r"program its author put into it.*--trust-pickle"):
            run(ImportConfig(source=str(tmp_path / "evil.ckpt"), dest=str(tmp_path / "bundle"), preset=preset))

    def test_the_flag_that_allows_it_reaches_the_reader(self, tmp_path, checkpoint, preset, monkeypatch):
        from inkbatch.steps import import_checkpoint as step

        asked = []
        read = step.read_state_dict

        def noted(location, *, section, trust_pickle):
            asked.append(trust_pickle)
            return read(location)

        monkeypatch.setattr(step, "read_state_dict", noted)
        config = ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset)
        run(config)
        run(config.model_copy(update={"trust_pickle": True}))
        assert asked == [False, True]


class TestRefusals:
    @pytest.fixture
    def refused(self, tmp_path, checkpoint, preset):
        """Run an import that must fail, and check that nothing was written."""

        def check(error, match, **changes):
            config = ImportConfig(source=checkpoint, dest=str(tmp_path / "bundle"), preset=preset)
            with pytest.raises(error, match=match) as caught:
                run(config.model_copy(update=changes))
            assert not (tmp_path / "bundle").exists()
            return str(caught.value)

        return check

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"backbone__cls_token": None}, r"1 missing: backbone\.cls_token"),
            ({"aux__weight": torch.ones(1)}, r"1 unexpected: aux\.weight"),
            (
                {"backbone__cls_token": torch.ones(2, 24)},
                r"1 misshapen: backbone\.cls_token \(model \(1, 24\), file \(2, 24\)\)",
            ),
        ],
    )
    def test_keys_that_do_not_fit_are_listed(self, refused, checkpoint, changes, message):
        save_changed(checkpoint, **changes)
        refused(MismatchError, message)

    def test_weights_that_are_no_numbers_are_named(self, refused, checkpoint):
        save_changed(checkpoint, backbone__cls_token=torch.full((1, 24), math.nan))
        refused(NonFiniteError, r"NaN or infinity in the weights backbone\.cls_token")

    def test_a_checkpoint_of_another_network_is_recognised(self, refused):
        message = refused(MismatchError, "it looks like timesformer", preset="i3d-first-letters")
        assert "preset timesformer-gp or timesformer-gp-by200" in message

    def test_a_damaged_file_is_named(self, refused, checkpoint, tmp_path):
        (tmp_path / "last.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:-200])
        refused(CorruptDataError, "fetch it again")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"preset": "timesformer"},
                r"preset 'timesformer': there is none of that name; did you mean 'timesformer-",
            ),
            ({"contract": {"divisr": 200}}, r"the contract has no key 'divisr'; did you mean 'divisor'\?"),
            ({"contract": {"divisor": -1}}, "divisor: expected a number above 0, got -1"),
            ({"contract": {"layers": {"count": 4}}}, r"source_range \(17, 20\) does not hold 4 layers"),
            ({"contract": {"tile_px": 64}}, "made for tiles of 32 px, got 64 x 64 px"),
            ({"model": {"depth_layers": 4}}, r"the contract gives 3 layers, model\.depth_layers is 4"),
            ({"model": {"dept": 4}}, "config of timesformer does not validate"),
        ],
    )
    def test_settings_that_do_not_go_together_are_refused(self, refused, changes, message):
        refused(ConfigError, message, **changes)

    def test_a_preset_that_contradicts_the_weights_names_both(self, refused):
        refused(MismatchError, "dim: preset tiny says 32, the weights say 24", model={"dim": 32})


def test_the_wrong_size_of_a_network_names_other_presets(tmp_path, golden):
    shapes = golden("resnet3d-50").shapes
    weights = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}  # one number on the disk
    torch.save(weights, tmp_path / "fifty.pth")
    with pytest.raises(
        MismatchError, match=r"resnet: preset resnet3d-101-gp says 101, the weights say 50; import it as"
    ) as e:
        run(ImportConfig(source=str(tmp_path / "fifty.pth"), dest=str(tmp_path / "bundle"), preset="resnet3d-101-gp"))
    assert "resnet3d-50-pherc1667" in str(e.value)


def test_hyper_parameters_that_say_otherwise_are_shown(tmp_path, preset, published):
    settings = {"size": 256, "num_frames": 30, "in_chans": 3, "enc": "i3d", "lr": math.inf}
    torch.save({"state_dict": published.state_dict(), "hyper_parameters": settings}, tmp_path / "x.ckpt")
    lines = run(ImportConfig(source=str(tmp_path / "x.ckpt"), dest=str(tmp_path / "bundle"), preset=preset))
    notes = [line for line in lines if line.startswith("note: ")]
    assert notes == [
        "note: the checkpoint's own size is 256, the bundle's tile is 32; check which one is right",
        "note: the checkpoint's own num_frames is 30, the bundle's number of layers is 3; check which one is right",
    ]
    assert Bundle.open(Location.parse(tmp_path / "bundle")).document.source["hyper_parameters"]["lr"] == "inf"


def test_half_precision_weights_become_the_network_s_own(tmp_path, preset, published):
    torch.save({key: value.half() for key, value in published.state_dict().items()}, tmp_path / "x.pt")
    run(ImportConfig(source=str(tmp_path / "x.pt"), dest=str(tmp_path / "bundle"), preset=preset))
    model = Bundle.open(Location.parse(tmp_path / "bundle")).build()
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
