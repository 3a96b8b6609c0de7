"""What the client's own connections take from the environment: proxies and certificates."""

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography import x509

from sms4sats_async import (
    InvalidArgumentError,
    RequestOutcome,
    RequestTimeoutError,
    Sms4SatsClient,
    Sms4SatsError,
    TransportError,
)
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
    opened,
    relayed_to,
    service,
    silent,
)

NAME = "service.invalid"


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


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTPS_PROXY": "{proxy}"},
        {"HTTP_PROXY": "{proxy}", "NO_PROXY": "127.0.0.1"},
        {"ALL_PROXY": "{proxy}", "no_proxy": "elsewhere.example, 127.0.0.1"},
        {"HTTP_PROXY": "{proxy}", "NO_PROXY": "*"},
        {"HTTP_PROXY": ""},
        {},
    ],
    ids=repr,
)
@pytest.mark.anyio
async def test_a_proxy_for_others_is_left_alone(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(service()) as proxy, Server(service()) as server:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(proxy=proxy.url))
        async with Sms4SatsClient(base_url=server.url) as client:
            await client.cancel_order(ORDER_ID)
        assert (proxy.accepted, len(server.seen)) == (0, 1)


@pytest.mark.parametrize(
    "value",
    [
        "socks5://127.0.0.1:9050",
        "socks5h://127.0.0.1:9050",
        "socks4://127.0.0.1:9050",
        "ftp://127.0.0.1:9",
        "http://[::1",
        "http://127.0.0.1:port",
        "http://",
        "://",
    ],
)
@pytest.mark.anyio
async def test_a_proxy_that_cannot_be_used_is_an_error_of_ours(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(Sms4SatsError) as caught:
        async with Sms4SatsClient(base_url=f"https://{NAME}", retry=ONCE) as client:
            await client.cancel_order(ORDER_ID)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT


@everywhere
@pytest.mark.anyio
async def test_a_silent_proxy_costs_no_more_than_the_time_of_an_attempt(adapter: str) -> None:
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
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
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


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_of_certificates_that_cannot_be_read_is_an_error_of_ours(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(InvalidArgumentError, match="SSL_CERT_FILE"):
        Sms4SatsClient()
