"""Answers in the JSON of OpenAI's API: whole ones, and the chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from edge_client.serving.answering import Answer
from edge_client.serving.catalogue import Offer

Json = dict[str, Any]
END_OF_STREAM = b"data: [DONE]\n\n"


def event(value: Json) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2)."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def model_record(offer: Offer, *, owner: str) -> Json:
    """One entry of /v1/models."""
    return {"id": offer.name, "object": "model", "created": offer.created_unix_s, "owned_by": owner}


@dataclass(frozen=True, slots=True)
class Reply:
    """The parts that every answer to one request repeats.

    Attributes:
        chat: for a conversation rather than a text.
        id: of the answer.
        created_unix_s: when it was begun.
        model: that answers.
        fingerprint: of the base model and its adapter.
        prompt_tokens: that were read.
        include_usage: whether chunks mention the token counts.
    """

    chat: bool
    id: str
    created_unix_s: int
    model: str
    fingerprint: str
    prompt_tokens: int
    include_usage: bool = False

    @classmethod
    def begin(cls, *, chat: bool, offer: Offer, package: str, prompt_tokens: int, include_usage: bool) -> Reply:
        """A new answer.

        Args:
            chat: for a conversation.
            offer: the model.
            package: id of the base model's package, hex.
            prompt_tokens: that will be read.
            include_usage: as asked for.
        """
        return cls(
            chat=chat,
            id=("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            created_unix_s=int(time.time()),
            model=offer.name,
            fingerprint=f"fp_{package[:12]}_{offer.fingerprint}",
            prompt_tokens=prompt_tokens,
            include_usage=include_usage,
        )

    def whole(self, text: str, answer: Answer) -> Json:
        """The answer in one piece."""
        choice: Json = {"index": 0, "finish_reason": answer.finish_reason, "logprobs": None}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        return self._frame([choice], chunk=False) | {"usage": self._usage(answer)}

    def opening(self) -> bytes:
        """What a stream begins with: the role, in a conversation."""
        return self._chunk({"role": "assistant", "content": ""}, "", None) if self.chat else b""

    def piece(self, text: str) -> bytes:
        """Some text."""
        return self._chunk({"content": text}, text, None)

    def closing(self, answer: Answer) -> bytes:
        """What a stream ends with: the reason, the counts if asked for, and the mark."""
        last = self._chunk({}, "", answer.finish_reason)
        if self.include_usage:
            last += event(self._frame([], chunk=True) | {"usage": self._usage(answer)})
        return last + END_OF_STREAM

    def _chunk(self, delta: Json, text: str, finish_reason: str | None) -> bytes:
        choice: Json = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        choice |= {"delta": delta} if self.chat else {"text": text}
        frame = self._frame([choice], chunk=True)
        return event(frame | {"usage": None} if self.include_usage else frame)

    def _frame(self, choices: list[Json], *, chunk: bool) -> Json:
        kind = "text_completion" if not self.chat else "chat.completion.chunk" if chunk else "chat.completion"
        return {
            "id": self.id,
            "object": kind,
            "created": self.created_unix_s,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def _usage(self, answer: Answer) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": self.prompt_tokens + answer.completion_tokens,
        }
