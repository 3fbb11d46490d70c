"""Certificates for tests that speak TLS."""

import subprocess
from pathlib import Path


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
