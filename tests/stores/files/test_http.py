"""Images from the web: only from where they may come, whatever a name or a redirect says."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import unquote

import pytest

from nightshift.schema.errors import InputError
from nightshift.schema.settings import Settings
from nightshift.stores.files import deadlines, http
from nightshift.stores.files.files import read_bytes
from nightshift.stores.files.http import WebRules, fetch

HERE = WebRules(networks=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
STRICT = WebRules()


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests: list[tuple[str, str]] = []

    def do_GET(self):
        _Pages.requests.append((self.path, self.headers["Host"]))
        name, _, rest = self.path.removeprefix("/").partition("?")
        getattr(self, f"_{name}", self._page)(rest)

    def _page(self, rest: str) -> None:
        self._answer(200, b"image")

    def _to(self, rest: str) -> None:
        self.send_response(302)
        self.send_header("Location", unquote(rest))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _loop(self, rest: str) -> None:
        self._to("/loop")

    def _short(self, rest: str) -> None:
        self._answer(200, b"image", length=100)
        self.close_connection = True

    def _endless(self, rest: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(bytes(2**16))
        except OSError:
            pass

    def _drip(self, rest: str) -> None:
        """A header line that never ends, a byte now and then."""
        try:
            for _ in range(200):
                self.wfile.write(b"H")
                time.sleep(0.05)
        except OSError:
            pass

    def _later(self, rest: str) -> None:
        time.sleep(0.4)
        self._to(f"/later?{rest}x")

    def _answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """A web server on the loopback."""
    _Pages.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A name service of our own: each name has answers, one after another; the last one stays."""
    answers: dict[str, list[str]] = {}

    def resolve(host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        if host not in answers:
            return genuine(host, port, **options)
        address = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (part, port)) for part in address.split()
        ]

    genuine = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return answers


def refused(url: str, rules: WebRules = HERE, **options: int) -> str:
    with pytest.raises(InputError) as caught:
        fetch(url, **{"max_bytes": 1000, **options}, rules=rules)
    assert caught.value.message
    return caught.value.reason


def test_a_page_is_fetched_with_its_blanks_and_umlauts(port: int):
    assert fetch(f"http://127.0.0.1:{port}/a b/ü.png?x=%20", max_bytes=10, rules=HERE) == b"image"
    assert _Pages.requests == [("/a%20b/%C3%BC.png?x=%20", f"127.0.0.1:{port}")]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "0.0.0.0"],
)
def test_no_spelling_of_the_own_machine_is_reached(port: int, host: str):
    assert refused(f"http://{host}:{port}/x.png", STRICT) == "image_not_allowed"
    assert _Pages.requests == []


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0"),
        *("169.254.169.254", "224.0.0.1", "255.255.255.255", "::1", "::", "fc00::1", "fe80::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1"),
        *("ff02::1", "fd00:ec2::254", "2002:a9fe:a9fe::"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str):
    assert not STRICT.allows_address(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_a_public_address_is_not(address: str):
    assert STRICT.allows_address(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192"),
        *("::ffff:169.254.169.254", "fe80::1"),
    ],
)
def test_where_clouds_hand_out_credentials_no_setting_helps(address: str):
    every = WebRules(networks=(ip_network("0.0.0.0/0"), ip_network("::/0")))

    assert not every.allows_address(ip_address(address))
    assert every.allows_address(ip_address("10.0.0.1"))


def test_a_name_with_one_private_address_among_others_is_refused(names: dict[str, list[str]]):
    names["mixed.test"] = ["1.1.1.1 10.0.0.1"]

    assert refused("http://mixed.test/x.png", STRICT) == "image_not_allowed"


def test_a_name_that_resolves_otherwise_a_moment_later_gains_nothing(
    port: int, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
):
    """The connection goes to the very address that was judged."""
    names["rebinding.test"] = ["192.0.2.7", "127.0.0.1"]
    rules = WebRules(networks=(ip_network("192.0.2.0/24"),))
    reached: list[object] = []

    def connect(link: socket.socket, place: object) -> None:
        reached.append(place)
        raise TimeoutError("nobody is there")

    monkeypatch.setattr(socket.socket, "connect", connect)

    assert refused(f"http://rebinding.test:{port}/x.png", rules) == "image_unreachable"
    assert reached == [("192.0.2.7", port)]
    assert refused(f"http://rebinding.test:{port}/x.png", rules) == "image_not_allowed"
    assert reached == [("192.0.2.7", port)]


