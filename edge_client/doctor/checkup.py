"""The whole check-up, in the order in which its parts build on each other."""

from __future__ import annotations

from collections.abc import Iterator

from edge_client.conditions.checklist import Machine
from edge_client.configuration import Configuration, cache_directory
from edge_client.doctor.holdings import check_certificates, check_holdings
from edge_client.doctor.machine import check_machine
from edge_client.doctor.network import check_network
from edge_client.doctor.service import check_service
from edge_client.home import Home
from edge_client.identity import load_identity, load_membership
from edge_client.store import open_store
from nightshift.host.findings import Finding
from nightshift.protocol.errors import ExitCode, NightshiftError


def check_up(home: Home, configuration: Configuration, *, hashes: bool, network: bool) -> Iterator[Finding]:
    """Check everything; each finding comes as soon as it is known.

    Args:
        home: the device's directories.
        configuration: the owner's settings, valid.
        hashes: read every model file again.
        network: call the coordinator.
    """
    yield Finding.ok("configuration", f"{home.config_file} is understood")
    yield from check_machine(configuration.conditions, cache_directory(home, configuration.cache), Machine())
    try:
        identity, membership = load_identity(home), load_membership(home)
    except NightshiftError as error:
        yield Finding.of_error("identity", error)
        return
    if identity is None or membership is None:
        yield Finding.problem(
            "membership",
            "this device belongs to no coordinator; models work here without one",
            "to take part ask an operator for a token, then: edge-client join TOKEN",
            ExitCode.NOT_JOINED,
        )
    else:
        yield Finding.ok("membership", f"joined {membership.device_address}")
        yield from check_certificates(membership)
        if network:
            yield from check_network(membership)
    try:
        with open_store(home) as store:
            yield from check_holdings(home, configuration, store, hashes=hashes)
    except NightshiftError as error:
        yield Finding.of_error("store", error)
    yield from check_service(home)
