"""What connections take from the environment: proxies and certificates."""

import base64
import hashlib
import os
import traceback
from pathlib import Path
from typing import Any

import anyio
import certifi
import httpx
import httpx2
import pytest
from cryptography import x509

from sms4sats_async import (
    ClientStateError,
    InvalidArgumentError,
    RequestOutcome,
    RequestTimeoutError,
    Sms4SatsClient,
    TransportError,
)
from sms4sats_async._http.transports import environment as _environment
from sms4sats_async._http.transports import httpx as _httpx
from sms4sats_async._http.transports.environment import read_environment
from tests.servers import (
    KEY,
    ONCE,
    ORDER_ID,
    Peer,
    Script,
    Server,
    authority,
    certified,
    descriptors,
    eventually,
    everywhere,
    injectable,
    opened,
    relayed_to,
    service,
    silent,
)

NAME = "service.invalid"


@pytest.fixture(autouse=True)
def _no_certificates_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(variable, raising=False)


def proxy_to(port: int) -> Script:
    """Return a script that grants every tunnel, whatever its name, to this port of ours."""

    async def script(peer: Peer) -> None:
        seen = await peer.request()
        if seen is not None and seen.method == "CONNECT":
            await peer.send(b"HTTP/1.1 200 Go on\r\n\r\n")
            await relayed_to(port)(peer)

    return script


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
@pytest.mark.anyio
async def test_plain_http_goes_to_the_proxy_with_its_whole_url(
    variable: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(service()) as proxy:
        monkeypatch.setenv(variable, f"{scheme}127.0.0.1:{proxy.port}")
        async with Sms4SatsClient(base_url=f"http://{NAME}") as client:
            await client.cancel_order(ORDER_ID)
            await client.cancel_order(ORDER_ID)
        assert proxy.targets == [f"http://{NAME}/cancelorder?orderId={ORDER_ID}"] * 2
        assert proxy.accepted == 1


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.anyio
async def test_https_goes_through_a_tunnel_and_the_proxy_sees_neither_key_nor_order(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Server(service(), tls=certified(NAME)) as server,
        Server(proxy_to(server.port)) as proxy,
        authority().cert_pem.tempfile() as file,
    ):
        monkeypatch.setenv("SSL_CERT_FILE", file)
        monkeypatch.setenv(variable, proxy.url)
        async with Sms4SatsClient(base_url=f"https://{NAME}", api_key=KEY) as client:
            await client.cancel_order(ORDER_ID)
            await client.create_order(187, "tg", immediate=True)
        assert [(seen.method, seen.target) for seen in proxy.seen] == [
            ("CONNECT", f"{NAME}:443")
        ] * 2
        assert not any("x-api-key" in seen.headers for seen in proxy.seen)
        assert [seen.headers.get("x-api-key") for seen in server.seen] == [None, KEY]


@pytest.mark.anyio
async def test_a_proxys_credentials_go_to_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(service()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pa%40ss@127.0.0.1:{proxy.port}")
        async with Sms4SatsClient(base_url=f"http://{NAME}") as client:
            await client.cancel_order(ORDER_ID)
            assert "ss@" not in repr(client)
        wanted = base64.b64encode(b"user:pa@ss").decode()
        assert proxy.seen[0].headers["proxy-authorization"] == f"Basic {wanted}"


def proxy_of(root: str) -> str | None:
    """Return the proxy for a root, as the environment says."""
    proxy = read_environment(httpx.URL(root)).proxy
    return None if proxy is None else str(proxy.url)


# A root; what NO_PROXY says; whether the root is exempt.
EXEMPT: list[tuple[str, str, bool]] = [
    ("https://api.example.com", "api.example.com", True),
    ("https://API.example.com", "Api.EXAMPLE.com", True),
    ("https://api.example.com.", "api.example.com", True),
    ("https://api.example.com", "api.example.com.", True),
    ("https://api.example.com", "example.com", True),
    ("https://api.example.com", ".example.com", True),
    ("https://api.example.com", "*.example.com", True),
    ("https://example.com", ".example.com", True),
    ("https://example.com", "*.example.com", True),
    ("https://attackerexample.com", "example.com", False),
    ("https://attackerexample.com", "*example.com", False),
    ("https://example.com", "api.example.com", False),
    ("https://example.com.attacker", "example.com", False),
    ("https://api.example.com", "*", True),
    ("https://api.example.com", "elsewhere.example,*", True),
    ("https://api.example.com", "", False),
    ("https://api.example.com", " , ,", False),
    ("https://api.example.com", ".", False),
    ("https://api.example.com", "elsewhere.example, api.example.com", True),
    ("https://api.example.com", "elsewhere.example api.example.com", True),
    ("https://api.example.com", "api.example.com:443", True),
    ("https://api.example.com:8443", "api.example.com:8443", True),
    ("https://api.example.com:8443", "api.example.com", True),
    ("https://api.example.com", "api.example.com:8443", False),
    ("https://api.example.com", "api.example.com:", False),
    ("http://api.example.com", "api.example.com:80", True),
    ("https://api.example.com:0", "api.example.com:443", False),
    ("https://bücher.example", "bücher.example", True),
    ("https://bücher.example", "xn--bcher-kva.example", True),
    ("https://api.example.com", "a..b", False),
    ("https://127.0.0.1", "127.0.0.1", True),
    ("https://127.0.0.1:8021", "127.0.0.1:8021", True),
    ("https://127.0.0.1:8021", "127.0.0.1:8022", False),
    ("https://127.0.0.1", "0.0.1", False),
    ("https://127.0.0.1", "localhost", False),
    ("https://localhost", "localhost", True),
    ("https://localhost", "127.0.0.1", False),
    ("https://10.1.2.3", "10.0.0.0/8", True),
    ("https://10.1.2.3", "10.9.9.9/8", True),
    ("https://10.1.2.3", "10.0.0.0/255.0.0.0", True),
    ("https://11.1.2.3", "10.0.0.0/8", False),
    ("https://10.1.2.3", "10.0.0.0/99", False),
    ("https://10.1.2.3", "fd00::/8", False),
    ("https://api.example.com", "0.0.0.0/0", False),
    ("https://[::1]", "::1", True),
    ("https://[::1]", "[::1]", True),
    ("https://[::1]:8021", "::1", True),
    ("https://[::1]:8021", "[::1]", True),
    ("https://[::1]:8021", "[::1]:8021", True),
    ("https://[::1]:8021", "[::1]:8022", False),
    ("https://[::1]", "0:0:0:0:0:0:0:1", True),
    ("https://[::1]", "::1/128", True),
    ("https://[fd12::1]", "fd00::/8", True),
    ("https://[fd12::1]", "[fd00::]/8", True),
    ("https://[fd12::1]", "[fd00::/8]", True),
    ("https://[fe80::1]", "fd00::/8", False),
    ("https://[fd12::1]", "10.0.0.0/8", False),
]


@pytest.mark.parametrize(("root", "entries", "exempt"), EXEMPT, ids=str)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_exempts_a_host(
    variable: str, root: str, entries: str, *, exempt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv(variable, entries)
    assert proxy_of(root) == (None if exempt else "http://proxy.example:3128")


@pytest.mark.anyio
async def test_an_exempt_host_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Server(service(), tls=certified("127.0.0.1")) as server,
        Server(service()) as proxy,
        authority().cert_pem.tempfile() as file,
    ):
        monkeypatch.setenv("SSL_CERT_FILE", file)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        async with Sms4SatsClient(base_url=server.url) as client:
            await client.cancel_order(ORDER_ID)
        assert (proxy.accepted, len(server.seen)) == (0, 1)


# The environment; the proxy of an https root.
CHOSEN: list[tuple[dict[str, str], str | None]] = [
    ({}, None),
    ({"HTTP_PROXY": "http://a"}, None),
    ({"HTTPS_PROXY": ""}, None),
    ({"HTTPS_PROXY": "", "ALL_PROXY": "http://a"}, "http://a"),
    ({"HTTPS_PROXY": "http://a", "ALL_PROXY": "http://b"}, "http://a"),
    ({"HTTPS_PROXY": "http://a", "https_proxy": "http://b"}, "http://b"),
    ({"HTTPS_PROXY": "http://a", "https_proxy": ""}, None),
    ({"HTTPS_PROXY": "http://a", "NO_PROXY": "*", "no_proxy": ""}, "http://a"),
    ({"HTTPS_PROXY": "proxy.example:3128"}, "http://proxy.example:3128"),
    ({"HTTPS_PROXY": " http://a:1/\n"}, "http://a:1/"),
    ({"HTTPS_PROXY": "https://a"}, "https://a"),
    ({"HTTPS_PROXY": "http://[::1]:3128"}, "http://[::1]:3128"),
    ({"HTTPS_PROXY": "http://[fe80::1%25eth0]:3128"}, "http://[fe80::1%25eth0]:3128"),
    ({"HTTPS_PROXY": "http://bücher.example"}, "http://xn--bcher-kva.example"),
]


@pytest.mark.parametrize(("environment", "proxy"), CHOSEN, ids=repr)
def test_a_proxy_is_chosen_by_scheme_and_spelling(
    environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(f"https://{NAME}") == proxy


def test_a_header_of_a_cgi_request_is_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A web server passes the header `Proxy` to a CGI script as HTTP_PROXY."""
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    monkeypatch.setenv("HTTP_PROXY", "http://attacker.example")
    assert proxy_of(f"http://{NAME}") is None


@pytest.mark.parametrize(("exempt", "proxy"), [(False, "http://a"), (True, None)])
def test_the_systems_own_settings_have_their_own_exceptions(
    exempt: bool,  # noqa: FBT001 - a parameter of the table
    proxy: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows and macOS have such settings."""
    asked: list[str] = []

    def bypass(host: str) -> bool:
        asked.append(host)
        return exempt

    monkeypatch.setattr(_environment, "getproxies", lambda: {"https": "http://a"})
    monkeypatch.setattr(_environment, "proxy_bypass", bypass)
    assert proxy_of(f"https://{NAME}") == proxy
    assert proxy_of("https://[fd00::1]:8021") == proxy
    assert asked == [NAME, "[fd00::1]:8021"]


LOOPBACK = ["http://127.0.0.1:8021", "http://127.9.9.9", "http://localhost:8021", "http://[::1]"]


@pytest.mark.parametrize("root", LOOPBACK)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_plain_http_to_this_machine_has_no_proxy(
    variable: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://proxy.example:3128")
    assert proxy_of(root) is None


@pytest.mark.anyio
async def test_a_key_for_this_machine_reaches_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(service()) as proxy, Server(service()) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with Sms4SatsClient(base_url=server.url, api_key=KEY) as client:
            await client.create_order(187, "tg", immediate=True)
        assert proxy.accepted == 0
        assert [seen.headers["x-api-key"] for seen in server.seen] == [KEY]


INVALID_PROXIES = [
    " ",
    "http://",
    "://",
    "//127.0.0.1:9",
    "user@:80",
    "http://:3128",
    "http://[::1",
    "http:127.0.0.1:9",
    "http://127.0.0.1:port",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:65536",
    "http://127.0.0.1:0",
    "http://127.0.0.1:-1",
    "https://[::1]:99999",
    "http://a..b:3128",
    f"http://{'a' * 64}.example:3128",
    "http://two words:3128",
    "http://http://proxy.example:3128",
    "http://proxy.example/proxy.pac",
    "http://proxy.example:3128?x",
    "http://proxy.example:3128#x",
    "http://user:pa#ss@proxy.example:3128",
    "http://user:pa/ss@proxy.example:3128",
    "http://user:pa?ss@proxy.example:3128",
    "ftp://127.0.0.1:9",
    "socks4://127.0.0.1:9050",
    "socks5://127.0.0.1:9050",
    "socks5h://127.0.0.1:9050",
]


@pytest.mark.parametrize("value", INVALID_PROXIES)
def test_an_invalid_proxy_is_refused_when_the_client_is_made(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(InvalidArgumentError, match="the proxy in HTTPS_PROXY cannot be used"):
        Sms4SatsClient()


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_an_invalid_proxy_is_named_as_the_variable_is_spelled(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:99999")
    with pytest.raises(InvalidArgumentError, match=f"in {variable} cannot be used: its port"):
        Sms4SatsClient()


def test_an_invalid_proxy_of_the_system_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_environment, "getproxies", lambda: {"all": "http://127.0.0.1:99999"})
    with pytest.raises(InvalidArgumentError, match="the system's settings cannot be used"):
        Sms4SatsClient()


@pytest.mark.parametrize("value", [value for value in INVALID_PROXIES if "pa" in value])
def test_an_invalid_proxy_is_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value.replace("pa", "s3cr"))
    with pytest.raises(InvalidArgumentError) as caught:
        Sms4SatsClient()
    assert "s3cr" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("root", ["https://service.invalid", "http://service.invalid"])
@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.anyio
async def test_an_injected_client_with_an_invalid_proxy_sends_nothing(
    library: Any, root: str
) -> None:
    async with library.AsyncClient(proxy="http://127.0.0.1:99999") as http_client:
        client = Sms4SatsClient(base_url=root, http_client=http_client, retry=ONCE)
        with pytest.raises(TransportError, match="no connection") as caught:
            await client.cancel_order(ORDER_ID)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT


@pytest.mark.asyncio
async def test_an_odd_failure_to_connect_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(**_options: object) -> None:
        raise ExceptionGroup("odd", [OverflowError("port")])

    monkeypatch.setattr(anyio, "connect_tcp", fail)
    async with Sms4SatsClient(base_url=f"https://{NAME}", retry=ONCE) as client:
        with pytest.raises(TransportError, match=r"no connection \(OverflowError\)") as caught:
            await client.cancel_order(ORDER_ID)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT


@pytest.mark.parametrize(
    ("adapter", "anyio_backend"),
    [
        ("httpx", "asyncio"),
        ("httpx", "trio"),
        ("httpx2", "asyncio"),
        ("httpx2", "trio"),
        ("aiohttp", "asyncio"),
    ],
)
@pytest.mark.anyio
async def test_an_injected_client_never_sends_the_key_to_a_proxy_without_tls(adapter: str) -> None:
    """The proxy's name is not even looked up."""
    async with injectable(adapter, proxy="http://proxy.invalid:3128") as http_client:
        client = Sms4SatsClient(
            base_url="http://127.0.0.1:1", http_client=http_client, api_key=KEY, retry=ONCE
        )
        with pytest.raises(ClientStateError, match="would send the API key to a proxy") as caught:
            await client.get_balance()
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.anyio
async def test_a_key_is_not_sent_over_an_open_connection_to_a_proxy_without_tls(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_loopback(host: str) -> bool:
        return host == "localhost"  # the proxy runs here, and counts as elsewhere

    monkeypatch.setattr(_httpx, "is_loopback", is_loopback)
    with Server(service()) as proxy:
        async with library.AsyncClient(proxy=proxy.url) as http_client:
            client = Sms4SatsClient(
                base_url="http://localhost:1", http_client=http_client, api_key=KEY, retry=ONCE
            )
            await client.cancel_order(ORDER_ID)
            with pytest.raises(ClientStateError, match="would send the API key to a proxy"):
                await client.create_order(187, "tg", immediate=True)
            await client.cancel_order(ORDER_ID)
        assert not any("x-api-key" in seen.headers for seen in proxy.seen)


@pytest.mark.parametrize("adapter", ["httpx", "httpx2", "aiohttp"])
@pytest.mark.asyncio
async def test_a_proxy_on_this_machine_may_see_the_key(adapter: str) -> None:
    with Server(service()) as proxy:
        async with injectable(adapter, proxy=proxy.url) as http_client:
            client = Sms4SatsClient(
                base_url="http://localhost:1", http_client=http_client, api_key=KEY, retry=ONCE
            )
            await client.create_order(187, "tg", immediate=True)
        assert [seen.headers["x-api-key"] for seen in proxy.seen] == [KEY]


@everywhere
@pytest.mark.anyio
async def test_an_attempt_with_a_silent_proxy_ends_in_time(adapter: str) -> None:
    """Only aiohttp can prove that nothing was sent."""
    before = descriptors()
    with Server(silent) as proxy:
        async with opened(
            adapter, f"https://{NAME}", proxy=proxy.url, timeout=0.1, retry=ONCE
        ) as client:
            with pytest.raises(RequestTimeoutError):
                await client.cancel_order(ORDER_ID)
        await proxy.settled()
    await eventually(lambda: descriptors() == before)


def name_hash(certificate: bytes) -> str:
    """Return the hash by which OpenSSL finds a certificate in a folder (X509_NAME_hash)."""
    canonical = b"".join(
        x509.Name([x509.NameAttribute(part.oid, str(part.value).lower())]).public_bytes()[2:]
        for part in x509.load_pem_x509_certificate(certificate).subject
    )
    digest = hashlib.sha1(canonical, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.anyio
async def test_certificates_named_by_the_environment_are_trusted(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = authority().cert_pem.bytes()
    file = tmp_path / f"{name_hash(certificate)}.0"
    file.write_bytes(certificate)
    monkeypatch.setenv(variable, str(file if variable == "SSL_CERT_FILE" else tmp_path))
    with Server(service(), tls=certified("127.0.0.1")) as server:
        async with Sms4SatsClient(base_url=server.url, retry=ONCE) as client:
            await client.cancel_order(ORDER_ID)
            await client.cancel_order(ORDER_ID)
        assert server.accepted == 1


@pytest.mark.anyio
async def test_without_them_such_a_certificate_is_refused() -> None:
    with Server(service(), tls=certified("127.0.0.1")) as server:
        async with Sms4SatsClient(base_url=server.url, retry=ONCE) as client:
            with pytest.raises(TransportError) as caught:
                await client.cancel_order(ORDER_ID)
        assert caught.value.request_outcome is RequestOutcome.NOT_SENT


@pytest.mark.anyio
async def test_a_proxy_with_tls_needs_a_trusted_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        Server(service(), tls=certified(NAME)) as server,
        Server(proxy_to(server.port), tls=certified("127.0.0.1")) as proxy,
        authority().cert_pem.tempfile() as file,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with Sms4SatsClient(base_url=f"https://{NAME}", retry=ONCE) as client:
            with pytest.raises(TransportError) as caught:
                await client.cancel_order(ORDER_ID)
        assert caught.value.request_outcome is RequestOutcome.NOT_SENT
        assert proxy.seen == []
        monkeypatch.setenv("SSL_CERT_FILE", file)
        async with Sms4SatsClient(base_url=f"https://{NAME}", retry=ONCE) as client:
            await client.cancel_order(ORDER_ID)
        assert [seen.method for seen in proxy.seen] == ["CONNECT"]


@pytest.mark.parametrize("root", [f"https://{NAME}", f"http://{NAME}"])
def test_a_proxy_with_tls_is_trusted_by_the_same_certificates(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read once, not at each connect."""
    monkeypatch.setenv("ALL_PROXY", "https://proxy.example")
    environment = read_environment(httpx.URL(root))
    assert environment.proxy is not None
    assert environment.proxy.ssl_context is environment.tls


@pytest.mark.anyio
async def test_several_folders_of_certificates_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = authority().cert_pem.bytes()
    (tmp_path / f"{name_hash(certificate)}.0").write_bytes(certificate)
    monkeypatch.setenv("SSL_CERT_DIR", os.pathsep.join(["", "/nonexistent", str(tmp_path)]))
    with Server(service(), tls=certified("127.0.0.1")) as server:
        async with Sms4SatsClient(base_url=server.url, retry=ONCE) as client:
            await client.cancel_order(ORDER_ID)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Files and folders that hold no certificate, as most see it."""
    (tmp_path / "empty.pem").touch()
    (tmp_path / "text.pem").write_text("no certificate")
    (tmp_path / "folder").mkdir()
    # Only a name that OpenSSL has hashed is found.
    (tmp_path / "folder" / "company.pem").write_bytes(authority().cert_pem.bytes())
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSL_CERT_FILE", "{tmp}/nonexistent"),
        ("SSL_CERT_FILE", "{tmp}/empty.pem"),
        ("SSL_CERT_FILE", "{tmp}/text.pem"),
        ("SSL_CERT_FILE", "{tmp}/folder"),
        ("SSL_CERT_FILE", " "),
        ("SSL_CERT_FILE", "~/company.pem"),
        ("SSL_CERT_DIR", "{tmp}/nonexistent"),
        ("SSL_CERT_DIR", "{tmp}/folder"),
        ("SSL_CERT_DIR", "{tmp}/empty"),
        ("SSL_CERT_DIR", "{tmp}/text.pem"),
        ("SSL_CERT_DIR", "{tmp}/empty" + os.pathsep + "{tmp}/nonexistent"),
        ("SSL_CERT_DIR", os.pathsep),
        ("SSLKEYLOGFILE", "{tmp}/nonexistent/keys"),
        ("SSLKEYLOGFILE", "{tmp}/folder"),
    ],
)
def test_unusable_certificates_are_refused_by_the_name_of_the_variable(
    variable: str, value: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value.format(tmp=certificates))
    with pytest.raises(InvalidArgumentError, match=f"^{variable} names"):
        Sms4SatsClient()


@pytest.mark.parametrize(
    ("variable", "value"), [("SSL_CERT_FILE", "certificate.pem"), ("SSL_CERT_DIR", "folder")]
)
def test_the_error_of_an_unusable_key_log_does_not_name_the_certificates(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = authority().cert_pem.bytes()
    (tmp_path / "certificate.pem").write_bytes(certificate)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"{name_hash(certificate)}.0").write_bytes(certificate)
    monkeypatch.setenv(variable, str(tmp_path / value))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "nonexistent" / "keys"))
    with pytest.raises(InvalidArgumentError, match=r"^SSLKEYLOGFILE names"):
        Sms4SatsClient()


def test_the_error_of_missing_certificates_of_certifi_names_no_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certifi, "where", lambda: "/nonexistent")
    with pytest.raises(InvalidArgumentError, match=r"^the certificates of certifi"):
        Sms4SatsClient()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"])
def test_without_tls_no_certificates_are_read(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/nonexistent/file")
    Sms4SatsClient(base_url=f"http://{NAME}")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_an_empty_variable_counts_as_not_set(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "")
    Sms4SatsClient()