@pytest.mark.parametrize(
    "target",
    [
        *("http://10.0.0.1/", "http://169.254.169.254/latest/meta-data/", "//[::ffff:10.0.0.1]/"),
        *("file:///etc/passwd", "ftp://127.0.0.1/", "http://elsewhere.test/"),
    ],
)
def test_every_redirect_is_judged_again(port: int, names: dict[str, list[str]], target: str):
    names["images.test"] = names["elsewhere.test"] = ["127.0.0.1"]
    rules = WebRules(hosts=("images.test", "10.0.0.1", "169.254.169.254"), networks=HERE.networks)

    assert refused(f"http://images.test:{port}/to?{target}", rules) == "image_not_allowed"
    assert len(_Pages.requests) == 1


def test_a_redirect_to_a_good_place_is_followed_but_not_for_ever(port: int):
    start = f"http://127.0.0.1:{port}"

    assert fetch(f"{start}/to?/to?/page", max_bytes=10, rules=HERE) == b"image"
    assert refused(f"{start}/loop") == "image_unreachable"
    assert len(_Pages.requests) < 12


def test_only_hosts_of_the_list_are_asked(port: int, names: dict[str, list[str]]):
    names |= {"a.shop.test": ["127.0.0.1"], "shop.test": ["127.0.0.1"], "eshop.test": ["127.0.0.1"]}
    rules = WebRules(hosts=("*.Shop.test", "other.test"), networks=HERE.networks)

    assert fetch(f"http://A.shop.test.:{port}/x", max_bytes=10, rules=rules) == b"image"
    for host in ("shop.test", "eshop.test", "a.shop.test.evil.test", "127.0.0.1"):
        assert refused(f"http://{host}:{port}/x", rules) == "image_not_allowed"


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///x.png", "http://h:port/", "https://[::1/x", "http://" + "a" * 70 + ".b/"],
)
def test_what_is_no_address_is_named_as_such(url: str):
    assert refused(url) == "image_unreadable"


def test_an_address_with_a_password_is_refused_and_not_repeated(port: int):
    with pytest.raises(InputError) as caught:
        fetch(f"http://user:hunter2@127.0.0.1:{port}/x?key=hunter2", max_bytes=10, rules=HERE)
    assert caught.value.reason == "image_not_allowed"
    assert "hunter2" not in caught.value.message


def test_what_follows_the_question_mark_is_not_repeated(port: int):
    with pytest.raises(InputError) as caught:
        fetch(f"http://127.0.0.1:{port}/short?signature=hunter2", max_bytes=1000, rules=HERE)
    assert "hunter2" not in caught.value.message


def test_an_answer_that_breaks_off_is_no_image(port: int):
    assert refused(f"http://127.0.0.1:{port}/short") == "image_unreachable"


def test_an_endless_answer_ends_at_the_limit(port: int):
    url = f"http://127.0.0.1:{port}/endless"
    assert refused(url, max_bytes=10**6) == "image_too_large"


def test_a_server_that_sends_a_byte_now_and_then_is_left(port: int):
    quick = WebRules(networks=HERE.networks, timeout_s=0.5)
    with pytest.raises(InputError, match="too slow") as caught:
        fetch(f"http://127.0.0.1:{port}/drip", max_bytes=10, rules=quick)
    assert caught.value.reason == "image_unreachable"


def test_slow_redirects_share_one_time_limit(port: int):
    rules = WebRules(networks=HERE.networks, timeout_s=1.0)

    with pytest.raises(InputError, match="too slow"):
        fetch(f"http://127.0.0.1:{port}/later?", max_bytes=10, rules=rules)

    assert len(_Pages.requests) < 4, "each step takes 0.4 s"


def test_a_name_service_that_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait())
    rules = WebRules(timeout_s=0.3)

    with pytest.raises(InputError, match="too slow") as caught:
        fetch("http://slow.test/x.png", max_bytes=10, rules=rules)

    answered.set()
    assert caught.value.reason == "image_unreachable"


