"""Published files become state dicts: every file type, damaged files, hostile pickles."""

import argparse
import hashlib
import os
import pickle
from pathlib import Path, PosixPath

import fsspec
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from inkbatch.errors import EXIT_DATA, CorruptDataError, DataError
from inkbatch.models.importing import read_state_dict


def weights() -> dict[str, Tensor]:
    return {
        "encoder.weight": torch.arange(6.0).view(2, 3),
        "encoder.steps": torch.tensor(7),
        "logit.bias": torch.ones(1),
    }


def require_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        assert torch.equal(found[key], value)
        assert found[key].dtype == value.dtype


LIGHTNING = {"epoch": 13, "pytorch-lightning_version": "2.0.9", "hyper_parameters": {"enc": "i3d", "size": 64}}


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("last.ckpt", "state_dict"),
        ("net.pt", None),
        ("net.pth", "model_state_dict"),
        ("net.pth", "model"),
        ("pytorch_model.bin", None),
    ],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-torch-1.6"])
def test_torch_files_of_every_kind_are_read(tmp_path, name, section, zipped):
    whole = {**LIGHTNING, section: weights()} if section else weights()
    torch.save(whole, tmp_path / name, _use_new_zipfile_serialization=zipped)
    read = read_state_dict(tmp_path / name)
    require_equal(read.state_dict, weights())
    assert read.hyper_parameters == (LIGHTNING["hyper_parameters"] if section else {})
    assert read.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert read.source == str(tmp_path / name)


@pytest.mark.parametrize("name", ["model.safetensors", "misnamed.ckpt"])
def test_safetensors_are_read_by_content(tmp_path, name):
    safetensors.torch.save_file(weights(), tmp_path / name, metadata={"num_frames": "26"})
    read = read_state_dict(str(tmp_path / name))
    require_equal(dict(sorted(read.state_dict.items())), dict(sorted(weights().items())))
    assert read.hyper_parameters == {"num_frames": "26"}


def test_files_on_a_store_are_read():
    fsspec.filesystem("memory").pipe_file("/import-test/net.safetensors", safetensors.torch.save(weights()))
    read = read_state_dict("memory://import-test/net.safetensors")
    assert read.source == "memory://import-test/net.safetensors"
    assert torch.equal(read.state_dict["logit.bias"], torch.ones(1))


