"""What the order of the nodes is for: peak memory of real processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_client.training.allocator import allocator_environment
from nightshift.packages.build import build_package
from nightshift.packages.random_model import SMALL, write_random_model

LAYERS, ROWS, LENGTH = 16, 4, 256
STEP = f"""
import sys
import numpy as np
from pathlib import Path
from nightshift.packages.package import ModelPackage
from nightshift.packages.session import open_session
package = ModelPackage.open(Path(sys.argv[1]), verify=False)
session = open_session(package, sys.argv[2], threads=1)
before = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
shape = ({ROWS}, {LENGTH})
feed = {{"input_ids": np.ones(shape, np.int64), "labels": np.ones(shape, np.int64)}}
feed |= {{"weights": np.ones(shape, np.float32), "lora_scale": np.array(1, np.float32)}}
for name, sizes in package.manifest.lora_shapes().items():
    feed[name] = np.full([1 if size == "r" else int(size) for size in sizes], 0.01, np.float32)
session.run(None, feed)
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_recomputation_keeps_one_block_at_a_time(tmp_path: Path) -> None:
    # Kept, each block holds its chances [rows, heads, T, T] at least; computed again, one block at a time does.
    source = tmp_path / "random.gguf"
    write_random_model(source, dataclasses.replace(SMALL, layers=LAYERS), seed=2)
    build_package(source, tmp_path / "package", quantisation="Q4_0")
    grown_bytes, environment = {}, allocator_environment(os.environ, jemalloc=False, trim=True)
    for role in ("train", "train_recompute"):
        command = [sys.executable, "-c", STEP, str(tmp_path / "package"), role]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        grown_bytes[role] = int(done.stdout) * 1024
    chances_bytes = ROWS * SMALL.heads * LENGTH * LENGTH * 4
    assert grown_bytes["train"] > LAYERS * chances_bytes
    assert grown_bytes["train_recompute"] < grown_bytes["train"] / 3
