"""The proxy breaks what it says, no more, and mends it again."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.tcp_proxy import TcpProxy, tcp_proxy

QUICK = 0.3  # seconds in which loopback would have passed it on


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says again what it hears."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.fixture
def between(echo: int) -> Iterator[TcpProxy]:
    with tcp_proxy("127.0.0.1", echo) as proxy:
        yield proxy


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def says(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(len(text))


def test_it_passes_both_ways_and_knows_the_url(between: TcpProxy) -> None:
    with connect(between) as client:
        assert says(client, b"hello") == b"hello"
    assert between.passed["to_server"] == 5
    assert (
        between.url("amqp://u:p@far:1/v?heartbeat=5") == f"amqp://u:p@127.0.0.1:{between.port}/v?heartbeat=5"
    )


def test_a_cut_is_a_reset_and_new_connections_come_through(between: TcpProxy) -> None:
    with connect(between) as client, connect(between) as another:
        assert says(client, b"hello") == b"hello"
        between.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises(ConnectionResetError):
            another.recv(1)
    with connect(between) as client:
        assert says(client, b"again") == b"again"


def test_refused_until_it_is_healed_on_the_same_port(between: TcpProxy) -> None:
    between.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(between)
    between.heal()
    with connect(between) as client:
        assert says(client, b"again") == b"again"


def test_in_a_black_hole_nothing_passes_and_nobody_is_told_then_all_of_it_does(between: TcpProxy) -> None:
    with connect(between) as client:
        assert says(client, b"hello") == b"hello"
        between.blackhole()
        client.sendall(b"held")
        client.settimeout(QUICK)
        with pytest.raises(TimeoutError):
            client.recv(1)
        between.heal()
        client.settimeout(5)
        assert client.recv(4) == b"held"


def test_half_a_black_hole(between: TcpProxy) -> None:
    with connect(between) as client:
        assert says(client, b"hello") == b"hello"
        between.blackhole("to_client")
        client.sendall(b"there")
        client.settimeout(QUICK)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert between.passed == {"to_server": 10, "to_client": 5}


def test_a_slow_link_is_as_slow_as_told(between: TcpProxy) -> None:
    with connect(between) as client:
        between.throttle(10_000)
        begun = time.monotonic()
        client.sendall(b"x" * 5_000)
        got = 0
        while got < 5_000:
            got += len(client.recv(5_000))
        assert 0.4 < time.monotonic() - begun < 10.0


def test_flapping_cuts_until_it_is_healed(between: TcpProxy) -> None:
    between.flap(0.05)
    for _ in range(3):
        with connect(between) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
    between.heal()
    with connect(between) as client:
        client.settimeout(QUICK)
        with pytest.raises(TimeoutError):
            client.recv(1)
