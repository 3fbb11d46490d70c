"""Fetch images from web servers: only public addresses, checked before each connection."""

import http.client
import socket
import ssl
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from threading import Event, Timer
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from nightshift.schema.errors import InputError
from nightshift.schema.settings import Settings
from nightshift.stores.files.addresses import without_password
from nightshift.stores.files.deadlines import Deadline, fetch_timeout_s
from nightshift.stores.files.networks import Address, Network, may_connect, parse_address

__all__ = ["WebRules", "check_url", "fetch", "is_web", "web_rules"]

_MAX_REDIRECTS = 5
_CONNECT_TIMEOUT_S = 10.0
_CHUNK_BYTES = 2**16
#: URLs with signatures of object stores have up to two thousand characters.
_MAX_URL_CHARS = 8192
#: The longest host name; the time of IDNA grows with the square of its length.
_MAX_HOST_CHARS = 253
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRules:
    """The hosts and networks that images may be fetched from, and the time limit."""

    #: Lower case; `*.x` means all hosts below x. Empty means any host.
    hosts: tuple[str, ...] = ()
    #: Networks that may be connected to although they are not public.
    networks: tuple[Network, ...] = ()
    #: Time limit of a fetch: names, connections, redirects and repeated attempts together.
    timeout_s: float = 60.0

    def allows_host(self, host: str) -> bool:
        """True if images may come from a host of this name."""
        return not self.hosts or any(
            host.endswith(rule[1:]) if rule.startswith("*.") else host == rule
            for rule in map(str.lower, self.hosts)
        )

    def allows_address(self, address: Address) -> bool:
        """True if this address may be connected to."""
        return may_connect(address, self.networks)


@cache
def web_rules() -> WebRules:
    """The rules of this process."""
    settings = Settings()
    return WebRules(
        hosts=settings.image_hosts, networks=settings.image_networks, timeout_s=fetch_timeout_s()
    )


def is_web(address: str) -> bool:
    """True if an address is an http or https URL."""
    return address.lower().startswith(("http://", "https://"))


def check_url(url: str, rules: WebRules) -> SplitResult:
    """Parse a web address and check what can be checked without a connection.

    Raises:
        InputError: `image_unreadable` when it is not a web address; `image_not_allowed` when it
            holds a password or names a host that is not allowed.
    """
    try:
        _check_characters(url)
        parts = urlsplit(url)
        host, _ = _host(parts), parts.port
    except ValueError as error:
        raise InputError(
            f"{_shown(url)} is not a web address: {error}", "image_unreadable"
        ) from error
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"the address of the image on {host} holds a user name or password, which would be "
            "stored with the item; use one that needs none",
            "image_not_allowed",
        )
    if not rules.allows_host(host):
        raise InputError(
            f"{_shown(url)}: {host} is not among the hosts that images may come from; add it to "
            "NIGHTSHIFT_IMAGE_HOSTS",
            "image_not_allowed",
        )
    return parts


def fetch(
    url: str,
    *,
    max_bytes: int,
    span: tuple[int, int] | None = None,
    rules: WebRules | None = None,
    deadline: Deadline | None = None,
) -> bytes:
    """Fetch the bytes at a web address.

    At each redirect the host is resolved once, all its addresses are checked, and the connection
    goes to one of them. A name that resolves to another address a moment later has no effect.

    Args:
        url: `http://…` or `https://…`.
        max_bytes: A longer body is refused.
        span: Offset and length of the bytes to read; None means all.
        rules: Default: those of this process.
        deadline: Time limit of all redirects together; default: that of the rules.

    Raises:
        InputError: `image_not_allowed`, `image_missing`, `image_too_large`, `image_unreadable` for
            a malformed address, otherwise `image_unreachable`.
    """
    rules = rules or web_rules()
    deadline = deadline or Deadline(rules.timeout_s)
    for _ in range(_MAX_REDIRECTS + 1):
        with _request(url, check_url(url, rules), span, rules, deadline) as response:
            if response.status not in {301, 302, 303, 307, 308}:
                return _read_body(url, response, max_bytes, span)
            url = _redirect_target(url, response)
    raise _unreachable(url, f"more than {_MAX_REDIRECTS} redirects")


