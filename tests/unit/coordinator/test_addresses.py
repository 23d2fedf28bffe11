"""Where devices are told to call: from coordinator.toml, numbered whenever it changes, signed."""

from __future__ import annotations

import pytest

from coordinator.configuration import Configuration, Listen, read_configuration
from coordinator.deployment import Deployment
from coordinator.enrolment.addresses import announcement, record_addresses
from coordinator.home import Home
from nightshift.protocol.addresses import AddressBook, verify_addresses
from nightshift.protocol.errors import UsageError

NOW = 1_800_000_000


def configured(address: str) -> Configuration:
    return Configuration(listen=Listen(addresses=[address]))


def test_the_number_grows_with_each_change_and_only_then(deployment: Deployment) -> None:
    first, second = configured("a.example"), configured("b.example")
    with deployment.database.transaction() as session:
        assert announcement(session, deployment.authority) is None
        assert record_addresses(session, first, NOW).number == NOW
        assert record_addresses(session, first, NOW + 9).number == NOW
        assert record_addresses(session, second, NOW + 10).number == NOW + 10
        # A clock that was put back does not make a newer message look older.
        assert record_addresses(session, first, NOW - 999).number == NOW + 11
        message = announcement(session, deployment.authority)
    assert message is not None
    book = verify_addresses(message, trust=deployment.trust, last_number=NOW + 11)
    assert book == AddressBook(NOW + 11, "a.example:7444", "a.example:7443")


def test_behind_a_load_balancer_devices_are_told_the_public_address() -> None:
    listen = Listen(public_device_address="b.example:443", public_join_address="[2001:db8::1]:444")
    public = Configuration(listen=listen)
    assert (public.device_address(), public.join_address()) == ("b.example:443", "[2001:db8::1]:444")


@pytest.mark.parametrize("text", ["b.example", "unix:/tmp/x", "b.example:0"])
def test_a_public_address_that_is_none_is_named(home: Home, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NIGHTSHIFT_COORDINATOR_LISTEN_PUBLIC_DEVICE_ADDRESS", text)
    with pytest.raises(UsageError, match=r"public_device_address.*not host:port"):
        read_configuration(home)
