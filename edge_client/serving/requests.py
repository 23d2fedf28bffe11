"""Chat and text completions as they are asked for.

A field is read, or ignored because it cannot change the answer here, or accepted
only with the value that changes nothing, or refused by name: a client that
asks for log-probabilities must not get an answer that quietly lacks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_client.data.examples import Message
from edge_client.engines.sampling import SamplingSettings
from edge_client.serving.errors import InvalidRequestError
from edge_client.serving.fields import Fields

COMPLETION_MAX_TOKENS = 16  # OpenAI's default for text completions
MAX_TOKENS = 1 << 24
MAX_MESSAGES = 4096
MAX_STOPS = 4
_MAX_STOP_CHARACTERS = 256
_MAX_TEXT_CHARACTERS = 1 << 22
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_WITHOUT_EFFECT = (
    *("user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What chat and text completions share.

    Attributes:
        model: id of the model; None is the default one.
        sampling: `max_tokens` is the most that fits where the request does not say.
        stop: texts before which the answer ends.
        stream: answer piece by piece.
        include_usage: end the stream with the token counts.
    """

    model: str | None
    sampling: SamplingSettings
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to be continued."""

    options: Options
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A text, or tokens, to be continued."""

    options: Options
    prompt: str | tuple[int, ...]


def chat_request(values: dict[str, Any]) -> ChatRequest:
    """Reads the body of /v1/chat/completions.

    Raises:
        InvalidRequestError: names the field.
    """
    fields = Fields(values)
    messages = _messages(fields)
    limits = [fields.integer(name, 1, MAX_TOKENS) for name in ("max_completion_tokens", "max_tokens")]
    given = [limit for limit in limits if limit is not None]
    fields.only("logprobs", [False])
    fields.only("top_logprobs", [0])
    fields.only("response_format", [{"type": "text"}])
    fields.only("modalities", [["text"]])
    fields.only("tools", [[]])
    fields.only("tool_choice", ["none", "auto"])
    fields.only("functions", [[]])
    fields.only("function_call", ["none", "auto"])
    options = _options(fields, min(given) if given else MAX_TOKENS)
    fields.finish()
    return ChatRequest(options, messages)


def completion_request(values: dict[str, Any]) -> CompletionRequest:
    """Reads the body of /v1/completions.

    Raises:
        InvalidRequestError: names the field.
    """
    fields = Fields(values)
    prompt = _prompt(fields)
    limit = fields.integer("max_tokens", 1, MAX_TOKENS)
    fields.only("best_of", [1])
    fields.only("echo", [False])
    fields.only("suffix", [""])
    fields.only("logprobs")
    options = _options(fields, COMPLETION_MAX_TOKENS if limit is None else limit)
    fields.finish()
    return CompletionRequest(options, prompt)


def _options(fields: Fields, max_tokens: int) -> Options:
    temperature = fields.number("temperature", 1.0, 0.0, 2.0)
    top_p = fields.number("top_p", 1.0, 0.0, 1.0)
    seed = fields.integer("seed", -(2**63), 2**63 - 1)
    fields.only("n", [1])
    fields.only("presence_penalty", [0, 0.0])
    fields.only("frequency_penalty", [0, 0.0])
    fields.only("logit_bias", [{}])
    fields.ignore(*_WITHOUT_EFFECT)
    # The smallest nucleus holds one token: the likeliest.
    greedy = top_p == 0.0
    sampling = SamplingSettings(
        max_tokens=max_tokens,
        temperature=0.0 if greedy else temperature,
        top_p=1.0 if greedy else top_p,
        seed=None if seed is None else seed % 2**64,
    )
    stream = fields.flag("stream")
    return Options(fields.text("model", longest=512), sampling, _stop(fields), stream, _include_usage(fields, stream))


def _include_usage(fields: Fields, stream: bool) -> bool:
    value = fields.take("stream_options")
    if value is None:
        return False
    if not isinstance(value, dict):
        raise fields.error("stream_options", "expected an object", code="invalid_type")
    if not stream:
        raise fields.error("stream_options", "only allowed together with stream: true")
    options = Fields(value, "stream_options.")
    options.ignore("include_obfuscation")
    include_usage = options.flag("include_usage")
    options.finish()
    return include_usage


def _stop(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    stops = [value] if isinstance(value, str) else ([] if value is None else value)
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise fields.error("stop", "expected a string or a list of strings", code="invalid_type")
    if len(stops) > MAX_STOPS or not all(1 <= len(stop) <= _MAX_STOP_CHARACTERS for stop in stops):
        raise fields.error("stop", f"expected at most {MAX_STOPS} strings of 1 to {_MAX_STOP_CHARACTERS} characters")
    return tuple(stops)


def _messages(fields: Fields) -> tuple[Message, ...]:
    values = fields.take("messages")
    if values is None:
        raise fields.error("messages", "expected a list of messages, got none", code="missing_required_parameter")
    if not isinstance(values, list):
        raise fields.error("messages", "expected a list of messages", code="invalid_type")
    if not 1 <= len(values) <= MAX_MESSAGES:
        raise fields.error("messages", f"expected 1 to {MAX_MESSAGES} messages")
    return tuple(_message(value, f"messages[{index}]") for index, value in enumerate(values))


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{where}: expected an object", param=where, code="invalid_type")
    fields = Fields(value, f"{where}.")
    role = fields.text("role")
    if role not in _ROLES:
        raise fields.error("role", f"expected one of {', '.join(_ROLES)}")
    content = _content(fields, fields.take("content"))
    fields.ignore("name", "refusal", "annotations", "tool_call_id", "reasoning_content")
    fields.only("tool_calls", [[]])
    fields.only("function_call")
    fields.only("audio")
    fields.finish()
    return Message(_ROLES[role], content)


def _content(fields: Fields, value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        raise fields.error("content", "expected text, got none", code="missing_required_parameter")
    if not isinstance(value, list):
        raise fields.error("content", "expected a string or a list of text parts", code="invalid_type")
    parts = []
    for part in value:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise fields.error("content", "this server reads text only; expected parts of type 'text'")
        parts.append(text)
    return "\n".join(parts)


def _prompt(fields: Fields) -> str | tuple[int, ...]:
    value = fields.take("prompt")
    if value is None:
        raise fields.error("prompt", "expected a string, got none", code="missing_required_parameter")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        if len(value) > _MAX_TEXT_CHARACTERS:
            raise fields.error("prompt", f"expected at most {_MAX_TEXT_CHARACTERS} characters")
        return value
    if isinstance(value, list) and value and all(type(token) is int for token in value):
        return tuple(value)
    raise fields.error("prompt", "expected one string, or one list of tokens; send several prompts one by one")
