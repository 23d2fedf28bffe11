"""Measures a coordinator under many devices, and Flower's SuperLink beside it doing its own equivalent.

    scripts/bench coordinator [--json] [--devices 10 100 1000] [--values 1000000] [--peer flwr]

For each number of devices: a fresh coordinator process on SQLite and a directory, and another process that plays
all devices (`scripts.load.fleet`): real gRPC over mutual TLS, real signatures, real encryption.

* join: enrolment, and a first check-in with a prekey;
* check-in: with nothing to do, as most passes of a device; each with a TLS connection of its own,
  then over connections that are kept;
* plan: check-ins that bring a plan, which the device verifies;
* upload: a random vector, encrypted, in 256 KiB pieces; the time is that of sending and of the durable sum;
* open: the longest call of a committee member, which is the one that opens a cohort's sum;
* flood: what a few devices feel that check in as usual, one after the other with a connection each: first alone
  (quiet), then while two others call as fast as they can from a third process. Only here the limits are the usual ones.

With --database the coordinator is on PostgreSQL, whose processes are not counted: memory and `cpu` are the
service's own.

Memory is the highest resident memory of the coordinator at any time; `cpu` figures are its processor
time alone and hold on a busy machine too, rates are of both processes together.

The peer: SuperLink on its SQLite database over TLS with signed requests, nodes that register, pull a task (a
message, its objects) and push the same number of float32 values, played by one process in the same way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.benchmarks.secagg import FLOWER, child, peer_python
from scripts.load.watch import Watch, usage
from scripts.night.fleet import Coordinator

MOST_IN_A_COHORT = 500
AT_ONCE = 8
BATCH = 16
IDLE_S = 5.0
USUAL_DEVICES, USUAL_CHECK_INS = 6, 50
RELEASE_WITHIN_S = 60.0
PEER_SCRIPT = Path(__file__).parent / "peers" / "superlink_flwr.py"


def wait_for_release(coordinator: Coordinator, *, answers: int) -> None:
    """Return once the round has brought its release.

    Raises:
        RuntimeError: it did not: the sums were not opened.
    """
    deadline = time.monotonic() + RELEASE_WITHIN_S
    while time.monotonic() < deadline:
        if any(release["number"] > 0 for release in coordinator.command("release", "list", "--json").json["releases"]):
            return
        time.sleep(0.2)
    raise RuntimeError(f"{answers} answers were taken, but the round brought no release")


def run_ours(devices: int, values: int, *, at_once: int, idle_s: float, database: str) -> dict[str, float]:
    """One coordinator, this process as its devices."""
    from nightshift.host.tls import prepare_grpc

    prepare_grpc()
    from scripts.load.fleet import LoadFleet
    from scripts.load.flood import flooding
    from scripts.load.stage import TASK, rank_for, serving

    cohort = min(devices, MOST_IN_A_COHORT)
    if devices % cohort:
        raise SystemExit(f"--devices {devices}: above {MOST_IN_A_COHORT} it must be a multiple of it")
    with (
        tempfile.TemporaryDirectory(prefix="nightshift-load-") as directory,
        serving(Path(directory), rank=rank_for(values), devices=devices, cohort=cohort, database=database) as (
            coordinator,
            token,
        ),
        contextlib.closing(LoadFleet(devices, at_once)) as fleet,
    ):
        assert coordinator.process is not None, "it serves"
        pid = coordinator.process.pid
        before_mb = usage(pid).rss_mb
        with Watch(pid) as whole:
            with Watch(pid) as joining:
                joined = fleet.join(token)
            with Watch(pid) as checking:
                fresh = fleet.idle_check_ins(duration_s=idle_s, reconnect=True)
            with Watch(pid) as checking_kept:
                kept = fleet.idle_check_ins(duration_s=idle_s, reconnect=False)
            coordinator.command("round", "open", TASK)
            with Watch(pid) as planning:
                plans = fleet.fetch_plans()
            with Watch(pid) as uploading:
                uploads, sent = fleet.contribute(batch=BATCH)
            with Watch(pid) as answering:
                answers = fleet.answer()
            wait_for_release(coordinator, answers=answers.count)
        coordinator.stop()
        coordinator.environment.clear()
        coordinator.serve()
        quiet = fleet.usual_check_ins(devices=USUAL_DEVICES, each=USUAL_CHECK_INS)
        with flooding(token) as flood:
            flooded = fleet.usual_check_ins(devices=USUAL_DEVICES, each=USUAL_CHECK_INS)
    sent_mb = sent / 1e6
    return {
        "devices": devices,
        "rss_before_mb": before_mb,
        "rss_mb": whole.peak_rss_mb,
        "rss_upload_mb": uploading.peak_rss_mb,
        "joins_per_s": joined.per_s,
        "join_cpu_ms": 1e3 * joining.cpu_s / devices,
        "checkins_per_s": fresh.per_s,
        "checkin_p99_ms": 1e3 * fresh.quantile_s(0.99),
        "checkin_cpu_ms": 1e3 * checking.cpu_s / fresh.count,
        "kept_checkins_per_s": kept.per_s,
        "kept_checkin_p99_ms": 1e3 * kept.quantile_s(0.99),
        "kept_checkin_cpu_ms": 1e3 * checking_kept.cpu_s / kept.count,
        "plans_per_s": plans.per_s,
        "plan_cpu_ms": 1e3 * planning.cpu_s / devices,
        "upload_mb_per_s": sent_mb / uploads.wall_s,
        "upload_cpu_ms_per_mb": 1e3 * uploading.cpu_s / sent_mb,
        "upload_mb": sent_mb / devices,
        "open_s": max(answers.latencies_s),
        "answer_cpu_ms": 1e3 * answering.cpu_s / answers.count,
        "quiet_checkin_ms": 1e3 * quiet.quantile_s(0.5),
        "quiet_checkin_p99_ms": 1e3 * quiet.quantile_s(0.99),
        "flood_checkin_ms": 1e3 * flooded.quantile_s(0.5),
        "flood_checkin_p99_ms": 1e3 * flooded.quantile_s(0.99),
        "flood_let_in_per_s": flood.let_in_per_s,
        "flood_turned_away_per_s": flood.turned_away_per_s,
    }


def measure(arguments: argparse.Namespace, devices: int, python: str | None) -> dict[str, object]:
    """Ours, then the peer's, with so many devices."""
    shape = ["--devices", str(devices), "--values", str(arguments.values), "--at-once", str(arguments.at_once)]
    shape += ["--idle-s", str(arguments.idle_s)]
    print(f"{devices} devices: coordinator", file=sys.stderr)
    database = ["--database", arguments.database] if arguments.database else []
    result: dict[str, object] = dict(child(sys.executable, Path(__file__), ["--child", *shape, *database]))
    if python:
        print(f"{devices} devices: {FLOWER}", file=sys.stderr)
        try:
            result["peer"] = {"name": FLOWER} | child(python, PEER_SCRIPT, shape)
        except RuntimeError as error:
            result["peer_unavailable"] = str(error)
    return result


