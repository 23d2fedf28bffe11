"""Names in the server's certificate, and whether the listeners answer to them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from cryptography import x509

from coordinator.configuration import Configuration, join_host_port
from coordinator.enrolment.authority import Authority
from coordinator.enrolment.issuing import server_names
from coordinator.home import Home, is_serving
from nightshift.host.findings import Finding
from nightshift.protocol.errors import ExitCode

CONNECT_LIMIT_S = 5.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a listener on all addresses is reached from here


def check_names(configuration: Configuration, authority: Authority) -> Iterator[Finding]:
    """Whether devices will believe the server, and find it."""
    listen = configuration.listen
    server = authority.certificates().get("server")
    wanted = server_names(listen.addresses)
    if server is not None:
        present = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if present == wanted:
            yield Finding.ok("names", f"the server's certificate is for {', '.join(listen.addresses)}")
        else:
            yield Finding.warning(
                "names",
                "the server's certificate is for other names than listen.addresses",
                "restart `coordinator serve`, which makes a new one",
            )
    for key in ("public_device_address", "public_join_address", "public_admin_address"):
        host = getattr(listen, key).rpartition(":")[0].strip("[]")
        if host and host not in listen.addresses:
            yield Finding.problem(
                "names",
                f"listen.{key} names {host}, for which the certificate is not made",
                "put it among listen.addresses",
                ExitCode.USAGE,
            )
    yield _resolved(listen.addresses[0])


def check_listeners(home: Home, configuration: Configuration, authority: Authority) -> Iterator[Finding]:
    """A TLS handshake with each listener; where nothing serves, whether its port is free."""
    listen, serving = configuration.listen, is_serving(home)
    ports = [("port", listen.host, listen.port), ("join_port", listen.host, listen.join_port)]
    if listen.admin_port:
        ports.append(("admin_port", listen.admin_host, listen.admin_port))
    for key, host, port in ports:
        if serving:
            yield _answers(key, _EVERYWHERE.get(host, host), port, listen.addresses[0], authority)
        else:
            yield _free(key, host, port)
    if not serving:
        yield Finding.warning("service", "nothing serves this directory", "start it: coordinator serve")


def _resolved(name: str) -> Finding:
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError as error:
        return Finding.warning(
            "address",
            f"{name} is not found from here: {error}",
            "let the network's DNS know it, or name another address",
        )
    return Finding.ok("address", f"{name} is {', '.join(found[:3])}")


def _answers(key: str, host: str, port: int, name: str, authority: Authority) -> Finding:
    place = join_host_port(host, port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.root_pem.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), timeout=CONNECT_LIMIT_S) as plain,
            context.wrap_socket(plain, server_hostname=name) as channel,
        ):
            return Finding.ok(f"listener {key}", f"{place} answers as {name}, {channel.version()}")
    except ssl.SSLCertVerificationError as error:
        return Finding.problem(
            f"listener {key}",
            f"{place} shows another certificate: {error.verify_message}",
            "another program listens there, or an old process: restart `coordinator serve`",
            ExitCode.VERIFICATION_FAILED,
        )
    except OSError as error:
        return Finding.problem(
            f"listener {key}",
            f"{place} does not answer: {error}",
            "restart `coordinator serve`, and look at its log",
            ExitCode.UNREACHABLE,
        )


def _free(key: str, host: str, port: int) -> Finding:
    place = join_host_port(host, port)
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return Finding.ok(f"listener {key}", f"{place} is free")
    except OSError as error:
        return Finding.problem(
            f"listener {key}",
            f"{place} cannot be used: {error.strerror}",
            f"stop the program that listens there, or change listen.{key} in coordinator.toml",
            ExitCode.USAGE,
        )
