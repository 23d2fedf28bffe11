"""The way to the coordinator: name, proxy, TCP, TLS; nothing is sent but a handshake."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_client.identity import Membership
from nightshift.host.findings import Finding
from nightshift.protocol.errors import ExitCode

WITHIN_S = 5.0
_PROXY_REPLY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that speaks CONNECT; name and password, if any, are for gRPC alone.

    Attributes:
        variable: that names it.
        host: of the proxy.
        port: of the proxy.
    """

    variable: str
    host: str
    port: int


def proxy_for(host: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy that gRPC takes on its way to a host.

    As gRPC's doc/environment_variables.md says: grpc_proxy, https_proxy and http_proxy in this order, lower case;
    no_grpc_proxy or no_proxy names what is reached directly, by the end of its name. The first variable that is set
    decides, also when it is empty (seen with grpcio 1.85).
    """
    direct = environment.get("no_grpc_proxy") or environment.get("no_proxy") or ""
    if any(host.lower().endswith(part.strip().lower()) for part in direct.split(",") if part.strip()):
        return None
    for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
        if variable in environment:
            parts = urlsplit(environment[variable])
            usable = parts.scheme == "http" and parts.hostname
            return Proxy(variable, parts.hostname or "", parts.port or 80) if usable else None
    return None


def check_network(membership: Membership) -> Iterator[Finding]:
    """Each step builds on the one before; the first that fails ends the list."""
    name, _, digits = membership.device_address.rpartition(":")
    host, port = name.strip("[]"), int(digits)
    proxy = proxy_for(host, os.environ)
    target, target_port = (host, port) if proxy is None else (proxy.host, proxy.port)
    if proxy is not None:
        yield Finding.ok("proxy", f"{proxy.host}:{proxy.port} ({proxy.variable})")
    try:
        addresses = sorted(
            {str(each[4][0]) for each in socket.getaddrinfo(target, target_port, type=socket.SOCK_STREAM)}
        )
    except OSError as error:
        yield Finding.problem(
            "DNS", f"{target} has no address: {error}", "check the network, and the name with the operator",
            ExitCode.UNREACHABLE,
        )  # fmt: skip
        return
    yield Finding.ok("DNS", f"{target} is {', '.join(addresses[:4])}")
    try:
        connection = socket.create_connection((target, target_port), WITHIN_S)
    except OSError as error:
        yield Finding.problem(
            "TCP",
            f"{target}:{target_port} does not answer: {error}",
            "is the coordinator running, and does a firewall let this port through?",
            ExitCode.UNREACHABLE,
        )
        return
    with connection:
        yield Finding.ok("TCP", f"{target}:{target_port} answers")
        if proxy is not None:
            refused = _connect_through(connection, host, port)
            if refused:
                yield Finding.problem("proxy", refused, "see https_proxy and no_proxy", ExitCode.UNREACHABLE)
                return
        yield _handshake(connection, host, membership.root)


def _connect_through(connection: socket.socket, host: str, port: int) -> str:
    """Ask the proxy for the way (RFC 9110, section 9.3.6); empty if it opened."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii"))
        reply = connection.recv(_PROXY_REPLY_BYTES)
    except OSError as error:
        return f"the proxy does not answer: {error}"
    words = reply.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        return "what answers is no HTTP proxy"
    return "" if words[1] == b"200" else f"the proxy refuses with status {words[1][:3].decode('ascii', 'replace')}"


def _handshake(connection: socket.socket, host: str, root_der: bytes) -> Finding:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=root_der)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=host) as secure:
            return Finding.ok("TLS", f"{secure.version()}, the server holds a certificate of the expected root")
    except ssl.SSLCertVerificationError as error:
        return Finding.problem(
            "TLS",
            f"the server's certificate is not the coordinator's: {error.verify_message}",
            "behind a captive portal log in there; if a date is wrong set the clock; else ask the operator",
            ExitCode.VERIFICATION_FAILED,
        )
    except (OSError, ssl.SSLError) as error:
        return Finding.problem(
            "TLS",
            f"what answers does not finish a TLS handshake: {error}",
            "a captive portal, or another program on that port? ask the operator for the address",
            ExitCode.UNREACHABLE,
        )