def show(result: dict[str, object]) -> None:
    """A table for people."""
    peer = result.get("peer")
    print(f"{result['devices']:.0f} devices, {result['upload_mb']:.2f} MB each")
    for name, value in result.items():
        if isinstance(value, float) and name not in {"devices", "upload_mb"}:
            line = f"  {name:22} {value:10.4g}"
            if isinstance(peer, dict) and name in peer:
                line += f"   {FLOWER} {peer[name]:10.4g}"
            print(line)
    if "peer_unavailable" in result:
        print(f"  {FLOWER} could not be measured: {result['peer_unavailable']}")


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench coordinator", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: the largest number of devices, and growth"
    )
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--values", type=int, default=1_000_000, help="about so many in a vector; 2600000 make 10 MB")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="calls under way at a time")
    parser.add_argument("--idle-s", type=float, default=IDLE_S, help="seconds of check-ins, each way")
    parser.add_argument("--database", metavar="URL", default="", help="an empty one of PostgreSQL; with one --devices")
    parser.add_argument("--peer", choices=["flwr"])
    parser.add_argument(
        "--peer-environment", type=Path, default=Path.home() / ".cache" / "nightshift" / "bench" / FLOWER
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.database and len(arguments.devices) > 1:
        parser.error("--database: each number of devices wants an empty one; give one number after --devices")
    if arguments.child:
        (devices,) = arguments.devices
        figures = run_ours(
            devices,
            arguments.values,
            at_once=arguments.at_once,
            idle_s=arguments.idle_s,
            database=arguments.database,
        )
        print(json.dumps(figures))
        return
    python = None
    if arguments.peer:
        try:
            python = peer_python(arguments.peer_environment)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{FLOWER} could not be installed ({error}); measuring Nightshift only", file=sys.stderr)
    results = []
    for devices in sorted(arguments.devices):
        results.append(measure(arguments, devices, python))
        if not arguments.json:
            show(results[-1])
    if arguments.json:
        print(json.dumps(results[-1] | {"growth": results}))


if __name__ == "__main__":
    main()
