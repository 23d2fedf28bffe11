"""What a request may say, and by which name everything else is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_client.data.examples import Message
from edge_client.serving.errors import InvalidRequestError
from edge_client.serving.fields import parse_object
from edge_client.serving.requests import chat_request, completion_request

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
TEXT: dict[str, Any] = {"prompt": "hello"}


def test_defaults_are_those_of_the_api() -> None:
    chat = chat_request(HELLO)
    assert chat.messages == (Message("user", "hello"),)
    assert (chat.options.sampling.temperature, chat.options.sampling.top_p) == (1.0, 1.0)
    assert chat.options.sampling.seed is None
    assert not chat.options.stream
    assert completion_request(TEXT).options.sampling.max_tokens == 16


def test_what_is_said_is_used() -> None:
    options = chat_request(
        HELLO
        | {"model": "m", "temperature": 0.25, "top_p": 0.5, "seed": 7, "max_tokens": 9, "stop": ["a", "b"]}
        | {"stream": True, "stream_options": {"include_usage": True}, "user": "someone", "n": 1, "tools": []}
    ).options
    assert options.model == "m"
    assert options.sampling.temperature == 0.25
    assert options.sampling.top_p == 0.5
    assert options.sampling.seed == 7
    assert options.sampling.max_tokens == 9
    assert options.stop == ("a", "b")
    assert options.stream
    assert options.include_usage


def test_the_smaller_of_both_token_limits_counts() -> None:
    assert chat_request(HELLO | {"max_tokens": 9, "max_completion_tokens": 4}).options.sampling.max_tokens == 4


def test_an_empty_nucleus_is_the_likeliest_token() -> None:
    assert chat_request(HELLO | {"top_p": 0}).options.sampling.temperature == 0.0


def test_negative_seeds_are_seeds() -> None:
    low, high = (chat_request(HELLO | {"seed": seed}).options.sampling.seed for seed in (-1, 2**63 - 1))
    assert low != high
    assert low is not None
    assert low >= 0


def test_parts_and_roles_become_what_templates_know() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    chat = chat_request({"messages": [{"role": "developer", "content": "be kind"}, {"role": "user", "content": parts}]})
    assert chat.messages == (Message("system", "be kind"), Message("user", "one\ntwo"))


@pytest.mark.parametrize("prompt", ["hello", ["hello"], [1, 2], [[1, 2]]])
def test_one_prompt_in_every_form(prompt: object) -> None:
    assert completion_request({"prompt": prompt}).prompt in ("hello", (1, 2))


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hello"}, "messages", "invalid_type"),
        ({"messages": ["hello"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls",
            "unsupported_parameter",
        ),
        ({"messages": [{"role": "user", "content": "x", "mood": "good"}]}, "messages[0].mood", "unknown_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"n": True}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unknown_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": 10**400}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_type"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": True}, "max_completion_tokens", "invalid_type"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": {"a": 1}}, "stop", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"colour": 1}}, "stream_options.colour", "unknown_parameter"),
        ({"model": 3}, "model", "invalid_type"),
    ],
)
def test_refusals_name_the_field(change: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        chat_request(HELLO | change)
    assert (refusal.value.param, refusal.value.code) == (param, code)
    assert refusal.value.body()["error"] == {
        "message": refusal.value.message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ["one", "two"]}, "prompt"),
        ({"prompt": [1, "two"]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "the end"}, "suffix"),
        ({"logprobs": 0}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_text_completions_refuse_by_name_too(change: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        completion_request(TEXT | change)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"temperature": NaN}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_bodies_that_are_no_json_objects(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse_object(body)
    assert refusal.value.code == "invalid_json"


def test_null_is_absent() -> None:
    body = HELLO | dict.fromkeys(("stop", "seed", "temperature", "tools", "stream_options", "max_tokens", "n"))
    assert chat_request(parse_object(json.dumps(body).encode())) == chat_request(HELLO)
