"""Measures secure aggregation, and Flower's SecAgg+ beside it, on the same vectors in the same run.

    scripts/bench secagg [--json] [--devices 50] [--length 1000000] [--bits 16] [--rotation on|off]
                         [--repeat 3] [--peer flwr] [--table]

CPU seconds, not wall seconds, of processes of their own, taken in turns:

* device: rotate, encode, encrypt, share, seal, sign; and its part of the committee's answers;
* coordinator: hash and verify every upload, fold it, hash the set, verify the answers, open,
  check every residual, decode, rotate back. It holds one upload at a time; its peak memory
  is of a process that does nothing else.

The error is the root mean square of (opened mean - true mean), beside that of the true mean.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import resource
import statistics
import subprocess
import sys
import time
import venv
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from nightshift.protocol.secagg.encoding import VectorLayout
    from nightshift.protocol.secagg.parameters import CohortParameters

# One thread each: CPU seconds then mean work, not waiting for other threads.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
COMMITTEE = 10
SCALE = 1e-2
FLOWER = "flwr==1.42.0"
PEER_SCRIPT = Path(__file__).parent / "peers" / "secagg_flwr.py"
METRICS = {"loss": 1.23, "tokens": 1000.0}
FIGURES = ("device_cpu_s", "coordinator_cpu_s", "bytes_per_value", "coordinator_rss_mb", "rms_error")


def vector(device: int, length: int) -> np.ndarray:
    """The vector of a device: float32[length], the same for us and for the peer."""
    return (np.random.default_rng(device).standard_normal(length, dtype=np.float32) * np.float32(SCALE)).astype(
        np.float32
    )


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MiB."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


def play_devices(
    pipe: multiprocessing.connection.Connection, devices: int, length: int, bits: int, rotated: bool
) -> None:
    """The other process: every device in turn, then the committee."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from nightshift.protocol.identity import device_id, sign
    from nightshift.protocol.secagg.contribution import entry_of
    from nightshift.protocol.secagg.device import MemberKey, contribute
    from nightshift.protocol.secagg.member import ShareForMember, answer
    from nightshift.protocol.secagg.prekeys import new_prekey
    from nightshift.protocol.upload import pack

    parameters, layout, plan_hash = _task(devices, length, bits, rotated=rotated)
    members, privates, member_keys = [], [], []
    for index in range(1, COMMITTEE + 1):
        key = ec.generate_private_key(ec.SECP256R1())
        private, prekey = new_prekey(
            device=device_id(key.public_key()),
            serial=index,
            epoch=1,
            not_after=2**31,
            sign=partial(sign, key),
            randomness=os.urandom,
        )
        members.append(MemberKey(index=index, device_id=prekey.device_id, prekey=prekey.public))
        privates.append(private)
        member_keys.append(key)
    pipe.send([_public(key) for key in member_keys])
    seconds, mean = [], np.zeros(length)
    bundles: list[list[ShareForMember]] = [[] for _ in members]
    for device in range(devices):
        key = ec.generate_private_key(ec.SECP256R1())
        delta = vector(device, length)
        mean += delta / devices
        sender = device_id(key.public_key())
        before = time.process_time()
        values = layout.encode(delta, 1.0, METRICS, os.urandom)
        contribution = contribute(
            parameters=parameters,
            plan_hash=plan_hash,
            sender=sender,
            members=members,
            values=values,
            sign=partial(sign, key),
            randomness=os.urandom,
        )
        seconds.append(time.process_time() - before)
        entry = entry_of(plan_hash, sender, contribution)
        for bundle, sealed in zip(bundles, contribution.sealed, strict=True):
            bundle.append(ShareForMember(entry, key.public_key(), bytes(sealed), contribution.signature))
        pipe.send((sender, _public(key), pack(contribution)))
        pipe.recv()  # one side works at a time: two busy hyperthreads would slow each other
    set_hash = pipe.recv()
    answers, answering = [], []
    for member, private, key, bundle in zip(members, privates, member_keys, bundles, strict=True):
        before = time.process_time()
        answers.append(
            answer(
                parameters=parameters,
                plan_hash=plan_hash,
                set_hash=set_hash,
                index=member.index,
                member=member.device_id,
                prekey_private=private,
                shares=bundle,
                sign=partial(sign, key),
            )
        )
        answering.append(time.process_time() - before)
    pipe.send((answers, statistics.median(seconds), statistics.median(answering), mean))


