"""The profiles that come with the program."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from edge_client.profiles.profile import DeviceProfile
from nightshift.host.configuration import read_toml, validated
from nightshift.protocol.errors import UsageError

DIRECTORY = Path(__file__).resolve().parent.parent / "device_profiles"
"""In the source tree a link to the folder of that name at the top; a plain folder once installed."""


def load_profiles(directory: Path = DIRECTORY) -> tuple[DeviceProfile, ...]:
    """Read and check every profile, in the order of their names.

    Raises:
        UsageError: names the file, the key and what was expected; or there is no profile at all.
    """
    files = sorted(directory.glob("*.toml"))
    if not files:
        raise UsageError(f"{directory} holds no device profile; install edge-client again")
    return tuple(load_profile(file) for file in files)


def load_profile(file: Path) -> DeviceProfile:
    """Read and check one profile.

    Raises:
        UsageError: names the file, the key and what was expected.
    """
    profile = validated(DeviceProfile, read_toml(file), str(file))
    if profile.name != file.stem:
        raise UsageError(f"{file}: name: is {profile.name!r}, expected the file's own name {file.stem!r}")
    return profile


def find_profile(name: str, profiles: Sequence[DeviceProfile]) -> DeviceProfile:
    """One of them.

    Raises:
        UsageError: there is no such profile; suggests the nearest name.
    """
    for profile in profiles:
        if profile.name == name:
            return profile
    names = [profile.name for profile in profiles]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
    raise UsageError(f"there is no device profile {name!r}; {hint}")
