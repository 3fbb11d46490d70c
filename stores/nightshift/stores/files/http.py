"""Fetching images that a catalogue names: public web servers only, checked and connected as one."""

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
from nightshift.stores.files.deadlines import Deadline, answer_s
from nightshift.stores.files.networks import Address, Network, may_connect, parsed

__all__ = ["WebRules", "check_url", "fetch", "is_web", "web_rules"]

_REDIRECTS = 5
_CONNECT_S = 10.0
_CHUNK_BYTES = 2**16
#: Signatures of object stores make long addresses, of two thousand characters at most.
_URL_CHARS = 8192
#: Of a host; IDNA takes the square of its length.
_HOST_CHARS = 253
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRules:
    """Where images may be fetched from, as the settings say it."""

    #: Lower case; `*.x` stands for all below x. Empty means any.
    hosts: tuple[str, ...] = ()
    #: May be connected to although they are not public.
    networks: tuple[Network, ...] = ()
    #: For a fetch in all: names, connections, redirects and repeated attempts.
    whole_s: float = 60.0

    def allows_host(self, host: str) -> bool:
        """Whether images may come from a host of this name."""
        return not self.hosts or any(
            host.endswith(rule[1:]) if rule.startswith("*.") else host == rule
            for rule in map(str.lower, self.hosts)
        )

    def allows_address(self, address: Address) -> bool:
        """Whether this address may be connected to."""
        return may_connect(address, self.networks)


@cache
def web_rules() -> WebRules:
    """The rules of this process."""
    settings = Settings()
    return WebRules(
        hosts=settings.image_hosts, networks=settings.image_networks, whole_s=answer_s()
    )


def is_web(address: str) -> bool:
    """Whether an address is one of a web server."""
    return address.lower().startswith(("http://", "https://"))


def check_url(url: str, rules: WebRules) -> SplitResult:
    """Take a web address apart, as far as it can be judged without asking anyone.

    Raises:
        InputError: `image_unreadable` where it is no address, `image_not_allowed` where it holds a
            password or names a host that is not among those allowed.
    """
    try:
        _check_characters(url)
        parts = urlsplit(url)
        host, _ = _host(parts), parts.port
    except ValueError as error:
        raise InputError(f"{_shown(url)} is no web address: {error}", "image_unreadable") from error
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
    """The bytes at a web address.

    Names are resolved once a hop, every address found is judged, and the connection goes to one of
    these very addresses: a name that resolves otherwise a moment later gains nothing.

    Args:
        url: `http://…` or `https://…`.
        max_bytes: What is longer is refused.
        span: Offset and length of the bytes wanted; None means all.
        rules: Those of this process, unless given.
        deadline: By which it must be done, all redirects included; as the rules say, unless given.

    Raises:
        InputError: `image_not_allowed`, `image_missing`, `image_too_large`, `image_unreadable` for
            what is no address, else `image_unreachable`.
    """
    rules = rules or web_rules()
    deadline = deadline or Deadline(rules.whole_s)
    for _ in range(_REDIRECTS + 1):
        with _answer(url, check_url(url, rules), span, rules, deadline) as answer:
            if answer.status not in {301, 302, 303, 307, 308}:
                return _body(url, answer, max_bytes, span)
            url = _followed(url, answer)
    raise _unreachable(url, f"it was passed on more than {_REDIRECTS} times")


@contextmanager
def _answer(
    url: str,
    parts: SplitResult,
    span: tuple[int, int] | None,
    rules: WebRules,
    deadline: Deadline,
) -> Iterator[http.client.HTTPResponse]:
    """What the server answers; whatever goes wrong before the block ends is translated."""
    expired = Event()
    try:
        with ExitStack() as closing:
            link = _connect(parts, rules, deadline)
            closing.callback(link.close)

            def expire() -> None:
                expired.set()
                with suppress(OSError):  # it has just ended
                    # Of the socket below any TLS: so whoever waits for it stops waiting.
                    socket.socket.shutdown(link, socket.SHUT_RDWR)

            # A server that sends a byte now and then never lets a socket time out.
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
            answer = closing.enter_context(connection.getresponse())
            yield answer
            if expired.is_set():
                raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError) as error:
        slow = expired.is_set() or isinstance(error, TimeoutError)
        why = "the server is too slow" if slow else str(error) or type(error).__name__
        raise _unreachable(url, why) from error


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
    # A resolver knows no time limit.
    places = deadline.call(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    for *_, place in places:
        address = parsed(str(place[0]))
        if not rules.allows_address(address):
            raise InputError(
                f"{host} is {address}, which is not a public address; images may come from there "
                "only where NIGHTSHIFT_IMAGE_NETWORKS says so, from metadata services never",
                "image_not_allowed",
            )
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, place in places:
        link = socket.socket(family, kind, protocol)
        try:
            link.settimeout(min(_CONNECT_S, deadline.left()))
            link.connect(place)
        except OSError as error:
            link.close()
            failure = error
        else:
            if parts.scheme == "http":
                return link
            # The handshake comes later, while the timer runs.
            return _tls().wrap_socket(link, server_hostname=host, do_handshake_on_connect=False)
    raise failure


def _followed(url: str, answer: http.client.HTTPResponse) -> str:
    target = urljoin(url, answer.getheader("Location", ""))
    if not is_web(target):
        raise InputError(f"{_shown(url)} passes on to what is no web address", "image_not_allowed")
    return target


def _body(
    url: str,
    answer: http.client.HTTPResponse,
    max_bytes: int,
    span: tuple[int, int] | None,
) -> bytes:
    if answer.status in {404, 410}:
        raise InputError(f"there is no {_shown(url)}; check the address", "image_missing")
    if answer.status not in ({200} if span is None else {206}):
        raise OSError(f"the server answers {answer.status} {answer.reason}")
    data = bytearray()
    while chunk := answer.read1(_CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes:
            raise InputError(
                f"{_shown(url)} has more than {max_bytes / 2**20:.0f} MiB; make it smaller",
                "image_too_large",
            )
    if answer.length or (span is not None and len(data) != span[1]):
        raise OSError("it broke off")
    return bytes(data)


def _check_characters(url: str) -> None:
    if len(url) > _URL_CHARS:
        raise ValueError(f"it has more than {_URL_CHARS} characters")
    # urlsplit would leave some of them out, and judge another address than was written.
    if any(unicodedata.category(character) == "Cc" for character in url):
        raise ValueError("it holds control characters")


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    if not host:
        raise ValueError("it names no host")
    if len(host) > _HOST_CHARS:
        raise ValueError(f"its host has more than {_HOST_CHARS} characters")
    if any(character in " %<>[\\]^`{|}" for character in host):
        raise ValueError("its host holds characters that no name has")
    return host if ":" in host else host.encode("idna").decode()


def _target(parts: SplitResult) -> str:
    # Catalogues hold addresses with blanks and umlauts; what is quoted already stays as it is.
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return f"{path}?{query}" if query else path


def _shown(url: str) -> str:
    # What follows the question mark may be a signature that opens a store.
    shown = without_password(url).partition("?")[0]
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…"


def _unreachable(url: str, why: str) -> InputError:
    return InputError(
        f"{_shown(url)} cannot be fetched: {why}; check that the server delivers it",
        "image_unreachable",
    )
