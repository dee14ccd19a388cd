"""The viewer under load: slow clients keep nobody out, and a signal ends it whatever they do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.load import asked, slow_clients
from inkbatch.view import server as module
from inkbatch.view.connections import Connections
from inkbatch.view.scene import Scene
from inkbatch.view.server import MOST_CONNECTIONS, ViewServer
from inkbatch.view.viewer import Viewer


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view") / "root"
    labelled_segment(folder, "seg", inked((96, 160), (10, 10, 40, 60)))
    return folder


@pytest.fixture
def server(root):
    with ViewServer(Viewer(Scene(["seg"], str(root))), port=0) as found, ThreadPoolExecutor(1) as pool:
        ended = pool.submit(found.serve_forever, 0.02)
        yield found
        found.shutdown()
        ended.result()


def port_of(server) -> int:
    return int(server.server_address[1])


@pytest.mark.parametrize("kind", ["silent", "head", "reader"])
def test_more_slow_clients_than_connections_keep_nobody_out(server, kind):
    with slow_clients(port_of(server), MOST_CONNECTIONS + 20, kind):
        for _ in range(3):
            assert asked(port_of(server), "/scene", timeout_s=10) == 200
    assert len(server.connections) <= MOST_CONNECTIONS


def test_two_hundred_clients_at_once_are_all_answered(server):
    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(lambda _: asked(port_of(server), "/scene", timeout_s=20), range(200)))
    assert found == [200] * 200


def test_clients_that_do_not_finish_a_request_are_closed_in_time(server, monkeypatch):
    monkeypatch.setattr(server.connections, "patience_s", 0.2)
    with slow_clients(port_of(server), 5, "head") as clients:
        for client in clients:
            client.settimeout(5)
            assert client.recv(1) == b""


def test_the_slowest_makes_room_and_idle_ones_go_first():
    now = [0.0]
    connections = Connections(2, 10, clock=lambda: now[0])
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (ours, _) in enumerate(pairs[:2]):
        now[0] = float(number)
        connections.admit(ours)
    connections.answer(pairs[0][0])
    connections.admit(pairs[2][0])
    assert pairs[1][1].recv(1) == b""  # it waited for a request; the older one is being answered
    assert len(connections) == 2
    connections.close_all()
    assert pairs[0][1].recv(1) == b""
    for pair in pairs:
        for one in pair:
            one.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_whatever_clients_do(root, number):
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2]), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "inkbatch", "view", "seg", "--root", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "Ctrl-C" in line)
        port = int(line.split("localhost:")[1].split("/")[0])
        try:
            with slow_clients(port, 80, "head"):
                assert asked(port, "/scene", timeout_s=10) == 200
                begun = time.monotonic()
                process.send_signal(number)
                assert process.wait(10) == 0
                assert time.monotonic() - begun < 5
        finally:
            process.kill()
