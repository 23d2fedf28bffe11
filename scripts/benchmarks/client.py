"""Measures what the client takes of a small machine, and Flower's SuperNode beside it.

    scripts/bench client [--json] [--repeat 5] [--peer flwr] [--installer uv|pipx]

* installed_mb: what `scripts/install.sh` makes of a wheel of this tree, without torch: the environment's packages
  (pip itself left out), with the bytecode that it compiles of what a pass uses;
* in_use_mb: the same after the commands below, which may have compiled more;
* status_cpu_s: processor time of `edge-client status` on a device that has joined, median;
* pass_cpu_s, pass_peak_rss_mb: of `edge-client run --now` that checks in, over mutual TLS with a real
  coordinator, and finds nothing to do: median and highest;
* idle_processes: what is left running between passes.

The programs are those of the fresh environment, started as a timer starts them. The peer is a SuperNode of the
same day's release, installed by the same tool, connected to a SuperLink and given nothing to do: it stays, so its
resident memory is what counts. Its installed_mb is before its first start, in_use_mb after.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.benchmarks.secagg import FLOWER
from scripts.load.watch import Watch
from scripts.night.fleet import Coordinator, free_port

ROOT = Path(__file__).resolve().parents[2]
OF_THE_ENVIRONMENT = ("pip", "pip-*", "setuptools", "setuptools-*", "_distutils_hack", "distutils-precedence.pth")
NOT_BUILT = {".venv", ".git", "build", "data", "docs", "out", "tests", "__pycache__"}
SETTLE_S = 15.0
STARTUP_S = 60.0
CACHE = Path.home() / ".cache" / "nightshift" / "bench" / "uv"
"""What uv has downloaded: the same files every time."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one process took, from its start to its end.

    Attributes:
        cpu_s: processor seconds, user and system.
        peak_rss_mb: highest resident memory, MiB.
    """

    cpu_s: float
    peak_rss_mb: float


def spent(command: Sequence[str], environment: Mapping[str, str]) -> Spent:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; with its last words.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}: {output.read().decode()[-400:]}")
    scale = 1 if sys.platform == "darwin" else 1024
    return Spent(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * scale / 2**20)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a home directory of their own, and nothing but one installer.

    Attributes:
        home: the directory; empty at first.
        installer: "uv" or "pipx".
    """

    home: Path
    installer: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment of their commands."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", "XDG_", "PIPX_", "UV_TOOL_"))
        }
        path = [str(self.home / ".local" / "bin"), str(self.home / "tools" / "bin"), "/usr/bin", "/bin"]
        own = {"HOME": str(self.home), "PATH": ":".join(path), "PYTHON": sys.executable, "UV_CACHE_DIR": str(CACHE)}
        return kept | own

    def settle_in(self) -> None:
        """Make the home, with the installer in it."""
        tools = self.home / "tools"
        venv.create(tools, with_pip=True)
        pip = [str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, self.installer], check=True, stdout=sys.stderr)
        # Nothing but the installer is found there.
        for program in (tools / "bin").iterdir():
            if program.name.startswith(("pip3", "pip")) and program.name != "pipx":
                program.unlink()

    def environment(self, package: str) -> Path:
        """Where the installer put a package."""
        share = self.home / ".local" / "share"
        return (share / "uv" / "tools" if self.installer == "uv" else share / "pipx" / "venvs") / package

    def install_client(self) -> None:
        """A wheel of this tree, by the script that people use."""
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / "source"
            # A copy: setuptools builds inside the tree that it is given.
            shutil.copytree(ROOT, source, ignore=lambda _, names: [name for name in names if name in NOT_BUILT])
            build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", directory, str(source)]
            subprocess.run(build, check=True, stdout=sys.stderr)
            (wheel,) = Path(directory).glob("*.whl")
            self._run("sh", str(ROOT / "scripts" / "install.sh"), str(wheel))

    def install_peer(self) -> None:
        """Flower, in the same way; its certifi pin does not resolve everywhere."""
        if self.installer == "uv":
            overrides = self.home / "overrides.txt"
            overrides.write_text("certifi\n", "utf-8")
            self._run("uv", "tool", "install", "--python", sys.executable, "--overrides", str(overrides), FLOWER)
        else:
            self._run("pipx", "install", "--python", sys.executable, "--pip-args=--no-compile", FLOWER)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env=self.variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr[-800:]}")


