"""Engines in real processes that are really killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge_client.data.prepare import prepare
from edge_client.engines.choice import open_engine
from edge_client.engines.engine import EngineKind
from edge_client.engines.errors import EngineCrashedError, EngineError, EngineUnavailableError, PromptError
from edge_client.engines.isolated import IsolatedEngine
from edge_client.engines.sampling import SamplingSettings
from edge_client.engines.sessions import RuntimeSettings, layout_for
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Tensors, initialise
from nightshift.protocol.errors import NightshiftError, NotFoundError
from tests.support.slow_model import STOPPED_WITHIN_S, build_slow_model
from tests.support.stories import build_stories, commands

PROMPT = [1, 403, 407]
ENDLESS = SamplingSettings(max_tokens=100_000)
BOTH = [EngineKind.ONNX, pytest.param(EngineKind.LLAMA, marks=pytest.mark.llama)]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return build_stories(tmp_path_factory.mktemp("stories") / "package")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return build_slow_model(tmp_path_factory.mktemp("slow"))


@pytest.fixture(scope="module", params=BOTH)
def engine(request: pytest.FixtureRequest, stories: ModelPackage) -> Iterator[IsolatedEngine]:
    with IsolatedEngine(stories, request.param, threads=1) as opened:
        yield opened


@pytest.fixture
def slow_engine(slow: ModelPackage) -> Iterator[IsolatedEngine]:
    with IsolatedEngine(slow, EngineKind.ONNX, threads=1) as opened:
        yield opened


def adapter(package: ModelPackage, seed: int) -> tuple[Tensors, AdapterLayout]:
    """An adapter that changes answers: B is not zero as in a fresh one."""
    layout = layout_for(package.manifest, rank=4, alpha=8.0)
    random = np.random.default_rng(seed)
    tensors = initialise(layout, bytes(32))
    return {n: t + 0.3 * random.standard_normal(t.shape).astype(np.float32) for n, t in tensors.items()}, layout


def in_process(package: ModelPackage, kind: EngineKind) -> contextlib.AbstractContextManager:
    runtime = RuntimeSettings(threads=1)
    if kind is EngineKind.LLAMA:
        from edge_client.engines.llama_engine import LlamaEngine

        return LlamaEngine(package, runtime)
    from edge_client.engines.onnx_engine import OnnxEngine

    return OnnxEngine(package, runtime)


def test_it_answers_as_the_engine_in_this_process_does(
    engine: IsolatedEngine, stories: ModelPackage, tmp_path: Path
) -> None:
    examples = prepare(stories, [commands(tmp_path / "rows.jsonl", rows=30)], max_tokens=64).train[:8]
    drawn = SamplingSettings(max_tokens=30, temperature=0.8, top_p=0.9, seed=5)
    tensors, layout = adapter(stories, 1)
    answers = {}
    with in_process(stories, engine.kind) as reference:
        for name, each in (("isolated", engine), ("here", reference)):
            base = list(each.generate(PROMPT, SamplingSettings(max_tokens=30)))
            each.set_adapter(tensors, layout)
            adapted = list(each.generate(PROMPT, drawn))
            losses, scores = each.token_losses(examples), each.score([PROMPT, [1, 9]], [[5, 6], [5], [7, 8, 9]])
            each.set_adapter(None, None)
            again = list(each.generate(PROMPT, SamplingSettings(max_tokens=30)))
            answers[name] = (base, adapted, again, [row.tobytes() for row in losses], scores.tobytes())
    assert answers["isolated"] == answers["here"]
    base, adapted, again, *_ = answers["isolated"]
    assert base == again
    assert base != adapted
    assert engine.token_losses([]) == []


def test_closing_the_iterator_stops_the_work(slow_engine: IsolatedEngine) -> None:
    tokens = slow_engine.generate(PROMPT, ENDLESS)
    first = list(itertools.islice(tokens, 3))
    pid = slow_engine.process_id
    started = time.monotonic()
    tokens.close()
    assert time.monotonic() - started < STOPPED_WITHIN_S
    assert list(itertools.islice(slow_engine.generate(PROMPT, ENDLESS), 3)) == first
    assert slow_engine.process_id == pid, "a process that stops when told to is kept"


def test_an_interrupt_from_another_thread_ends_the_answer(slow_engine: IsolatedEngine) -> None:
    tokens = slow_engine.generate(PROMPT, ENDLESS)
    next(tokens)
    threading.Timer(0.2, slow_engine.interrupt).start()
    started = time.monotonic()
    count = sum(1 for _ in tokens)
    assert time.monotonic() - started < STOPPED_WITHIN_S
    assert count < 5000
    slow_engine.interrupt()  # nothing runs: nothing happens
    assert len(list(slow_engine.generate(PROMPT, SamplingSettings(max_tokens=3)))) == 3


@on_linux
def test_a_process_that_does_not_stop_is_killed(slow_engine: IsolatedEngine) -> None:
    tokens = slow_engine.generate(PROMPT, ENDLESS)
    next(tokens)
    pid = slow_engine.process_id
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # as deaf as native code that reads a long prompt
    started = time.monotonic()
    tokens.close()
    assert time.monotonic() - started < STOPPED_WITHIN_S
    assert len(list(slow_engine.generate(PROMPT, SamplingSettings(max_tokens=3)))) == 3
    assert slow_engine.process_id != pid


def test_a_second_answer_waits_for_the_first_to_be_closed(slow_engine: IsolatedEngine) -> None:
    tokens = slow_engine.generate(PROMPT, ENDLESS)
    next(tokens)
    with pytest.raises(EngineError, match="close that iterator"):
        next(slow_engine.generate(PROMPT, ENDLESS))
    tokens.close()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGILL, "another processor"),
        (signal.SIGSEGV, "crashed"),
        (signal.SIGABRT, "crashed"),
        (signal.SIGKILL, "memory ran out"),
    ],
)
def test_a_crash_is_an_error_and_the_next_use_starts_again(
    engine: IsolatedEngine, stories: ModelPackage, number: signal.Signals, words: str
) -> None:
    tensors, layout = adapter(stories, 2)
    engine.set_adapter(tensors, layout)
    expected = list(engine.generate(PROMPT, SamplingSettings(max_tokens=20)))
    tokens = engine.generate(PROMPT, SamplingSettings(max_tokens=400))
    next(tokens)
    assert engine.process_id is not None
    os.kill(engine.process_id, number)
    with pytest.raises(EngineCrashedError, match=number.name) as crash:
        list(tokens)
    assert words in str(crash.value)
    assert engine.process_id is None
    # The adapter is attached again: the same answer as before the crash.
    assert list(engine.generate(PROMPT, SamplingSettings(max_tokens=20))) == expected
    engine.set_adapter(None, None)


def test_a_process_that_dies_between_two_answers_is_not_missed(engine: IsolatedEngine) -> None:
    expected = list(engine.generate(PROMPT, SamplingSettings(max_tokens=5)))
    assert engine.process_id is not None
    process = psutil.Process(engine.process_id)
    process.kill()
    process.wait(5)
    assert list(engine.generate(PROMPT, SamplingSettings(max_tokens=5))) == expected


def test_what_does_not_fit_is_refused_as_in_this_process(engine: IsolatedEngine, stories: ModelPackage) -> None:
    for prompt in ([], [10**6], [-1], [1] * 512):
        with pytest.raises(PromptError):
            engine.generate(prompt, ENDLESS)
    tensors, layout = adapter(stories, 3)
    before = list(engine.generate(PROMPT, SamplingSettings(max_tokens=8)))
    with pytest.raises(EngineUnavailableError):
        engine.set_adapter({name: t[:, :1] for name, t in tensors.items()}, layout)
    wrong = AdapterLayout.for_llama(
        layers=9, hidden=64, ffn=172, heads=8, kv_heads=4, head_dim=8, rank=2, alpha=2.0, targets=["q_proj"]
    )
    with pytest.raises(NightshiftError):
        engine.set_adapter(initialise(wrong, bytes(32)), wrong)
    assert list(engine.generate(PROMPT, SamplingSettings(max_tokens=8))) == before


def test_the_context_can_be_shorter_than_the_models(stories: ModelPackage) -> None:
    with IsolatedEngine(stories, EngineKind.ONNX, threads=1, context_tokens=10) as engine:
        assert engine.context_tokens == 10
        assert len(list(engine.generate(PROMPT, ENDLESS))) == 7
        with pytest.raises(PromptError, match="1 to 9"):
            engine.generate([1] * 10, ENDLESS)


def test_a_package_that_is_gone(tmp_path: Path) -> None:
    package = build_stories(tmp_path / "package")
    (tmp_path / "package" / "manifest.json").unlink()
    with IsolatedEngine(package, EngineKind.ONNX) as engine, pytest.raises(NotFoundError, match="manifest"):
        engine.start()


@on_linux
def test_the_process_is_the_first_to_go_and_leaves_no_image(engine: IsolatedEngine) -> None:
    engine.start()
    proc = Path(f"/proc/{engine.process_id}")
    assert int((proc / "oom_score_adj").read_text()) > int(Path("/proc/self/oom_score_adj").read_text())
    cores = next(line for line in (proc / "limits").read_text().splitlines() if "core file size" in line)
    assert cores.split()[4:6] == ["0", "0"]


def test_the_engine_process_goes_with_the_agent(stories: ModelPackage) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from edge_client.engines.engine import EngineKind\n"
        "from edge_client.engines.isolated import IsolatedEngine\n"
        "from nightshift.packages.package import ModelPackage\n"
        "engine = IsolatedEngine(ModelPackage.open(Path(sys.argv[1])), EngineKind.ONNX)\n"
        "engine.start()\n"
        "assert not {'onnxruntime', 'llama_cpp'} & set(sys.modules), 'native code in the agent'\n"
        "print(engine.process_id, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(stories.directory)], stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            child = psutil.Process(int(agent.stdout.readline()))
        finally:
            agent.kill()
        child.wait(5)


# Choosing a runtime: the broken library is a real module on the path of the engine process.


@pytest.fixture
def broken_llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(code: str) -> None:
        (tmp_path / "llama_cpp.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_auto_falls_back_when_the_library_dies(stories: ModelPackage, broken_llama: Callable[[str], None]) -> None:
    broken_llama("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    chosen = open_engine(stories, threads=1)
    with chosen.engine:
        assert chosen.engine.kind is EngineKind.ONNX
        assert "SIGILL" in chosen.notes[0]
        assert list(chosen.engine.generate(PROMPT, SamplingSettings(max_tokens=2)))


def test_the_one_that_was_asked_for_or_none(stories: ModelPackage, broken_llama: Callable[[str], None]) -> None:
    broken_llama("raise ImportError('no such library')\n")
    with pytest.raises(EngineUnavailableError, match=r"nightshift\[llama\]"):
        open_engine(stories, EngineKind.LLAMA)


@pytest.mark.llama
def test_auto_takes_llama_where_it_works_and_the_preferred_one_first(stories: ModelPackage) -> None:
    for preferred, expected in ((None, EngineKind.LLAMA), (EngineKind.ONNX, EngineKind.ONNX)):
        chosen = open_engine(stories, preferred=preferred, threads=1)
        with chosen.engine:
            assert chosen.engine.kind is expected
            assert chosen.notes == ()


BLOCK = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {blocked!r} else find(name, path, target)
PathFinder.find_spec = find_spec
"""


