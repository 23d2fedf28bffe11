"""What the processor can do, for the sentence after an illegal instruction."""

from __future__ import annotations

import platform
from pathlib import Path

from edge_client.profiles.facts import architecture_name, parse_cpuinfo

# As Linux prints them, oldest first: the extensions that builds of llama.cpp and ONNX Runtime use.
_EXTENSIONS = {
    "x86_64": (
        *("sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"),
        *("avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    ),
    "aarch64": ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
}


def missing_features(*, machine: str | None = None, cpuinfo: str | None = None) -> list[str] | None:
    """Extensions that native libraries may use and this processor does not have.

    Args:
        machine: as `uname -m` says; this machine's by default.
        cpuinfo: text of /proc/cpuinfo; this machine's by default.

    Returns:
        Their names, oldest first; None where the system does not say.
    """
    wanted = _EXTENSIONS.get(architecture_name(machine or platform.machine()))
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    present = parse_cpuinfo(cpuinfo).flags
    return None if wanted is None or not present else [name for name in wanted if name not in present]


def lacking_sentence() -> str:
    """What this processor lacks, as the middle of the sentence after an illegal instruction."""
    missing = missing_features()
    return f"this processor lacks {', '.join(missing)}" if missing else "which instruction it was is not known"
