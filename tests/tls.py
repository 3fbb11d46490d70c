"""TLS for tests: certificates, and a proxy that ends TLS before a real service."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: What a client of Postgres sends to ask for TLS.
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for a host that is its own authority, and its key.

    Raises:
        FileNotFoundError: Where the `openssl` program is not installed.
    """
    certificate, key = folder / f"{host}.pem", folder / f"{host}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host},IP:127.0.0.1"),
            *("-out", certificate, "-keyout", key),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@contextmanager
def tls_before(port: int, certificate: Path, key: Path, *, postgres: bool = False) -> Iterator[int]:
    """A port that speaks TLS, and hands what it hears to the service on another port.

    Args:
        port: Of the service, on the loopback.
        certificate: What it shows.
        key: Of the certificate.
        postgres: Whether clients first ask for TLS in the way of Postgres.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        try:
            if postgres:
                assert client.recv(8) == _SSL_REQUEST
                client.sendall(b"S")
            secure = context.wrap_socket(client, server_side=True)
            service = socket.create_connection(("127.0.0.1", port))
        except OSError:
            client.close()
            return
        threading.Thread(target=_pump, args=(secure, service), daemon=True).start()
        _pump(service, secure)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
