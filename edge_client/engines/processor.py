"""What the processor can do, for the sentence after an illegal instruction."""

from __future__ import annotations

import platform
from pathlib import Path

# Names as Linux prints them, of extensions that builds of llama.cpp and ONNX Runtime use.
_X86 = ("sse4_2", "avx", "f16c", "fma", "avx2", "bmi2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni")
_ARM = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve")
_LINES = ("flags", "Features")


def missing_features(*, machine: str | None = None, cpuinfo: str | None = None) -> list[str] | None:
    """Extensions that native libraries may use and this processor does not have.

    Args:
        machine: as `platform.machine()`; this machine's by default.
        cpuinfo: text of /proc/cpuinfo; this machine's by default.

    Returns:
        Their names, oldest first; None where the system does not say.
    """
    machine = platform.machine() if machine is None else machine
    wanted = {"x86_64": _X86, "amd64": _X86, "i686": _X86, "aarch64": _ARM, "arm64": _ARM}.get(machine.lower())
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in _LINES and wanted is not None:
            present = set(value.split())
            return [feature for feature in wanted if feature not in present]
    return None
