"""Which extensions a processor lacks, from recorded /proc/cpuinfo."""

from __future__ import annotations

import pytest

from edge_client.engines.engine import EngineKind
from edge_client.engines.isolated import describe_exit
from edge_client.engines.processor import missing_features

PI_4 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
"""
OLD_LAPTOP = """\
processor\t: 0
model name\t: Intel(R) Core(TM) i5-2520M CPU @ 2.50GHz
flags\t\t: fpu vme sse sse2 ssse3 cx16 sse4_1 sse4_2 popcnt aes xsave avx
"""


def test_a_raspberry_pi_4_lacks_dot_products() -> None:
    missing = missing_features(machine="aarch64", cpuinfo=PI_4)
    assert missing is not None
    assert "asimddp" in missing
    assert "asimd" not in missing


def test_a_laptop_of_2011_lacks_avx2() -> None:
    missing = missing_features(machine="x86_64", cpuinfo=OLD_LAPTOP)
    assert missing is not None
    assert missing[0] == "f16c"
    assert {"fma", "avx2"} <= set(missing)
    assert not {"avx", "sse4_2"} & set(missing)


@pytest.mark.parametrize(("machine", "cpuinfo"), [("riscv64", PI_4), ("x86_64", ""), ("x86_64", "garbage")])
def test_unknown_is_unknown(machine: str, cpuinfo: str) -> None:
    assert missing_features(machine=machine, cpuinfo=cpuinfo) is None


def test_every_end_of_a_process_has_a_sentence() -> None:
    assert "SIGILL" in describe_exit(EngineKind.LLAMA, -4)
    assert "--engine onnx" in describe_exit(EngineKind.LLAMA, -4)
    assert "--engine llama" in describe_exit(EngineKind.ONNX, -4)
    assert "memory ran out" in describe_exit(EngineKind.ONNX, -9)
    assert "SIGSEGV" in describe_exit(EngineKind.ONNX, -11)
    assert "status 3" in describe_exit(EngineKind.ONNX, 3)