def run_ours(devices: int, length: int, bits: int, *, rotated: bool) -> dict[str, float]:
    """This process is the coordinator; another plays everybody else."""
    from nightshift.protocol.identity import load_public_key
    from nightshift.protocol.secagg.contribution import verify_contribution
    from nightshift.protocol.secagg.contributors import set_hash
    from nightshift.protocol.secagg.member import verify_answer
    from nightshift.protocol.secagg.opener import RunningSum, open_sum
    from nightshift.protocol.upload import unpack

    parameters, layout, plan_hash = _task(devices, length, bits, rotated=rotated)
    here, there = multiprocessing.get_context("spawn").Pipe()
    others = multiprocessing.get_context("spawn").Process(
        target=play_devices, args=(there, devices, length, bits, rotated), daemon=True
    )
    others.start()
    member_ders = here.recv()
    running = RunningSum.new(parameters, layout.length)
    entries, cpu_s, upload_bytes = [], 0.0, 0
    for _ in range(devices):
        sender, der, body = here.recv()
        upload_bytes = len(body)
        before = time.process_time()
        contribution = unpack(parameters, layout.length, body)
        entry = verify_contribution(
            parameters=parameters,
            length=layout.length,
            plan_hash=plan_hash,
            sender=sender,
            public_key=load_public_key(der),
            contribution=contribution,
        )
        running.add(contribution.ciphertext)
        cpu_s += time.process_time() - before
        entries.append(entry)
        # The buffer that the bytes came in belongs to the transport, which is not measured.
        del body, contribution
        here.send("next")
    before = time.process_time()
    frozen = set_hash(plan_hash, entries)
    cpu_s += time.process_time() - before
    here.send(frozen)
    answers, device_s, member_s, mean = here.recv()
    before = time.process_time()
    for answer, der in zip(answers, member_ders, strict=True):
        verify_answer(
            parameters=parameters, plan_hash=plan_hash, set_hash=frozen, answer=answer, public_key=load_public_key(der)
        )
    opened = open_sum(
        parameters=parameters, plan_hash=plan_hash, running=running, answers=answers[: parameters.threshold]
    )
    result = layout.decode_sum(opened.values, devices)
    cpu_s += time.process_time() - before
    rss_mb = peak_rss_mb()
    error = result.weighted_delta / result.weight - mean
    others.join()
    return {
        "device_cpu_s": device_s + member_s * COMMITTEE / devices,
        "contribute_cpu_s": device_s,
        "answer_cpu_s": member_s,
        "coordinator_cpu_s": cpu_s,
        "bytes_per_value": upload_bytes / length,
        "coordinator_rss_mb": rss_mb,
        "rms_error": float(np.sqrt(np.mean(error**2))),
        "rms_signal": float(np.sqrt(np.mean(mean**2))),
    }


def _task(devices: int, length: int, bits: int, *, rotated: bool) -> tuple[CohortParameters, VectorLayout, bytes]:
    from nightshift.protocol.secagg.encoding import Encoding, VectorLayout
    from nightshift.protocol.secagg.parameters import CohortParameters
    from nightshift.protocol.secagg.rotation import rotated_clip, rotation_seed

    parameters = CohortParameters.derive(n_max=max(3, devices), value_bits=bits, committee_size=COMMITTEE)
    plan_hash = bytes(range(32))
    # A plan knows a bound on the norm; these vectors have norm SCALE sqrt(length), within a few parts in a thousand.
    # Without a rotation it has to name the largest value; of 5e7 normal ones it is about 6.
    clip = rotated_clip(1.02 * SCALE * length**0.5, length) if rotated else 6 * SCALE
    encoding = Encoding(clip=clip, value_bits=bits, n_max=parameters.n_max)
    seed = rotation_seed(plan_hash) if rotated else None
    return parameters, VectorLayout(length, tuple(METRICS), encoding, rotation=seed), plan_hash


def _public(key: EllipticCurvePrivateKey) -> bytes:
    from nightshift.protocol.identity import spki

    return spki(key.public_key())


