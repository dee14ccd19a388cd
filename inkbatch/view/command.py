"""`inkbatch view`: open the scene, listen, print the address, and serve until Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from inkbatch.config import parse_bytes
from inkbatch.errors import ConfigError, DataError
from inkbatch.io.store.location import Location
from inkbatch.view.edit import Editor
from inkbatch.view.guard import is_loopback
from inkbatch.view.scene import Scene
from inkbatch.view.server import ViewServer
from inkbatch.view.viewer import Viewer

LEAST_MEMORY = 32 << 20
PORTS_TRIED = 50


@dataclass(frozen=True)
class Editing:
    """Painting of labels.

    Attributes:
        author: Who paints.
        version: Label version to paint into; None: the newest one, or a new one.
    """

    author: str
    version: str | None = None


def run(
    targets: Sequence[str],
    *,
    root: str,
    host: str,
    port: int | None,
    first_port: int,
    names: tuple[str, ...],
    memory: str,
    browser: bool,
    say: Callable[[str], object],
    editing: Editing | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        targets: Segment ids or URIs.
        root: ROOT.
        host: Address to listen on.
        port: Port; None takes the first free one.
        first_port: First port to try.
        names: Further host names that browsers may use.
        memory: Room for decoded pieces and tiles, for example ``256MiB``.
        browser: Open the page.
        say: Prints a line for the user.
        editing: Let the page paint labels.

    Raises:
        ConfigError: Too little memory, the port is not free, or labels were to be painted from other machines.
        DataError: A target is not there or cannot be read.
    """
    room = parse_bytes(memory)
    if room < LEAST_MEMORY:
        raise ConfigError(f"view: memory {memory} is too little; give at least {LEAST_MEMORY >> 20}MiB")
    if editing is not None and (not is_loopback(host) or names):
        raise ConfigError(
            f"view: labels are painted from this machine alone, got {', '.join([host, *names])} as host; drop "
            "--host and --allow-host, and reach this machine by an ssh tunnel"
        )
    scene = Scene(targets, root)
    viewer = Viewer(scene, room, can_edit=editing is not None)
    with contextlib.ExitStack() as opened:
        editor = Editor(viewer, root, editing.author, editing.version) if editing else None
        if editor is not None:
            opened.callback(editor.close)
        server = opened.enter_context(_listening(viewer, host, port, first_port, names, editor))
        for group in scene.groups:
            height, width = group.shape_yx
            maps = ", ".join(group.maps) or "no predictions yet"
            say(f"view: {group.segment} · {width} × {height} px (width × height) · {maps}")
        if editor is not None:
            for line in editor.started:
                say(f"view: {line}")
        if not is_loopback(host):
            say(f"view: everyone who can reach {host} can look at this; there is no password")
        say(f"view: {server.url}  (Ctrl-C ends it)")
        if browser:
            webbrowser.open(server.url)
        _serve(server)
    say("view: ended")


def there(root: str) -> list[str]:
    """List the segments under ROOT with their predictions, one line each.

    Raises:
        DataError: There are none.
    """
    place = Location.parse(root)
    names = {room: set((place / room).names()) for room in ("segments", "predictions")}
    found = sorted(names["segments"] | names["predictions"])
    if not found:
        raise DataError(f"view: expected segments under {place}, got none; prepare one, or give another --root")
    lines = [f"which segment? inkbatch view SEGMENT shows one of those under {place}:"]
    for segment in found:
        maps = ", ".join((place / "predictions" / segment).names()) if segment in names["predictions"] else ""
        lines.append(f"  {segment}  {maps or 'no predictions yet'}")
    return lines


def _serve(server: ViewServer) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.serve_forever(poll_interval=0.2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listening(
    viewer: Viewer, host: str, port: int | None, first_port: int, names: tuple[str, ...], editor: Editor | None
) -> ViewServer:
    tried = [port] if port is not None else [*range(first_port, first_port + PORTS_TRIED), 0]
    for number in tried:
        try:
            return ViewServer(viewer, host, number, names, editor)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or number == tried[-1]:
                raise ConfigError(
                    f"view: cannot listen on {host} port {number}: {error.strerror or error}; give another --port or "
                    "--host"
                ) from error
    raise ConfigError(f"view: no free port on {host}")