def test_a_name_of_many_silent_addresses_is_left(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
):
    tried: list[float] = []

    def connect(link: socket.socket, place: object) -> None:
        tried.append(link.gettimeout() or 0.0)
        time.sleep(0.2)
        raise TimeoutError("timed out")

    names["many.test"] = [" ".join(f"1.1.1.{number}" for number in range(1, 200))]
    monkeypatch.setattr(socket.socket, "connect", connect)

    with pytest.raises(InputError, match="too slow"):
        fetch("http://many.test/x", max_bytes=10, rules=WebRules(timeout_s=0.7))

    assert len(tried) < 5
    assert tried == sorted(tried, reverse=True)
    assert tried[0] <= 0.7


def test_a_handshake_that_is_never_answered_is_left(names: dict[str, list[str]]):
    names["silent.test"] = ["127.0.0.1"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://silent.test:{listener.getsockname()[1]}/x.png"
        rules = WebRules(networks=HERE.networks, timeout_s=0.4)

        with pytest.raises(InputError, match="too slow"):
            fetch(url, max_bytes=10, rules=rules)


def test_repeated_attempts_share_the_time_limit_which_is_shorter_than_the_lease(
    port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NIGHTSHIFT_LEASE_S", "0.8")
    monkeypatch.setenv("NIGHTSHIFT_IMAGE_NETWORKS", "127.0.0.0/8")
    for cached in (http.web_rules, deadlines.fetch_timeout_s):
        cached.cache_clear()
    try:
        limit_s = deadlines.fetch_timeout_s()
        with pytest.raises(InputError, match="too slow"):
            read_bytes(f"http://127.0.0.1:{port}/drip", max_bytes=10, noun="image")
    finally:
        for cached in (http.web_rules, deadlines.fetch_timeout_s):
            cached.cache_clear()

    assert limit_s < 0.8
    assert len(_Pages.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://" + "a" * 5000 + ".test/x.png", "http://" + "ü." * 4000 + "test/",
        "http://h.test/" + "a" * 9000, "http://h.test/a\tb.png", "http://h\n.test/",
        "http://h.test/\x9b1m", "http://h.test/\0", "http://good.test\\.evil.test/x",
        "http://a b.test/x.png", "http://[fe80::1%25eth0]/x", "http://h%2etest/",
    ],
)  # fmt: skip
def test_what_no_address_may_look_like_is_refused_before_anyone_is_asked(
    url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it was looked up"))
    with pytest.raises(InputError) as caught:
        fetch(url, max_bytes=10, rules=HERE)

    assert caught.value.reason == "image_unreadable"
    assert len(caught.value.message) < 600


def test_a_redirect_to_an_endless_address_is_refused(port: int):
    assert refused(f"http://127.0.0.1:{port}/to?http://{'b' * 3000}.test/") == "image_unreadable"


def test_a_certificate_must_be_of_the_host_and_of_a_known_authority(
    tmp_path: Path,
    names: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tls_certificate: Callable[[str], tuple[Path, Path]],
):
    certificate, key = tls_certificate("images.test")
    names["images.test"] = names["other.test"] = ["127.0.0.1"]
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"https://images.test:{server.server_port}/x"

        unknown = refused(url)
        trusting = ssl.create_default_context(cafile=certificate)
        monkeypatch.setattr(http, "_tls", lambda: trusting)
        content = fetch(url, max_bytes=10, rules=HERE)
        foreign = refused(url.replace("images.test", "other.test"))
        server.shutdown()

    assert (unknown, content, foreign) == ("image_unreachable", b"image", "image_unreachable")


def test_the_rules_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NIGHTSHIFT_IMAGE_HOSTS", "a.test, *.b.test,")
    monkeypatch.setenv("NIGHTSHIFT_IMAGE_NETWORKS", "10.1.0.0/16,fd12::/32")
    http.web_rules.cache_clear()
    try:
        rules = http.web_rules()
    finally:
        http.web_rules.cache_clear()

    assert rules.hosts == ("a.test", "*.b.test")
    assert rules.allows_address(ip_address("10.1.2.3"))
    assert not rules.allows_address(ip_address("10.2.0.1"))
    assert Settings(_env_file=None).image_roots  # set for the tests
