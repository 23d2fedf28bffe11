"""The rooms of the house: who may import whom."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("nightshift", "edge_client", "coordinator")
GENERATED = (ROOT / "nightshift" / "v1", ROOT / "nightshift" / "admin" / "v1")

# What a room must never import, by the prefix of its modules' names.
FORBIDDEN = {
    "nightshift": {"edge_client", "coordinator"},
    "edge_client": {"coordinator", "nightshift.admin"},
    "coordinator": {"edge_client"},
    "nightshift.protocol": {
        "nightshift.host",
        "nightshift.packages",
        "asyncio",
        "grpc",
        "http",
        "multiprocessing",
        "onnx",
        "onnxruntime",
        "os",
        "pathlib",
        "random",
        "secrets",
        "shutil",
        "socket",
        "sqlalchemy",
        "sqlite3",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "torch",
        "urllib",
    },
    "nightshift.packages": {"torch", "nightshift.host.rpc", "grpc"},
    # Thin edges call a core; the core never calls back.
    "edge_client.training": {"edge_client.cli", "edge_client.agent", "grpc"},
    "edge_client.engines": {"edge_client.cli", "edge_client.agent", "grpc"},
    "edge_client.data": {"edge_client.cli", "edge_client.agent", "grpc"},
    "edge_client.conditions": {"edge_client.cli", "edge_client.agent", "grpc"},
    "edge_client.service": {"edge_client.cli", "edge_client.agent", "edge_client.doctor", "grpc"},
    "edge_client.doctor": {"edge_client.cli", "edge_client.agent", "grpc"},
    "edge_client.agent": {"edge_client.cli"},
    "coordinator.storage": {"coordinator.cli", "coordinator.service", "grpc"},
    "coordinator.admin": {"coordinator.cli", "coordinator.service", "grpc"},
    "coordinator.rounds": {"coordinator.cli", "coordinator.service", "grpc"},
    "coordinator.aggregation": {"coordinator.cli", "coordinator.service", "grpc"},
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.parent in GENERATED:
                continue
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.append((name, path))
    return found


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize(("room", "banned"), sorted((room, sorted(banned)) for room, banned in FORBIDDEN.items()))
def test_arrows(room: str, banned: list[str]) -> None:
    inside = [(name, path) for name, path in modules() if within(name, room)]
    assert inside, f"no module in {room}: the rule guards nothing"
    broken = [
        f"{name} imports {target}"
        for name, path in inside
        for target in sorted(imported(path))
        if any(within(target, prefix) for prefix in banned)
    ]
    assert broken == []


def test_an_arrow_in_the_wrong_direction_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def late():\n    from coordinator.rounds import plans\n")
    assert any(within(name, "coordinator") for name in imported(path))


def test_the_device_starts_without_the_heavy_libraries() -> None:
    heavy = ["onnxruntime", "numpy", "torch", "llama_cpp", "gguf", "sqlalchemy", "onnx", "rich", "transformers", "tuf"]
    code = (
        "import sys, edge_client.cli.main\n"
        f"loaded = [name for name in {heavy!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_generated_code_matches_the_protos(tmp_path: Path) -> None:
    subprocess.run(
        ["scripts/gen-protos", str(tmp_path)],
        check=True,
        cwd=ROOT,
        timeout=120,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
    )
    for folder in GENERATED:
        within_root = folder.relative_to(ROOT)
        fresh = {p.name: p.read_bytes() for p in (tmp_path / within_root).iterdir() if p.is_file()}
        kept = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
        assert fresh.keys() == kept.keys()
        assert [name for name in fresh if fresh[name] != kept[name]] == []


def test_every_message_and_call_of_the_protos_is_explained() -> None:
    bare = []
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        lines = path.read_text("utf-8").splitlines()
        for before, line in itertools.pairwise(lines):
            declares = line.strip().startswith(("message ", "enum ", "service ", "rpc ", "oneof ")) or " = " in line
            if declares and "syntax" not in line and "_UNSPECIFIED" not in line and not before.strip().startswith("//"):
                bare.append(f"{path.name}: {line.strip()}")
    assert bare == []
