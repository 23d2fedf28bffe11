"""`edge-client serve` as a real process, asked by the real `openai` client over real sockets."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from edge_client.data.examples import Message
from edge_client.engines.llama_engine import LlamaEngine
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sampling import SamplingSettings
from edge_client.engines.sessions import RuntimeSettings
from edge_client.home import Home
from edge_client.serving.answering import Language
from edge_client.store import open_store
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Tensors
from tests.support.local_api import Server, adopt, command, environment, events, put_package, serving
from tests.support.slow_model import STOPPED_WITHIN_S, build_slow_model
from tests.support.stories import build_stories

CANARY = "kingfisher-9141-canary"
TALE = "Once upon a time"
ASK: list[Any] = [{"role": "user", "content": TALE}]
BOTH = ["onnx", pytest.param("llama", marks=pytest.mark.llama)]
ENDLESS = 8000


@dataclass(frozen=True)
class Device:
    home: Path
    package: ModelPackage
    adapters: dict[str, tuple[Tensors, AdapterLayout]]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    """A device that was never joined to anybody, with a model and two adapters; tale/2 is in use."""
    home = tmp_path_factory.mktemp("device")
    package = put_package(home, build_stories(home / "built"))
    return Device(
        home, package, {name: adopt(home, package, name, seed=n) for n, name in enumerate(["tale/1", "tale/2"])}
    )


@pytest.fixture(scope="module")
def slow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device whose model writes for many seconds if nobody stops it."""
    home = tmp_path_factory.mktemp("slow")
    put_package(home, build_slow_model(home))
    (home / "config.toml").write_text("[inference]\ncontext_tokens = 8192\n[serving]\nwaiting_limit = 3\n")
    return home


