"""The servers that scripts start: nothing else is measured in their place."""

import socket
import sys
from pathlib import Path

import pytest
from servers import start, stop, wait


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"in use .*{port}"):
            start(sys.executable, "no-model", port, tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_a_server_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(sys.executable, "no-model", port, tmp_path / "log")
    try:
        with pytest.raises(RuntimeError, match=f"the server of http://127.0.0.1:{port} ended, with 1"):
            wait(f"http://127.0.0.1:{port}", server, within_s=60)
    finally:
        stop(server)