def test_training_objects_beside_the_weights_become_plain_values(tmp_path):
    """Lightning files hold whole schedulers with their optimisers, numpy numbers, namespaces, paths."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=5)
    settings = {
        "lr": np.float64(0.25),
        "big": np.float32(1.5).astype(">f4"),
        "steps": np.int64(9),
        "args": argparse.Namespace(enc="r152", sizes=(64, 256)),
        "folder": PosixPath("runs/one"),
        "loss": nn.BCEWithLogitsLoss(),
        "seen": {1, 2},
        "mean": np.ones(3),
    }
    whole = {
        "state_dict": weights(),
        "hyper_parameters": settings,
        "lr_schedulers": [scheduler],
        "optimizer": optimizer,
    }
    torch.save(whole, tmp_path / "x.ckpt")
    read = read_state_dict(tmp_path / "x.ckpt")
    require_equal(read.state_dict, weights())
    plain = read.hyper_parameters
    assert plain["args"] == {"enc": "r152", "sizes": [64, 256]}
    assert {key: plain[key] for key in ("lr", "big", "steps", "folder", "seen")} == {
        "lr": 0.25,
        "big": 1.5,
        "steps": 9,
        "folder": "runs/one",
        "seen": [1, 2],
    }
    assert plain["loss"] == "<torch.nn.modules.loss.BCEWithLogitsLoss>"
    assert isinstance(plain["mean"], str)


RAW_AND_AVERAGED = {"model": weights(), "ema_model": {key: value + 1 for key, value in weights().items()}, "step": 9}


def test_averaged_weights_are_chosen_by_name_and_never_guessed(tmp_path):
    torch.save(RAW_AND_AVERAGED, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"it holds weights under model and also holds ema_model; .* --weights NAME"):
        read_state_dict(tmp_path / "x.pth")
    for section, averaged in (("model", False), ("ema_model", True)):
        read = read_state_dict(tmp_path / "x.pth", section=section)
        require_equal(read.state_dict, RAW_AND_AVERAGED[section])
        assert (read.section, read.averaged) == (section, averaged)
    with pytest.raises(DataError, match="it holds nothing under ema; it holds ema_model, .*model"):
        read_state_dict(tmp_path / "x.pth", section="ema")


@pytest.mark.parametrize(
    ("kept", "name"),
    [
        ({"callbacks": {"EMA": {"ema_weights": list(weights().values())}}}, "callbacks.EMA.ema_weights"),
        ({"current_model_state": weights()}, "current_model_state"),
        ({"callbacks": {"EMA": {"shadow": weights()}}}, "callbacks.EMA.shadow"),
    ],
)
def test_averages_that_callbacks_keep_are_named_and_can_be_chosen(tmp_path, kept, name):
    torch.save({"state_dict": weights(), **kept}, tmp_path / "x.ckpt")
    with pytest.raises(DataError, match=f"weights under state_dict and also holds {name}"):
        read_state_dict(tmp_path / "x.ckpt")
    require_equal(read_state_dict(tmp_path / "x.ckpt", section="state_dict").state_dict, weights())


def test_copies_under_other_names_are_listed_and_can_be_chosen(tmp_path):
    torch.save({"teacher": weights(), "student": {"net": weights(), "rate": 0.9}}, tmp_path / "x.pth")
    with pytest.raises(DataError, match="it holds weights under teacher; .*--weights NAME"):
        read_state_dict(tmp_path / "x.pth")
    require_equal(read_state_dict(tmp_path / "x.pth", section="student.net").state_dict, weights())


def test_averaged_weights_alone_are_taken_and_named(tmp_path):
    torch.save({"ema_model": weights(), "weight_source": "ema_model"}, tmp_path / "x.pth")
    read = read_state_dict(tmp_path / "x.pth")
    require_equal(read.state_dict, weights())
    assert read.averaged


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_averaged_weights_beside_raw_ones_in_one_state_dict_are_chosen_by_name(tmp_path, suffix):
    both = {f"model.{key}": value for key, value in weights().items()}
    both |= {f"ema_model.{key}": value + 1 for key, value in weights().items()}
    path = tmp_path / f"x.{suffix}"
    (safetensors.torch.save_file if suffix == "safetensors" else torch.save)(both, path)
    with pytest.raises(DataError, match="weights under model and also holds ema_model"):
        read_state_dict(path)
    found = read_state_dict(path, section="ema_model").state_dict
    assert torch.equal(found["logit.bias"], weights()["logit.bias"] + 1)


def test_the_settings_of_a_payload_are_read(tmp_path):
    torch.save({"model": weights(), "config": {"patch_size": [17, 128, 128]}, "step": 75000}, tmp_path / "x.pth")
    assert read_state_dict(tmp_path / "x.pth").hyper_parameters == {"patch_size": [17, 128, 128], "step": 75000}


def test_names_of_one_file_are_not_trusted_in_the_next(tmp_path):
    before = torch.serialization.get_safe_globals()
    torch.save({"state_dict": weights(), "args": argparse.Namespace()}, tmp_path / "x.ckpt")
    read_state_dict(tmp_path / "x.ckpt")
    assert torch.serialization.get_safe_globals() == before


class Payload:
    """Unpickled, it calls what it was given."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def save_zip(whole, path):
    torch.save(whole, path)


def save_legacy(whole, path):
    torch.save(whole, path, _use_new_zipfile_serialization=False)


def save_bare(whole, path):
    path.write_bytes(pickle.dumps(whole, protocol=2))


def save_protocol_4(whole, path):
    torch.save(whole, path, pickle_protocol=4)


SAVERS = [save_zip, save_legacy, save_bare, save_protocol_4]


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize(
    "call",
    [lambda m: (os.system, f"touch {m}"), lambda m: (eval, f"open({str(m)!r}, 'w')"), lambda m: (open, str(m), "w")],
)
@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, save, call, place):
    marker = tmp_path / "was-run"
    save({"state_dict": weights(), place: {"x": Payload(*call(marker))}}, tmp_path / "hostile.ckpt")
    with pytest.raises(DataError, match=r"program its author put into it.*--trust-pickle") as caught:
        read_state_dict(tmp_path / "hostile.ckpt")
    assert caught.value.exit_code == EXIT_DATA
    assert not marker.exists()


def test_the_payloads_of_these_tests_do_run_when_unpickled(tmp_path):
    marker = tmp_path / "was-run"
    save_zip({"x": Payload(os.system, f"touch {marker}")}, tmp_path / "hostile.ckpt")
    torch.load(tmp_path / "hostile.ckpt", weights_only=False)
    assert marker.exists()