@pytest.fixture(scope="module", params=BOTH)
def server(
    request: pytest.FixtureRequest, device: Device, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "serve"
    with serving(device.home, "--engine", request.param, log=log) as running:
        yield running


@pytest.fixture(scope="module", params=BOTH)
def slow(request: pytest.FixtureRequest, slow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "serve"
    with serving(slow_home, "--engine", request.param, log=log) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=30) as opened:
        yield opened


@pytest.fixture
def expected(server: Server, device: Device) -> Callable[..., list[int]]:
    """The likeliest tokens, from the same runtime in this process."""

    def tokens(prompt: list[int], count: int, adapter: str | None = None) -> list[int]:
        runtime = RuntimeSettings(threads=1)
        kind = LlamaEngine if server.health()["engine"] == "llama.cpp" else OnnxEngine
        with kind(device.package, runtime) as engine:
            engine.set_adapter(*(device.adapters[adapter] if adapter else (None, None)))
            return list(engine.generate(prompt, SamplingSettings(max_tokens=count)))

    return tokens


# What is answered


def test_a_conversation_is_answered_as_the_engine_alone_would(
    client: openai.OpenAI, device: Device, expected: Callable[..., list[int]]
) -> None:
    language = Language.of(device.package)
    prompt = language.conversation([Message("user", TALE)])
    for model, adapter in (("stories260K", None), ("tale/1", "tale/1"), ("default", "tale/2")):
        tokens = expected(prompt, 40, adapter)
        answer = client.chat.completions.create(model=model, messages=ASK, temperature=0, max_tokens=40)
        assert answer.choices[0].message.content == language.tokenizer.decode(tokens)
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason == ("length" if len(tokens) == 40 else "stop")
        assert answer.model == (adapter or "stories260K")
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(prompt)
        assert answer.usage.completion_tokens == len(tokens)
        assert answer.usage.total_tokens == len(prompt) + len(tokens)


def test_a_text_is_continued_with_its_spaces(
    client: openai.OpenAI, device: Device, expected: Callable[..., list[int]]
) -> None:
    language = Language.of(device.package)
    prompt = language.text("Lily and her")
    tokens = expected(prompt, 20)
    whole = client.completions.create(model="stories260K", prompt="Lily and her", temperature=0, max_tokens=20)
    same = client.completions.create(model="stories260K", prompt=prompt, temperature=0, max_tokens=20)
    assert "Lily and her" + whole.choices[0].text == language.tokenizer.decode(prompt + tokens)
    assert whole.choices[0].text.startswith(" ")
    assert same.choices[0].text == whole.choices[0].text
    assert len(client.completions.create(model="stories260K", prompt="A").choices[0].text) < 200, "16 tokens at most"


def test_streams_are_the_same_answer_in_pieces(client: openai.OpenAI) -> None:
    question: dict[str, Any] = {"model": "default", "temperature": 0.9, "seed": 11, "max_tokens": 50}
    whole = client.chat.completions.create(messages=ASK, **question)
    chunks = list(
        client.chat.completions.create(messages=ASK, stream=True, stream_options={"include_usage": True}, **question)
    )
    *body, counts = chunks
    assert len(body) > 5
    assert body[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in body) == whole.choices[0].message.content
    assert body[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.choices[0].finish_reason is None for chunk in body[:-1])
    assert (counts.choices, counts.usage) == ([], whole.usage)
    assert {chunk.id for chunk in chunks} == {chunks[0].id} != {whole.id}
    without = list(client.chat.completions.create(messages=ASK, stream=True, **question))
    assert len(without) == len(body)
    assert all(chunk.usage is None for chunk in without)

    text = client.completions.create(prompt=TALE, **question)
    parts = list(client.completions.create(prompt=TALE, stream=True, **question))
    assert "".join(part.choices[0].text for part in parts) == text.choices[0].text
    assert parts[-1].choices[0].finish_reason == text.choices[0].finish_reason


def test_a_stop_text_ends_the_answer_and_is_not_in_it(client: openai.OpenAI) -> None:
    question: dict[str, Any] = {"model": "stories260K", "prompt": TALE, "temperature": 0, "max_tokens": 60}
    free = client.completions.create(**question).choices[0].text
    middle = free[len(free) // 2 : len(free) // 2 + 3]
    answer = client.completions.create(stop=["never said", middle], **question)
    parts = list(client.completions.create(stop=middle, stream=True, **question))
    assert answer.choices[0].text == free[: free.index(middle)]
    assert answer.choices[0].finish_reason == "stop"
    assert "".join(part.choices[0].text for part in parts) == answer.choices[0].text
    assert parts[-1].choices[0].finish_reason == "stop"


def test_a_seed_repeats_and_none_varies(client: openai.OpenAI) -> None:
    def draw(**more: Any) -> str:
        answer = client.completions.create(model="stories260K", prompt=TALE, max_tokens=40, temperature=1.5, **more)
        return answer.choices[0].text

    assert draw(seed=4) == draw(seed=4)
    assert draw(seed=-4) == draw(seed=-4) != draw(seed=4)
    assert len({draw() for _ in range(4)}) > 1
    assert draw(top_p=0) == draw(top_p=0)


def test_an_answer_goes_to_the_end_of_the_context_unless_limited(client: openai.OpenAI) -> None:
    # 500 tokens of the prompt leave 12 of 512.
    answer = client.completions.create(model="stories260K", prompt=[1] + [403] * 499, max_tokens=100, temperature=0)
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (12, "length")


def test_models_are_listed_and_found(client: openai.OpenAI, device: Device) -> None:
    assert [model.id for model in client.models.list()] == ["stories260K", "tale/1", "tale/2"]
    assert client.models.retrieve("tale/1").owned_by == "nightshift"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-17")
    assert missing.value.code == "model_not_found"


def test_an_adoption_and_a_rollback_take_effect_at_the_next_request(client: openai.OpenAI, device: Device) -> None:
    def default() -> str:
        return client.completions.create(model="default", prompt=TALE, temperature=0).model

    assert default() == "tale/2"
    with open_store(Home.locate(device.home)) as store:
        store.adapters.use("tale", "tale/1")
    assert default() == "tale/1"
    with open_store(Home.locate(device.home)) as store:
        store.adapters.use("tale", None)
    assert default() == "stories260K"
    with open_store(Home.locate(device.home)) as store:
        store.adapters.use("tale", "tale/2")
    assert default() == "tale/2"


# What is refused


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"extra_body": {"mirostat": 2}}, "mirostat", "unknown_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, "messages", "context_length_exceeded"),
    ],
)
def test_refusals_reach_the_client_by_name(
    client: openai.OpenAI, change: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(**({"model": "default", "messages": ASK} | change))
    assert (refusal.value.param, refusal.value.code) == (param, code)
    assert refusal.value.type == "invalid_request_error"


def test_unknown_models_and_tokens(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="offered are: default, stories260K, tale/1") as missing:
        client.chat.completions.create(model="gpt-17", messages=ASK)
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    for prompt in ([], [10**9], [-1]):
        with pytest.raises(openai.BadRequestError) as refusal:
            client.completions.create(model="stories260K", prompt=prompt)
        assert refusal.value.param == "prompt"


def test_requests_that_are_none(server: Server) -> None:
    chat = "/v1/chat/completions"
    chunked = b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
    chunked += b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    # One byte over the limit and no end: whoever waits for all of it waits for ever.
    endless = chunked + b"400001\r\n" + b" " * 0x400001 + b"\r\n"
    cases = [
        (server.message(chat, b"{"), 400, "invalid_json"),
        (server.message(chat, b'{"a":' + b"[" * 50_000), 400, "invalid_json"),
        (server.message(chat, {}, content_type="text/plain"), 415, "content_type"),
        (server.message("/v1/embeddings", {}), 404, "unknown_url"),
        (
            b"GET " + chat.encode() + b" HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n",
            405,
            "method_not_allowed",
        ),
        (server.message(chat, {}, host="evil.example"), 403, "host"),
        (server.message(chat, {}, origin="https://evil.example"), 403, "origin"),
        (endless, 413, "body_too_large"),
    ]
    for message, status, code in cases:
        got, _, body = server.raw(message)
        assert (got, json.loads(body)["error"]["code"]) == (status, code)
    assert server.health()["status"] == "ok"


# Many at once, and those who leave


def open_stream(server: Server, **more: Any) -> socket.socket:
    """A stream that has begun."""
    body = {"prompt": "x", "max_tokens": ENDLESS, "temperature": 0, "stream": True} | more
    connection = socket.create_connection(server.address, timeout=30)
    connection.sendall(server.message("/v1/completions", body))
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def idle(state: dict[str, Any]) -> bool:
    return state["running"] == 0


def test_a_vanished_reader_of_a_stream_frees_the_engine(slow: Server) -> None:
    connection = open_stream(slow)
    assert slow.health()["running"] == 1
    pid = slow.engine.pid
    started = time.monotonic()
    connection.close()
    slow.wait_for(idle)
    assert time.monotonic() - started < STOPPED_WITHIN_S
    status, _, body = slow.post("/v1/completions", {"prompt": "x", "max_tokens": 3})
    assert status == 200
    assert json.loads(body)["usage"]["completion_tokens"] == 3
    assert slow.engine.pid == pid, "stopped, not killed"


def test_a_vanished_waiter_for_a_whole_answer_frees_the_engine(slow: Server) -> None:
    with socket.create_connection(slow.address) as connection:
        connection.sendall(slow.message("/v1/completions", {"prompt": "x", "max_tokens": ENDLESS, "temperature": 0}))
        slow.wait_for(lambda state: state["running"] == 1)
        time.sleep(0.2)
    slow.wait_for(idle, within_s=STOPPED_WITHIN_S)


def test_answers_come_in_the_order_of_the_questions(slow: Server) -> None:
    blocker = open_stream(slow)
    done: list[int] = []

    def ask(number: int) -> None:
        status, _, _ = slow.post("/v1/completions", {"prompt": "x", "max_tokens": 2, "seed": number})
        assert status == 200
        done.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for number, thread in enumerate(threads):
        thread.start()
        slow.wait_for(lambda state, wanted=number + 1: state["waiting"] == wanted)
    assert done == []
    blocker.close()
    for thread in threads:
        thread.join(20)
    assert done == [0, 1, 2]


def test_a_full_queue_says_so_and_a_vanished_waiter_leaves_it(slow: Server) -> None:
    blocker = open_stream(slow)
    waiters = []
    for number in range(3):
        waiter = socket.create_connection(slow.address)
        waiter.sendall(slow.message("/v1/completions", {"prompt": "x", "max_tokens": 2}))
        waiters.append(waiter)
        slow.wait_for(lambda state, wanted=number + 1: state["waiting"] == wanted)
    with openai.OpenAI(base_url=slow.url, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as full:
            client.completions.create(model="default", prompt="x")
        assert full.value.code == "queue_full"
        assert int(full.value.response.headers["retry-after"]) > 0
    waiters[1].close()
    slow.wait_for(lambda state: state["waiting"] == 2)
    with socket.create_connection(slow.address) as late:
        late.sendall(slow.message("/v1/completions", {"prompt": "x", "max_tokens": 2}))
        slow.wait_for(lambda state: state["waiting"] == 3)
    for connection in (blocker, *waiters):
        connection.close()
    slow.wait_for(idle)


def test_a_crash_ends_one_answer_and_not_the_server(slow: Server) -> None:
    with openai.OpenAI(base_url=slow.url, api_key="none", max_retries=0, timeout=30) as client:
        stream = client.completions.create(model="default", prompt="x", max_tokens=ENDLESS, temperature=0, stream=True)
        next(iter(stream))
        slow.engine.send_signal(signal.SIGILL)
        with pytest.raises(openai.APIError, match="SIGILL"):
            list(stream)
        assert slow.wait_for(idle)["status"] == "failing"
        assert client.completions.create(model="default", prompt="x", max_tokens=3).usage is not None
        assert slow.health()["status"] == "ok"

        failures: list[openai.APIStatusError] = []

        def ask() -> None:
            try:
                client.completions.create(model="default", prompt="x", max_tokens=ENDLESS, temperature=0)
            except openai.APIStatusError as error:
                failures.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        slow.wait_for(lambda state: state["running"] == 1)
        time.sleep(0.3)
        slow.engine.kill()
        thread.join(20)
        assert [(error.status_code, error.code) for error in failures] == [(503, "engine_failed")]
        assert "memory ran out" in failures[0].message
        with client.with_options(max_retries=2) as patient:
            assert patient.completions.create(model="default", prompt="x", max_tokens=3).usage is not None


# The process


def run(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(home, *arguments), check=False, capture_output=True, text=True, timeout=60, env=environment(more)
    )


def test_a_network_needs_a_key(device: Device, tmp_path: Path) -> None:
    refused = run(device.home, "serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "needs an API key" in refused.stderr
    key = "a-long-enough-key"
    with serving(
        device.home,
        *("--host", "0.0.0.0", "--engine", "onnx"),
        log=tmp_path / "log",
        extra_environment={"EDGE_CLIENT_SERVING_API_KEY": key},
    ) as server:
        assert server.health()["status"] == "ok"
        with openai.OpenAI(base_url=server.url, api_key="another-key-than-that", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as refusal:
                client.models.list()
            assert refusal.value.code == "invalid_api_key"
            assert client.with_options(api_key=key).models.list().data
        status, headers, _ = server.raw(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert key not in (tmp_path / "log").read_text("utf-8")
    shown = run(device.home, "config", "show", EDGE_CLIENT_SERVING_API_KEY=key).stdout
    assert "serving.api_key" in shown
    assert key not in shown


def test_nothing_that_was_said_is_written_anywhere(device: Device, tmp_path: Path) -> None:
    with serving(
        device.home,
        *("--engine", "onnx"),
        log=tmp_path / "log",
        extra_environment={"NIGHTSHIFT_TRACEBACK": "1"},
    ) as server:
        with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
            said = client.completions.create(model="default", prompt=f"{CANARY} {TALE}", max_tokens=60, temperature=0)
            for refused in ({"model": CANARY}, {"stop": [CANARY] * 9}, {"seed": CANARY}, {"user": CANARY, "n": 7}):
                with pytest.raises(openai.APIStatusError):
                    client.completions.create(**({"model": "default", "prompt": CANARY * 3} | refused))
        server.raw(server.message(f"/v1/{CANARY}", {}))
        server.raw(server.message("/v1/completions", f'{{"prompt": "{CANARY}'.encode()))
        with socket.create_connection(server.address) as garbage:
            garbage.sendall(CANARY.encode() + b"\r\n\r\n")
            garbage.recv(1000)
        connection = open_stream(server, prompt=CANARY, max_tokens=400)
        server.engine.kill()
        while connection.recv(65536):
            pass
        connection.close()
    log = (tmp_path / "log").read_text("utf-8")
    assert CANARY not in log
    answer = said.choices[0].text.strip()
    assert len(answer) > 20
    assert answer[:20] not in log
    written = [path for path in device.home.rglob("*") if path.is_file() and "packages" not in path.parts]
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_even_in_the_middle_of_an_answer(slow_home: Path, tmp_path: Path, number: int) -> None:
    with serving(slow_home, "--engine", "onnx", log=tmp_path / "log") as server:
        engine = server.engine
        with open_stream(server):
            server.process.send_signal(number)
            assert server.process.wait(10) == 0
        engine.wait(5)


def test_killed_it_takes_its_engine_along(slow_home: Path, tmp_path: Path) -> None:
    with serving(slow_home, "--engine", "onnx", log=tmp_path / "log") as server:
        engine = server.engine
        with open_stream(server):
            server.process.kill()
            server.process.wait(5)
            engine.wait(5)
        assert not psutil.pid_exists(engine.pid) or engine.status() == psutil.STATUS_ZOMBIE


def test_what_cannot_start_says_why(device: Device, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = run(device.home, "serve", "--port", str(taken.getsockname()[1]))
    assert refused.returncode == 2
    assert "Choose another with --port" in refused.stderr
    empty = run(tmp_path / "empty", "serve", "--port", "0")
    assert empty.returncode == 2
    assert "there is no model on this device" in empty.stderr
    assert "no adapter 'tale/9'" in run(device.home, "serve", "--adapter", "tale/9", "--port", "0").stderr


def test_the_base_alone(device: Device, tmp_path: Path) -> None:
    with (
        serving(device.home, "--base", "--engine", "onnx", log=tmp_path / "log") as server,
        openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
    ):
        assert [model.id for model in client.models.list()] == ["stories260K"]
        assert client.completions.create(model="default", prompt=TALE).model == "stories260K"
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="tale/1", prompt=TALE)


def test_a_library_for_another_processor_is_passed_over(device: Device, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    with serving(device.home, log=tmp_path / "log", extra_environment={"PYTHONPATH": str(tmp_path)}) as server:
        assert server.health()["engine"] == "ONNX Runtime"
        assert events(server.post("/v1/completions", {"prompt": TALE, "stream": True})[2])[-1] == "[DONE]"
    assert "SIGILL" in (tmp_path / "log").read_text("utf-8")