def installed_mb(environment: Path) -> float:
    """Megabytes of the packages in an environment, without what every environment begins with."""
    (packages,) = environment.glob("lib/python*/site-packages")
    begun_with = {path for pattern in OF_THE_ENVIRONMENT for path in packages.glob(pattern)}
    files = [
        file
        for path in packages.iterdir()
        if path not in begun_with
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file() and not file.is_symlink()
    ]
    return sum(file.stat().st_size for file in files) / 1e6


def run_ours(person: Person, directory: Path, repeat: int) -> dict[str, float]:
    """Install, join, look, pass."""
    print(f"installing this tree with {person.installer}", file=sys.stderr)
    person.install_client()
    environment, variables = person.environment("nightshift"), person.variables
    result = {"installed_mb": installed_mb(environment)}
    client = [str(environment / "bin" / "edge-client"), "--home", str(directory / "home")]
    coordinator = Coordinator.init(directory / "coordinator")
    coordinator.serve()
    try:
        token = coordinator.command("token", "create", "--uses", "1", "--json").json["token"]
        spent([*client, "join", token], variables)
        spent([*client, "run", "--now"], variables)  # the first pass publishes prekeys and fetches release metadata
        looks = [spent([*client, "status"], variables) for _ in range(repeat)]
        passes = [spent([*client, "run", "--now"], variables) for _ in range(repeat)]
        home = str(directory / "home")
        left = [process for process in psutil.process_iter(["cmdline"]) if home in (process.info["cmdline"] or ())]
    finally:
        coordinator.stop()
    return result | {
        "in_use_mb": installed_mb(environment),
        "status_cpu_s": statistics.median(each.cpu_s for each in looks),
        "status_peak_rss_mb": max(each.peak_rss_mb for each in looks),
        "pass_cpu_s": statistics.median(each.cpu_s for each in passes),
        "pass_peak_rss_mb": max(each.peak_rss_mb for each in passes),
        "idle_processes": len(left),
    }


def run_peer(person: Person, directory: Path) -> dict[str, float]:
    """A SuperNode with nothing to do.

    Raises:
        RuntimeError: it, or its SuperLink, did not start.
    """
    print(f"installing {FLOWER} with {person.installer}", file=sys.stderr)
    person.install_peer()
    environment = person.environment("flwr")
    programs, before_mb = environment / "bin", installed_mb(environment)
    port, own = str(free_port()), str(free_port())
    variables = person.variables | {"FLWR_TELEMETRY_ENABLED": "0"}
    link_command = [str(programs / "flower-superlink"), "--insecure", "--isolation", "process", "--port", port]
    node_command = [str(programs / "flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", own]
    with (directory / "superlink.log").open("wb") as log, (directory / "supernode.log").open("wb") as node_log:
        link = subprocess.Popen(link_command, stdout=log, stderr=log, env=variables)
        try:
            _until((directory / "superlink.log"), b"running on", link)
            node = subprocess.Popen(node_command, stdout=node_log, stderr=node_log, env=variables)
            try:
                with Watch(node.pid) as watch:
                    time.sleep(SETTLE_S)
                    if node.poll() is not None:
                        raise RuntimeError((directory / "supernode.log").read_text("utf-8", "replace")[-400:])
                    processes = 1 + len(psutil.Process(node.pid).children(recursive=True))
                return {
                    "installed_mb": before_mb,
                    "in_use_mb": installed_mb(environment),
                    "resident_mb": watch.peak_rss_mb,
                    "start_cpu_s": watch.cpu_s,
                    "idle_processes": processes,
                }
            finally:
                _end(node)
        finally:
            _end(link)


def _until(log: Path, words: bytes, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTUP_S
    while words not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("it did not start: " + log.read_text("utf-8", "replace")[-400:])
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        if child.is_running():
            child.kill()


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench client", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--peer", choices=["flwr"])
    parser.add_argument("--installer", choices=["uv", "pipx"], default="uv")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightshift-client-") as directory:
        person = Person(Path(directory) / "person", arguments.installer)
        person.settle_in()
        result: dict[str, object] = dict(run_ours(person, Path(directory), arguments.repeat))
        if arguments.peer:
            try:
                peer = run_peer(person, Path(directory))
                result["peer"] = {"name": FLOWER} | peer
            except (subprocess.CalledProcessError, OSError, RuntimeError) as error:
                result["peer_unavailable"] = str(error)
    if arguments.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{value.pop('name')}:")
            for peer_name, figure in value.items():
                print(f"  {peer_name:20} {figure:10.4g}")
        else:
            print(f"{name:22} {value:10.4g}" if isinstance(value, float) else f"{name:22} {value}")


if __name__ == "__main__":
    main()