def child(python: str, script: Path, arguments: list[str]) -> dict[str, float]:
    """Run one measurement in a process of its own and read the JSON object that it prints last."""
    done = subprocess.run(
        [python, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | ONE_THREAD,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no output")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def peer_python(home: Path) -> str:
    """The interpreter of an environment with Flower, made at first use.

    Flower's certifi pin does not resolve everywhere, so the package is installed without its
    dependencies, and these after it, certifi without a version.
    """
    python = home / "bin" / "python"
    ready = home / "ready"
    if ready.exists():
        return str(python)
    print(f"installing {FLOWER} into {home} (once, about a minute)", file=sys.stderr)
    venv.create(home, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    listing = "import importlib.metadata as m; print('\\n'.join(m.requires('flwr')))"
    subprocess.run([*pip, "--no-deps", FLOWER], check=True, stdout=sys.stderr)
    requirements = subprocess.run([str(python), "-c", listing], check=True, capture_output=True, text=True).stdout
    wanted = [
        "certifi" if line.startswith("certifi") else line
        for line in requirements.splitlines()
        if "extra ==" not in line
    ]
    subprocess.run([*pip, *wanted], check=True, stdout=sys.stderr)
    ready.touch()
    return str(python)


def measure(arguments: argparse.Namespace, devices: int, length: int, python: str | None) -> dict[str, object]:
    """Ours and the peer's in turns; medians over the repetitions."""
    shape = ["--devices", str(devices), "--length", str(length), "--bits", str(arguments.bits)]
    own = [*shape, "--rotation", arguments.rotation]
    ours, theirs, failure = [], [], None
    for _ in range(arguments.repeat):
        ours.append(child(sys.executable, Path(__file__), ["--child", *own]))
        if python and failure is None:
            try:
                theirs.append(child(python, PEER_SCRIPT, shape[:4]))
            except RuntimeError as error:
                failure = str(error)
    result: dict[str, object] = {"devices": devices, "length": length, "bits": arguments.bits}
    result |= {name: statistics.median(run[name] for run in ours) for name in ours[0]}
    if theirs:
        result["peer"] = {"name": FLOWER} | {name: statistics.median(run[name] for run in theirs) for name in theirs[0]}
    elif arguments.peer:
        result["peer_unavailable"] = failure or "the environment could not be installed"
    return result


def show(result: dict[str, object]) -> None:
    """A table for people."""
    peer = result.get("peer")
    print(f"{result['devices']} devices, {result['length']} values, {result['bits']} bits")
    for name in FIGURES:
        line = f"  {name:20} {result[name]:12.4g}"
        if isinstance(peer, dict):
            line += f"   {FLOWER} {peer[name]:12.4g}   ratio {float(str(result[name])) / peer[name]:.3f}"
        print(line)
    if "peer_unavailable" in result:
        print(f"  {FLOWER} could not be measured: {result['peer_unavailable']}")


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench secagg", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object (a list with --table)")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--length", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, default=16)
    parser.add_argument(
        "--rotation", choices=["on", "off"], default="on", help="as a task has it: on unless it says so"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peer", choices=["flwr"])
    parser.add_argument(
        "--peer-environment", type=Path, default=Path.home() / ".cache" / "nightshift" / "bench" / FLOWER
    )
    parser.add_argument("--table", action="store_true", help="1e5, 1e6, 1e7 values by 10, 100, 500 devices")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(
            json.dumps(
                run_ours(arguments.devices, arguments.length, arguments.bits, rotated=arguments.rotation == "on")
            )
        )
        return
    python = None
    if arguments.peer:
        try:
            python = peer_python(arguments.peer_environment)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{FLOWER} could not be installed ({error}); measuring Nightshift only", file=sys.stderr)
    shapes = (
        [(devices, length) for length in (10**5, 10**6, 10**7) for devices in (10, 100, 500)]
        if arguments.table
        else [(arguments.devices, arguments.length)]
    )
    results = []
    for devices, length in shapes:
        results.append(measure(arguments, devices, length, python))
        if not arguments.json:
            show(results[-1])
    if arguments.json:
        print(json.dumps(results if arguments.table else results[0]))


if __name__ == "__main__":
    main()
