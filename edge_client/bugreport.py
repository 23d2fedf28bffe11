"""What a person may attach to a bug report: how this device is, without whose it is or what it knows.

Left out altogether: keys, certificates, prekeys, texts and their paths, prompts, models' files, addresses.
What remains can still name them inside a sentence (an error names a file), so every
string of the report is searched for what this device knows to be private, and each is replaced by a
word that says what stood there, the same word for the same thing.
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_client import __version__
from edge_client.configuration import Configuration
from edge_client.home import Home
from edge_client.identity import Identity, Membership
from edge_client.store import Store
from nightshift.host.clock import now_unix_s
from nightshift.protocol.times import rfc3339

PASSES = 20
LIBRARIES = ("cryptography", "grpcio", "numpy", "onnxruntime", "llama-cpp-python", "protobuf", "pydantic", "tokenizers")
_FEWEST_CHARACTERS = 3
# What could be a key, a hash, a token or an address although nothing here knows it.
_SHAPES = (
    (re.compile(r"nightshift1[A-Za-z0-9_-]{8,}"), "<token>"),
    (re.compile(r"\b[0-9a-fA-F]{16,}\b"), "<hex>"),
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)", re.DOTALL), "<key>"),
    (re.compile(r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b"), "<address>"),
    (re.compile(r"\[?\b(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}\b\]?"), "<address>"),
    (re.compile(r"(?<![\w.<>])(?:/[\w.@+-]+){2,}/?"), "<path>"),
)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z?")


class Redaction:
    """Replaces what is private, longest first, so that a folder does not hide the file in it.

    Args:
        private: what is known to be private -> the word in its place.
    """

    def __init__(self, private: Mapping[str, str]) -> None:
        known = {text: word for text, word in private.items() if len(text) >= _FEWEST_CHARACTERS}
        self._known = sorted(known.items(), key=lambda pair: len(pair[0]), reverse=True)

    def text(self, text: str) -> str:
        """One string, redacted."""
        for private, word in self._known:
            text = re.sub(re.escape(private), word, text, flags=re.IGNORECASE)
        times: list[str] = []

        def keep(match: re.Match[str]) -> str:
            times.append(match[0])
            return f"\x00{len(times) - 1}\x00"

        text = _TIME.sub(keep, text)  # a time looks like an IPv6 address
        for shape, word in _SHAPES:
            text = shape.sub(word, text)
        return re.sub("\x00([0-9]+)\x00", lambda match: times[int(match[1])], text)

    def value(self, value: Any) -> Any:
        """Everything inside a JSON value; keys are this program's own words and stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.value(item) for item in value]
        return value


def collect(
    home: Home,
    configuration: Configuration,
    origins: Mapping[str, str],
    *,
    identity: Identity | None,
    membership: Membership | None,
    store: Store,
    findings: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """The report, redacted.

    Args:
        home: the device's directories.
        configuration: the owner's settings.
        origins: where each set one comes from.
        identity: the device's key; only its id is looked at, to be replaced.
        membership: of the device.
        store: its memory.
        findings: of `doctor`.
    """
    report = {
        "written_at": rfc3339(now_unix_s()),
        "versions": _versions(),
        "machine": _machine(),
        "settings": _settings(configuration, origins),
        "joined": membership is not None,
        "doctor": list(findings),
        "passes": [
            {
                "started": rfc3339(each.started_at_unix_s),
                "ended": rfc3339(each.ended_at_unix_s),
                "exit_code": each.exit_code,
                "summary": each.summary,
            }
            for each in store.records.passes(PASSES)
        ],
        "security_events": [
            {"time": rfc3339(event.time_unix_s), "kind": event.kind, "sentence": event.sentence}
            for event in store.records.security_events()
        ],
        "counts": _counts(store),
    }
    redacted: dict[str, Any] = redaction(home, identity, membership, store, configuration).value(report)
    return redacted


def redaction(
    home: Home,
    identity: Identity | None,
    membership: Membership | None,
    store: Store,
    configuration: Configuration,
) -> Redaction:
    """What this device knows to be private."""
    private = {str(home.state): "<state>", str(home.cache): "<cache>", str(home.config_file): "<config.toml>"}
    private |= {str(Path.home()): "<home>", socket.gethostname(): "<host>"}
    with suppress(OSError, KeyError):  # a user without an entry in the password database
        private[getpass.getuser()] = "<user>"
    for source in store.records.sources():
        private[source.path] = f"<data source {source.number}>"
        private[Path(source.path).name] = f"<file of data source {source.number}>"
    if identity is not None:
        private[identity.device_id.hex()] = "<device>"
        private[identity.device_id.hex()[:16]] = "<device>"
    if membership is not None:
        for address in (membership.join_address, membership.device_address):
            private[address] = "<coordinator>"
            private[address.rpartition(":")[0].strip("[]")] = "<coordinator>"
        private[membership.log_origin] = "<coordinator's log>"
        private[membership.device_name] = "<device name>"
    if configuration.serving.api_key is not None:
        private[configuration.serving.api_key.get_secret_value()] = "<api key>"
    if configuration.cache.directory is not None:
        private[str(configuration.cache.directory)] = "<cache>"
    return Redaction(private)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"edge-client": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def _machine() -> dict[str, Any]:
    from edge_client.profiles.reading import read_facts

    facts = read_facts()
    return {
        "system": facts.system,
        "release": platform.release(),
        "architecture": facts.architecture,
        "board": facts.board,
        "processor": facts.processor,
        "processors": facts.processors,
        "memory_mb": facts.memory_mb,
        "page_size_bytes": facts.page_size_bytes,
        "battery": facts.battery,
        "thermal_zones": facts.thermal_zones,
        "under_systemd": "INVOCATION_ID" in os.environ,
    }


def _settings(configuration: Configuration, origins: Mapping[str, str]) -> dict[str, Any]:
    """The settings that are not the default, secrets as such."""
    shown = configuration.model_dump(mode="json")
    return {
        key: {"value": shown[key.partition(".")[0]][key.partition(".")[2]], "origin": _origin(origin)}
        for key, origin in sorted(origins.items())
    }


def _origin(origin: str) -> str:
    """Which kind of place a setting comes from; a path, or a variable, is nobody's business."""
    kinds = ("environment", "command line", "device profile")
    return next((kind for kind in kinds if origin.startswith(kind)), "config.toml")


def _counts(store: Store) -> dict[str, int]:
    return {
        "data_sources": len(store.records.sources()),
        "contributions": len(store.contributions.recent(1_000_000)),
        "unfinished_uploads": len(store.contributions.unfinished()),
        "answers": store.answers.count(),
        "prekeys": len(store.prekeys.unspent()),
        "log_size": store.database.number("log_size") or 0,
    }
