"""Unpickling on request: the program runs, and what it must not reach is out of its reach."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from inkbatch.errors import EXIT_CONFIG, ConfigError, DataError
from inkbatch.models import unpickling, untrusted
from inkbatch.models.importing import read_state_dict
from inkbatch.models.stub_modules import names_in

PROBE = [sys.executable, "-I", unpickling.__file__, "/absent", "/absent", "60", "[]"]
CAN_ISOLATE = subprocess.run(PROBE, check=False, capture_output=True).returncode != unpickling.EXIT_NO_ISOLATION
needs_isolation = pytest.mark.skipif(not CAN_ISOLATE, reason="this system allows no user namespaces")


class Program:
    """Unpickled, it runs Python source."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self):
        return exec, (self.source, {})


def checkpoint(folder: Path, program: str) -> Path:
    path = folder / "trusted.ckpt"
    whole = {"program": Program(program), "state_dict": {"w": torch.arange(3.0)}, "hyper_parameters": {"size": 64}}
    torch.save(whole, path)
    return path


@needs_isolation
def test_with_the_flag_the_weights_are_read_and_the_program_runs(tmp_path):
    marker = tmp_path / "was-run"
    path = checkpoint(tmp_path, f"open({str(marker)!r}, 'w')")
    with pytest.raises(DataError, match="--trust-pickle"):
        read_state_dict(path)
    assert not marker.exists()
    read = read_state_dict(path, trust_pickle=True)
    assert marker.exists()
    assert torch.equal(read.state_dict["w"], torch.arange(3.0))
    assert read.hyper_parameters == {"size": 64}


@needs_isolation
def test_whole_networks_are_read_with_the_flag(tmp_path):
    net = torch.nn.Linear(2, 2)
    torch.save(net, tmp_path / "x.pt")
    read = read_state_dict(tmp_path / "x.pt", trust_pickle=True)
    assert torch.equal(read.state_dict["weight"], net.weight)


def test_the_flag_changes_nothing_for_plain_weights(tmp_path, monkeypatch):
    torch.save({"w": torch.ones(1)}, tmp_path / "x.pt")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert read_state_dict(tmp_path / "x.pt", trust_pickle=True).state_dict.keys() == {"w"}


REPORT = """
import json, os, socket
def reach(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return True
    except OSError:
        return False
def see(pid):
    try:
        os.kill(pid, 0)
        return True
    except OSError:
        return False
def environment_of(pid):
    try:
        return open(f"/proc/{pid}/environ", "rb").read().decode()
    except OSError:
        return ""
json.dump({"reached": reach(PORT), "sees": see(PID), "theirs": environment_of(PID), "pid": os.getpid(),
           "environment": dict(os.environ), "home": os.listdir(os.path.expanduser("~"))}, open(REPORT_FILE, "w"))
"""


@needs_isolation
def test_the_program_reaches_no_network_no_process_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    report = tmp_path / "report.json"
    keeper = subprocess.Popen(["sleep", "60"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = (
            REPORT.replace("PORT)", f"{port})")
            .replace("PID", str(keeper.pid))
            .replace("REPORT_FILE", repr(str(report)))
        )
        socket.create_connection(("127.0.0.1", port), timeout=2).close()  # from here it can be reached
        read_state_dict(checkpoint(tmp_path, program), trust_pickle=True)
    keeper.kill()
    keeper.wait()
    seen = json.loads(report.read_text())
    assert not seen["reached"]
    assert not seen["sees"]
    assert seen["pid"] == 1
    assert seen["home"] == []
    assert "a-secret" not in json.dumps(seen)
    assert set(seen["environment"]) <= {
        "HOME",
        "TMPDIR",
        "PATH",
        "LANG",
        "OMP_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES",
        "LD_LIBRARY_PATH",
        "LC_CTYPE",
    }


BEATING = """
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        open(BEATS_FILE, "a").write(".")
        time.sleep(0.05)
while not os.path.exists(BEATS_FILE):
    time.sleep(0.01)
"""


@needs_isolation
def test_what_the_program_leaves_running_ends_with_it(tmp_path):
    beats = tmp_path / "beats"
    program = BEATING.replace("BEATS_FILE", repr(str(beats)))
    read_state_dict(checkpoint(tmp_path, program), trust_pickle=True)
    size = beats.stat().st_size
    time.sleep(0.3)
    assert beats.stat().st_size == size


@needs_isolation
def test_a_program_without_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "LIMIT_S", 1)
    with pytest.raises(DataError, match="did not end within 1 s"):
        read_state_dict(checkpoint(tmp_path, "import time; time.sleep(600)"), trust_pickle=True)


def test_without_isolation_nothing_is_unpickled(tmp_path, monkeypatch):
    marker = tmp_path / "was-run"
    script = tmp_path / "unpickling.py"
    source = Path(unpickling.__file__).read_text(encoding="utf-8")
    broken = source.replace("CLONE_NEWUSER = 0x10000000", "CLONE_NEWUSER = 0x1")  # no such flag: the system says no
    assert broken != source
    script.write_text(broken, encoding="utf-8")
    monkeypatch.setattr(unpickling, "__file__", str(script))
    with pytest.raises(ConfigError, match="this system cannot make one") as caught:
        read_state_dict(checkpoint(tmp_path, f"open({str(marker)!r}, 'w')"), trust_pickle=True)
    assert caught.value.exit_code == EXIT_CONFIG
    assert not marker.exists()


@needs_isolation
@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise RuntimeError('\\x1b[31mno')", r"unpickling failed \(exit 4\): RuntimeError: \?\[31mno"),
        ("import a_module_that_is_not_there", "a_module_that_is_not_there.*a missing module must be installed"),
        ("import os; os._exit(0)", "left no weights"),
    ],
)
def test_a_program_that_fails_is_reported(tmp_path, program, message):
    with pytest.raises(DataError, match=message):
        read_state_dict(checkpoint(tmp_path, program), trust_pickle=True)


LINKING = """
import os, sys
os.symlink(SECRET_FILE, sys.argv[2] + "/weights.safetensors")
open(sys.argv[2] + "/hyper_parameters.json", "w").write("{}")
os._exit(0)
"""


@needs_isolation
def test_output_that_is_a_link_is_not_followed(tmp_path):
    secret = tmp_path / "secret.safetensors"
    safetensors.torch.save_file({"w": torch.ones(1)}, secret)
    program = LINKING.replace("SECRET_FILE", repr(str(secret)))
    with pytest.raises(DataError, match="left no weights"):
        read_state_dict(checkpoint(tmp_path, program), trust_pickle=True)


def test_this_process_keeps_its_environment(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    assert "AWS_SECRET_ACCESS_KEY" not in untrusted.bare_environment(Path("home"))
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "a-secret"


def test_a_length_that_no_memory_holds_ends_the_search_for_names(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f")  # a bytearray of 2**63 - 1 bytes
    assert names_in(tmp_path / "a.ckpt") == set()
