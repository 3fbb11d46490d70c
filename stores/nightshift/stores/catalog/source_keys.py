"""The name of a source that all its spellings share: which items are its own depends on it."""

import hashlib
import os
from pathlib import Path
from posixpath import normpath

from nightshift.stores.files.addresses import is_url, resolve_beside, without_password

__all__ = ["source_key"]

_LOCAL = ("file://", "local://")
#: The same service by two names.
_SCHEMES = {"s3a": "s3", "gcs": "gs"}
#: Parameters of signed addresses, which change from night to night.
_SIGNATURES = ("x-amz-", "x-goog-", "awsaccesskeyid", "googleaccessid")
_CREDENTIALS = {
    *("signature", "sig", "token", "key", "apikey", "api_key", "access_token", "password"),
    *("expires", "policy", "key-pair-id", "se", "sp", "sv", "st", "spr", "skoid", "sktid"),
}


def source_key(source: str) -> str:
    """The source as an absolute path, or as an address without credentials.

    A folder is meant wherever links to it lie. A file that is a link keeps the link's name, so that
    `latest.csv` stays one source while it leads to another file every night.

    Args:
        source: File, folder or pattern; path or fsspec URL.
    """
    if source[:5].lower() == "file:":
        source = resolve_beside("/", source)  # as whoever reads it takes it, %20 decoded
    if not is_url(source) or source.startswith(_LOCAL):
        # Unlike `Path.expanduser`, this leaves the home of nobody as it is.
        path = Path(os.path.expanduser(source.partition("://")[2] or source))  # noqa: PTH111
        return str(path.resolve() if path.is_dir() else path.parent.resolve() / path.name)
    address = without_password(source).partition("?")[0]
    outer, chain, inner = address.replace("***@", "").rpartition("::")
    scheme, _, rest = inner.partition("://")
    host, slash, path_in = rest.partition("/")
    scheme = _SCHEMES.get(scheme.lower(), scheme.lower())
    path_in = normpath(f"/{path_in}").lstrip("/") if slash else ""
    given = source.partition("?")[2].split("&")
    kept = [parameter for parameter in given if parameter and not _is_credential(parameter)]
    # Its values may be secrets that nobody knows as such.
    digest = hashlib.sha256("&".join(kept).encode("utf-8", "replace")).hexdigest()[:16]
    return f"{outer}{chain}{scheme}://{host.lower()}/{path_in}{f'?{digest}' if kept else ''}"


def _is_credential(parameter: str) -> bool:
    name = parameter.partition("=")[0].lower()
    return name in _CREDENTIALS or name.startswith(_SIGNATURES)
