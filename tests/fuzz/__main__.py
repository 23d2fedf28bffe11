"""`python -m tests.fuzz TARGET [--seconds N] [--corpus DIR]`: fuzz one decoder, or `all`, guided by coverage (atheris).

A finding ends the run; its input lies in the working directory as `crash-...`. With `all` the
first byte of an input chooses the target, so that one process serves for a short run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nightshift", "edge_client", "coordinator.enrolment"]):
    from tests.fuzz.targets import Target, all_targets, attempt

MEMORY_MB = 1024
LONGEST_BYTES = 64 << 10


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="kept between runs; a temporary directory without it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        targets = all_targets(work)
        chosen = sorted(targets) if arguments.target == "all" else [arguments.target]
        if chosen[0] not in targets:
            parser.error(f"no target {arguments.target!r}; expected all or one of {', '.join(sorted(targets))}")
        corpus = arguments.corpus or work / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        _plant(corpus, [targets[name] for name in chosen])
        table = [targets[name] for name in chosen]

        def once(data: bytes) -> None:
            if data:
                attempt(table[data[0] % len(table)], data[1:])

        options = [
            f"-max_total_time={arguments.seconds}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-max_len={LONGEST_BYTES}",
            "-timeout=10",
        ]
        atheris.Setup([sys.argv[0], *options, str(corpus)], once)
        atheris.Fuzz()


def _plant(corpus: Path, table: list[Target]) -> None:
    for number, target in enumerate(table):
        for place, seed in enumerate(target.seeds):
            (corpus / f"seed-{number:02d}-{place}").write_bytes(bytes([number]) + seed)


if __name__ == "__main__":
    main()
