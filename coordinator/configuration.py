"""coordinator.toml: what `init` writes and an operator may change."""

from __future__ import annotations

import json
import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from coordinator.home import Home
from nightshift.host.configuration import load
from nightshift.protocol.addresses import is_address
from nightshift.protocol.errors import UsageError

DATA_VARIABLE = "NIGHTSHIFT_COORDINATOR_DATA"
PREFIX = "NIGHTSHIFT_COORDINATOR_"
ADMIN_ADDRESS_VARIABLE = PREFIX + "ADMIN_ADDRESS"
ADMIN_CREDENTIALS_VARIABLE = PREFIX + "ADMIN_CREDENTIALS"
LOG_FORMAT_VARIABLE = PREFIX + "LOG_FORMAT"
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(_Section):
    """Where the service listens, and by which names devices call it.

    Attributes:
        addresses: in the server's certificate; devices call the first one.
        host: to listen on.
        port: for enrolled devices.
        join_port: for devices without a valid certificate.
        public_device_address: host:port that devices call instead, behind a load balancer or a port forwarding.
        public_join_address: the same for devices that join.
        threads: for calls of enrolled devices.
        admin_host: to listen on for operators; they are asked for certificates of the admin authority.
        admin_port: for operators; 0 for no such listener.
        public_admin_address: host:port that operators call instead.
        drain_s: how long calls that are under way may go on when the service ends.
    """

    addresses: list[str] = Field(default=["localhost"], min_length=1)
    host: str = "0.0.0.0"  # noqa: S104 - a service for other machines; an operator narrows it here
    port: int = Field(default=7443, ge=1, le=65535)
    join_port: int = Field(default=7444, ge=1, le=65535)
    public_device_address: str = ""
    public_join_address: str = ""
    threads: int = Field(default=16, ge=4, le=256)
    admin_host: str = "127.0.0.1"
    admin_port: int = Field(default=0, ge=0, le=65535)
    public_admin_address: str = ""
    drain_s: float = Field(default=20.0, ge=0, le=3600)

    @field_validator("public_device_address", "public_join_address", "public_admin_address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        if value and not is_address(value):
            raise ValueError(f"{value!r} is not host:port")
        return value


class Storage(_Section):
    """Where rows and objects lie; empty means inside the data directory.

    Attributes:
        database: `postgresql://user@host/name`; a password is better in the environment (PGPASSWORD) or ~/.pgpass.
        objects: `s3://bucket/prefix`; the access key comes from the environment or the machine's role.
        objects_endpoint: of a store other than Amazon's.
        objects_region: of the bucket.
    """

    database: str = Field(default="", repr=False)
    objects: str = ""
    objects_endpoint: str = ""
    objects_region: str = "us-east-1"


class Limits(_Section):
    """What one device may ask for.

    Attributes:
        upload_stream_s: longest upload stream; what came is kept.
        download_stream_s: longest stream of a file or a bundle; the device goes on from its offset.
        prekeys_per_device: most unspent ones held here.
        calls_per_minute: of one certificate, in the long run.
        calls_burst: of one certificate, after a pause.
        calls_at_once: of one certificate.
        joins_per_minute: joins and late renewals from one network address, in the long run.
        joins_burst: from one network address, after a pause.
    """

    upload_stream_s: int = Field(default=300, ge=1)
    download_stream_s: int = Field(default=3600, ge=1)
    prekeys_per_device: int = Field(default=16, ge=1, le=256)
    calls_per_minute: int = Field(default=120, ge=1, le=1_000_000)
    calls_burst: int = Field(default=120, ge=1, le=1_000_000)
    calls_at_once: int = Field(default=4, ge=1, le=256)
    joins_per_minute: int = Field(default=60, ge=1, le=1_000_000)
    joins_burst: int = Field(default=100, ge=1, le=1_000_000)


class Metrics(_Section):
    """Where Prometheus may ask; without TLS and without a password, so keep it on loopback or a private network.

    Attributes:
        host: to listen on.
        port: 0 for no such listener.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)


class Compute(_Section):
    """Where sums are opened.

    Attributes:
        backend: "inline", in the thread that asks; or "threads", on several processors.
        workers: threads of one opening; 0 for as many as there are processors.
    """

    backend: Literal["inline", "threads"] = "inline"
    workers: int = Field(default=0, ge=0, le=256)


class Certificates(_Section):
    """How long a device may come back.

    Attributes:
        late_renewal_days: after its certificate's end; 0 wants a new token as soon as one has expired.
    """

    late_renewal_days: int = Field(default=90, ge=0, le=3650)


class Configuration(_Section):
    """The whole file."""

    listen: Listen = Listen()
    storage: Storage = Storage()
    limits: Limits = Limits()
    metrics: Metrics = Metrics()
    compute: Compute = Compute()
    certificates: Certificates = Certificates()

    def device_address(self) -> str:
        """host:port that an enrolled device calls."""
        return self.listen.public_device_address or join_host_port(self.listen.addresses[0], self.listen.port)

    def join_address(self) -> str:
        """host:port that a device without a certificate calls."""
        return self.listen.public_join_address or join_host_port(self.listen.addresses[0], self.listen.join_port)

    def admin_address(self) -> str:
        """host:port that an operator calls; empty without such a listener."""
        listen = self.listen
        if listen.public_admin_address or not listen.admin_port:
            return listen.public_admin_address
        host = listen.addresses[0] if listen.admin_host in _EVERYWHERE else listen.admin_host
        return join_host_port(host, listen.admin_port)


def join_host_port(host: str, port: int) -> str:
    """`host:port`, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_configuration(home: Home) -> Configuration:
    """Read the file of an initialised coordinator.

    Raises:
        UsageError: not initialised, unknown keys, values out of range.
    """
    if not home.configuration_file.exists():
        raise UsageError(
            f"{home.directory} holds no coordinator; run `coordinator --data {home.directory} init`, "
            f"or name another directory with --data or {DATA_VARIABLE}"
        )
    return load(
        Configuration,
        file=home.configuration_file,
        environment=os.environ,
        prefix=PREFIX,
        reserved=(DATA_VARIABLE, ADMIN_ADDRESS_VARIABLE, ADMIN_CREDENTIALS_VARIABLE, LOG_FORMAT_VARIABLE),
    ).values


def configuration_text(listen: Listen, storage: Storage) -> str:
    """The file as `init` writes it."""
    addresses = ", ".join(f'"{address}"' for address in listen.addresses)
    return (
        "# Nightshift coordinator. Unknown keys are errors; what is absent has its default.\n"
        "[listen]\n"
        "# Names and addresses in the server certificate; devices call the first one.\n"
        f"addresses = [{addresses}]\n"
        f'host = "{listen.host}"\n'
        f"port = {listen.port}\n"
        "# For operators on other machines, who show certificates of `coordinator admin issue`; 0 for none.\n"
        f'admin_host = "{listen.admin_host}"\n'
        f"admin_port = {listen.admin_port}\n"
        f"join_port = {listen.join_port}\n" + _storage_text(storage)
    )


def _storage_text(storage: Storage) -> str:
    stated = storage.model_dump(exclude_defaults=True)
    # A JSON string is a TOML string.
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in stated.items())
    return f"[storage]\n{lines}" if lines else ""
