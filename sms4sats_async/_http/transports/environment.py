"""Read from the environment what the client's own connections need: a proxy and certificates.

Everything invalid is an `InvalidArgumentError` that names the variable, raised when the client is
made. No message shows a value, because a proxy's URL can hold a password.
"""

from __future__ import annotations

import os
import re
import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.request import getproxies, proxy_bypass

import attrs
import httpx

from sms4sats_async._validate import is_loopback
from sms4sats_async.errors import InvalidArgumentError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f]*:[0-9a-f:.]+(%.+)?")
_NOT_A_PROXY: Final = (
    "it is not a URL such as http://user:password@host:3128 (also https, socks5 and socks5h; in a "
    "password, write / ? # as %2F %3F %23)"
)
_PORTS: Final = range(1, 65536)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# What OpenSSL looks for in a folder: the hash of a name, and a number.
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")


@attrs.frozen
class Environment:
    """What the environment says about connections to one root.

    Attributes:
        proxy: The proxy for this root, or None.
        tls: The certificates to trust; an empty context if no connection needs TLS.
    """

    proxy: httpx.Proxy | None
    tls: ssl.SSLContext


def read_environment(root: httpx.URL) -> Environment:
    """Return the proxy and the certificates for connections to `root`.

    Raises:
        InvalidArgumentError: If a variable has a value that cannot be used.
    """
    proxy = _proxy(root)
    if root.scheme != "https" and (proxy is None or proxy.url.scheme != "https"):
        # Reading certificates takes milliseconds, and nothing here needs them.
        return Environment(proxy, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    tls = _tls()
    if proxy is not None and proxy.url.scheme == "https":
        # Otherwise httpcore would trust other certificates there, and read them at each connect.
        proxy.ssl_context = tls
    return Environment(proxy, tls)


# --- the proxy ------------------------------------------------------------------------------------


def _proxy(root: httpx.URL) -> httpx.Proxy | None:
    """Return the proxy for `root`, or None.

    Plain HTTP to this machine never goes through a proxy: the API key and the order ID would be
    readable there.
    """
    host = root.raw_host.decode("ascii")
    if root.scheme == "http" and is_loopback(host):
        return None
    proxies = getproxies()
    # An empty variable counts as one that is not set.
    kind = root.scheme if proxies.get(root.scheme) else "all"
    value = proxies.get(kind)
    if not value:
        return None
    variable = _variable(f"{kind}_proxy", value)
    if variable is None:
        # Windows and macOS have proxies in the system's settings, with exceptions of their own.
        exempt = proxy_bypass(root.netloc.decode("ascii"))
    else:
        port = _DEFAULT_PORTS[root.scheme] if root.port is None else root.port
        exempt = is_exempt(host, port, proxies.get("no", ""))
    return None if exempt else _read_proxy(value, variable)


def _variable(name: str, value: str) -> str | None:
    """Return how the variable is spelled that holds `value`, or None if none does."""
    spelled = [key for key, found in os.environ.items() if key.lower() == name and found == value]
    # Lower case wins over upper case, in `getproxies` and in the order of letters.
    return max(spelled, default=None)


def _read_proxy(value: str, variable: str | None) -> httpx.Proxy:
    """Return the proxy that a value names; a value without a scheme is a host."""
    value = value.strip()
    reason: str | None
    try:
        url = httpx.URL(value if "://" in value else f"http://{value}")
        # The parts of a name have at least 1 character, at most 63.
        url.raw_host.decode("ascii").encode("idna")
        proxy = httpx.Proxy(url)
        if url.scheme.startswith("socks"):
            # Opens nothing, but httpx looks for the package that it needs.
            httpx.AsyncHTTPTransport(proxy=proxy, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except ImportError:
        reason = "SOCKS needs `pip install 'httpx[socks]'`"
    except (httpx.InvalidURL, ValueError):
        reason = _NOT_A_PROXY
    else:
        reason = _reason_against(url)
        if reason is None:
            return proxy
    where = "the system's settings" if variable is None else variable
    problem = (
        f"the proxy in {where} cannot be used: {reason}. Correct it, remove it, or name the "
        "service's host in NO_PROXY"
    )
    # Without the cause: httpx quotes parts of the URL, which can be parts of a password.
    raise InvalidArgumentError(problem) from None


def _reason_against(url: httpx.URL) -> str | None:
    """Return why a URL cannot be a proxy's, or None; httpx would notice at the first connect."""
    if _HOST.fullmatch(url.raw_host.decode("ascii")) is None:
        return "its host is missing or invalid"
    if url.port is not None and url.port not in _PORTS:
        return "its port is not between 1 and 65535"
    return None if url.raw_path == b"/" and not url.fragment else _NOT_A_PROXY


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Return whether `NO_PROXY` names a host.

    Not urllib's own check: that one knows neither networks nor IPv6 addresses.

    Args:
        host: The host, in lower case and ASCII; an IPv6 address without brackets.
        port: The port.
        no_proxy: Names, addresses and networks, each with a port or without one.
    """
    address = _address(host)
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        if entry == "*":
            return True
        name, entry_port = _split_port(entry)
        if entry_port not in {None, port}:
            continue
        if _is_within(host, name) if address is None else _is_in_network(address, name):
            return True
    return False


def _split_port(entry: str) -> tuple[str, int | None]:
    """Return an entry without its port and without brackets, and the port."""
    name, colon, port = entry.rpartition(":")
    # All the colons of an IPv6 address belong to it, unless it is in brackets.
    if not colon or not port.isdecimal() or (":" in name and not name.endswith("]")):
        return entry.replace("[", "").replace("]", ""), None
    return name.strip("[]"), int(port)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_in_network(address: IPv4Address | IPv6Address, name: str) -> bool:
    """Return whether an entry is this address or a network with it; a name is neither."""
    try:
        return address in ip_network(name, strict=False)
    except ValueError:
        return False


def _is_within(host: str, name: str) -> bool:
    """Return whether an entry names this host or a domain above it.

    Like curl and urllib, and unlike Go: `.example.com` and `*.example.com` mean `example.com` too.
    """
    name = name.removeprefix("*").strip(".")
    try:
        name = name.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    host = host.rstrip(".")
    return name != "" and (host == name or host.endswith(f".{name}"))


# --- certificates ---------------------------------------------------------------------------------


def _tls() -> ssl.SSLContext:
    """Return one context for all connections; httpx alone would ignore what it cannot use."""
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        if file:
            return ssl.create_default_context(cafile=file)
        if folders:
            _check_folders(folders)
            return ssl.create_default_context(capath=folders)
        return httpx.create_ssl_context()
    except OSError as error:
        key_log = os.environ.get("SSLKEYLOGFILE")
        if key_log is not None and error.filename == key_log:
            problem = "SSLKEYLOGFILE names a file that cannot be written; correct it or unset it"
        elif file:
            problem = "SSL_CERT_FILE names a file without readable certificates; correct it"
        else:
            problem = "the certificates of certifi cannot be read; reinstall certifi"
        raise InvalidArgumentError(problem) from error


def _check_folders(folders: str) -> None:
    """Refuse folders without any certificate that OpenSSL could find.

    OpenSSL itself reads a folder only once a server has shown its certificate, and ignores one
    that does not exist. It takes a list of folders.
    """
    if not any(map(_holds_certificates, filter(None, folders.split(os.pathsep)))):
        problem = (
            "SSL_CERT_DIR names no folder with certificates that OpenSSL finds there; correct it, "
            "or run `openssl rehash` on the folder"
        )
        raise InvalidArgumentError(problem)


def _holds_certificates(folder: str) -> bool:
    try:
        return any(_HASHED.fullmatch(path.name) for path in Path(folder).iterdir())
    except OSError:
        return False