@contextmanager
def _request(
    url: str,
    parts: SplitResult,
    span: tuple[int, int] | None,
    rules: WebRules,
    deadline: Deadline,
) -> Iterator[http.client.HTTPResponse]:
    """Send the request; every error until the block ends becomes an `InputError`."""
    expired = Event()
    try:
        with ExitStack() as closing:
            link = _connect(parts, rules, deadline)
            closing.callback(link.close)

            def expire() -> None:
                expired.set()
                with suppress(OSError):  # the connection has just ended
                    # Closes the socket below TLS, so that a waiting read ends.
                    socket.socket.shutdown(link, socket.SHUT_RDWR)

            # A socket timeout never ends a read from a server that sends a byte now and then.
            timer = Timer(deadline.left(), expire)
            timer.daemon = True
            timer.start()
            closing.callback(timer.cancel)
            connection = http.client.HTTPConnection(_host(parts), parts.port)
            if isinstance(link, ssl.SSLSocket):
                connection.default_port = 443
                link.do_handshake()
            connection.sock = link
            connection.request("GET", _target(parts), headers=_headers(span))
            response = closing.enter_context(connection.getresponse())
            yield response
            if expired.is_set():
                raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError) as error:
        slow = expired.is_set() or isinstance(error, TimeoutError)
        reason = "the server is too slow" if slow else str(error) or type(error).__name__
        raise _unreachable(url, reason) from error


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _headers(span: tuple[int, int] | None) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "nightshift"}
    if span is not None:
        headers["Range"] = f"bytes={span[0]}-{sum(span) - 1}"
    return headers


def _connect(parts: SplitResult, rules: WebRules, deadline: Deadline) -> socket.socket:
    host = _host(parts)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    # A resolver has no time limit of its own.
    endpoints = deadline.call(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    for *_, endpoint in endpoints:
        address = parse_address(str(endpoint[0]))
        if not rules.allows_address(address):
            raise InputError(
                f"{host} is {address}, which is not a public address; images may come from there "
                "only if NIGHTSHIFT_IMAGE_NETWORKS lists it, and never from metadata services",
                "image_not_allowed",
            )
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, endpoint in endpoints:
        link = socket.socket(family, kind, protocol)
        try:
            link.settimeout(min(_CONNECT_TIMEOUT_S, deadline.left()))
            link.connect(endpoint)
        except OSError as error:
            link.close()
            failure = error
        else:
            if parts.scheme == "http":
                return link
            # The handshake follows later, while the timer runs.
            return _tls().wrap_socket(link, server_hostname=host, do_handshake_on_connect=False)
    raise failure


def _redirect_target(url: str, response: http.client.HTTPResponse) -> str:
    target = urljoin(url, response.getheader("Location", ""))
    if not is_web(target):
        raise InputError(
            f"{_shown(url)} redirects to what is not a web address", "image_not_allowed"
        )
    return target


def _read_body(
    url: str,
    response: http.client.HTTPResponse,
    max_bytes: int,
    span: tuple[int, int] | None,
) -> bytes:
    if response.status in {404, 410}:
        raise InputError(f"there is no {_shown(url)}; check the address", "image_missing")
    if response.status not in ({200} if span is None else {206}):
        raise OSError(f"the server answers {response.status} {response.reason}")
    data = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes:
            raise InputError(
                f"{_shown(url)} has more than {max_bytes / 2**20:.0f} MiB; make it smaller",
                "image_too_large",
            )
    if response.length or (span is not None and len(data) != span[1]):
        raise OSError("the connection ended early")
    return bytes(data)


def _check_characters(url: str) -> None:
    if len(url) > _MAX_URL_CHARS:
        raise ValueError(f"it has more than {_MAX_URL_CHARS} characters")
    # urlsplit would drop some of them, and another address than the written one would be checked.
    if any(unicodedata.category(character) == "Cc" for character in url):
        raise ValueError("it holds control characters")


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    if not host:
        raise ValueError("it names no host")
    if len(host) > _MAX_HOST_CHARS:
        raise ValueError(f"its host has more than {_MAX_HOST_CHARS} characters")
    if any(character in " %<>[\\]^`{|}" for character in host):
        raise ValueError("its host holds characters that host names do not have")
    return host if ":" in host else host.encode("idna").decode()


def _target(parts: SplitResult) -> str:
    # Catalogues hold addresses with blanks and umlauts; what is quoted already is kept.
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return f"{path}?{query}" if query else path


def _shown(url: str) -> str:
    # The query may be a signature that gives access to a store.
    shown = without_password(url).partition("?")[0]
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…"


def _unreachable(url: str, reason: str) -> InputError:
    return InputError(
        f"{_shown(url)} cannot be fetched: {reason}; check that the server delivers it",
        "image_unreachable",
    )