def test_a_refusal_names_what_the_file_calls_for(tmp_path):
    save_zip({"state_dict": weights(), "x": Payload(eval, "1")}, tmp_path / "hostile.ckpt")
    with pytest.raises(DataError, match=r"hostile\.ckpt: cannot be read as plain weights: it calls for eval\."):
        read_state_dict(tmp_path / "hostile.ckpt")


def test_functions_of_training_modules_are_not_called_either(tmp_path, monkeypatch):
    """`torch.nn.…` names get a stand-in: the real ones may load, download or compile things."""
    calls = []
    save_zip({"state_dict": weights(), "x": Payload(nn.init.ones_, torch.zeros(2))}, tmp_path / "x.ckpt")
    monkeypatch.setattr(nn.init, "ones_", calls.append)
    require_equal(read_state_dict(tmp_path / "x.ckpt").state_dict, weights())
    assert calls == []
    torch.load(tmp_path / "x.ckpt", weights_only=False)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "whole",
    [
        nn.Linear(2, 2),
        {"state_dict": {"w": torch.ones(1), "net": nn.Linear(1, 1)}},
        {"state_dict": {"w": np.ones(2)}},
        {"epoch": 3},
        [torch.ones(1)],
        {},
    ],
    ids=["whole-network", "network-among-weights", "numpy-weights", "no-weights", "list", "empty"],
)
def test_what_is_no_plain_weights_is_refused(tmp_path, whole):
    torch.save(whole, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"x\.pt: (no|cannot be read as) plain weights"):
        read_state_dict(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_file_that_was_read_is_not_called_dangerous(tmp_path):
    torch.save({"net": weights(), "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="it holds weights under net; name the ones to take with --weights") as caught:
        read_state_dict(tmp_path / "x.pt")
    assert "--trust-pickle" not in str(caught.value)
    assert "differ" not in str(caught.value)
    assert read_state_dict(tmp_path / "x.pt", section="net").section == "net"


@pytest.mark.parametrize("content", [[1, 2, 3], "weights", torch.ones(3)], ids=["list", "text", "tensor"])
def test_plain_values_without_weights_are_not_called_dangerous(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(DataError, match=f"no plain weights: it holds a {type(content).__name__}") as caught:
        read_state_dict(tmp_path / "x.pt")
    assert "--trust-pickle" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_is_refused_for_what_is_wrong_with_it(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": "x" * 100}, protocol=4))
    with pytest.raises(DataError, match=r"cannot be read as plain weights: Unsupported operand 149\. Unpickling it"):
        read_state_dict(tmp_path / "x.pkl")


def test_torchscript_is_refused_by_name(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "x.pt")
    with pytest.raises(DataError, match="TorchScript program"):
        read_state_dict(tmp_path / "x.pt")


def damage_zip(path: Path) -> None:
    torch.save(weights(), path)
    path.write_bytes(path.read_bytes()[:-100])


def damage_record(path: Path) -> None:
    torch.save(weights(), path)
    path.write_bytes(path.read_bytes().replace(b"data.pkl", b"date.pkl"))


def damage_legacy(path: Path) -> None:
    save_legacy(weights(), path)
    path.write_bytes(path.read_bytes()[:-20])


def damage_safetensors(path: Path) -> None:
    path.write_bytes(safetensors.torch.save(weights())[:-4])


@pytest.mark.parametrize("damage", [damage_zip, damage_record, damage_legacy, damage_safetensors])
def test_a_damaged_file_is_named_as_such(tmp_path, damage):
    damage(tmp_path / "x.ckpt")
    with pytest.raises(CorruptDataError, match=r"x\.ckpt: .*fetch it again"):
        read_state_dict(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", "but empty"),
        (b"<html>not found</html>", "but a web page"),
        (b"<!DOCTYPE html><title>Google Drive</title>", "but a web page"),
        (b"version https://git-lfs", "but a Git LFS pointer"),
        (b"weights", "or its end is missing"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, finding):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CorruptDataError, match=f"neither a torch checkpoint nor a safetensors file, {finding}"):
        read_state_dict(tmp_path / "x.ckpt")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.ckpt: the checkpoint cannot be opened"):
        read_state_dict(tmp_path / "absent.ckpt")
    with pytest.raises(DataError, match="a folder; name the checkpoint file"):
        read_state_dict(tmp_path)