def _choose_without(package: ModelPackage, directory: Path, blocked: set[str]) -> subprocess.CompletedProcess[str]:
    """Chooses in a process, and its engine processes, where modules cannot be imported."""
    (directory / "sitecustomize.py").write_text(BLOCK.format(blocked=blocked))
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from edge_client.engines.choice import open_engine\n"
        "from nightshift.packages.package import ModelPackage\n"
        "print(open_engine(ModelPackage.open(Path(sys.argv[1]))).engine.kind.value)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(package.directory)],
        env=os.environ | {"PYTHONPATH": str(directory)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_llama_the_other_works(stories: ModelPackage, tmp_path: Path) -> None:
    assert _choose_without(stories, tmp_path, {"llama_cpp"}).stdout.strip() == "onnx"


@pytest.mark.llama
def test_without_onnxruntime_the_other_works(stories: ModelPackage, tmp_path: Path) -> None:
    assert _choose_without(stories, tmp_path, {"onnxruntime"}).stdout.strip() == "llama"


def test_without_both_the_message_names_the_extras(stories: ModelPackage, tmp_path: Path) -> None:
    failed = _choose_without(stories, tmp_path, {"onnxruntime", "llama_cpp"})
    assert failed.returncode != 0
    assert "no inference engine is installed" in failed.stderr
    assert "nightshift[llama]" in failed.stderr
    assert "pip install onnxruntime" in failed.stderr
