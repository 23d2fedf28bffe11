"""The HTTP side: OpenAI's addresses, one after the other, over a `Desk`.

Prompts and answers are never logged, nor put into an error that could be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_client.data.errors import DataError
from edge_client.engines.engine import check_prompt
from edge_client.engines.errors import PromptError
from edge_client.serving import replies
from edge_client.serving.access import Gate
from edge_client.serving.catalogue import UnknownModelError
from edge_client.serving.desk import Desk, Order
from edge_client.serving.errors import (
    ApiError,
    EngineFailedError,
    InvalidRequestError,
    NotFoundError,
    QueueFullError,
    TooLargeError,
)
from edge_client.serving.fields import parse_object
from edge_client.serving.requests import ChatRequest, CompletionRequest, Options, chat_request, completion_request
from edge_client.serving.turnstile import Place, TurnstileFullError
from nightshift.protocol.errors import NightshiftError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from edge_client.serving.answering import Answer

BODY_LIMIT_BYTES = 4 << 20
BODY_WITHIN_S = 30.0
RETRY_AFTER_S = 2
_log = logging.getLogger(__name__)


def make_app(desk: Desk, gate: Gate) -> ASGIApp:
    """The application.

    Args:
        desk: engine and queue.
        gate: who may ask.
    """
    api = _Api(desk)
    routes = [
        Route("/health", api.health, methods=["GET"]),
        Route("/v1/models", api.models, methods=["GET"]),
        Route("/v1/models/{name:path}", api.model, methods=["GET"]),
        Route("/v1/chat/completions", api.chat_completions, methods=["POST"]),
        Route("/v1/completions", api.completions, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {404: _no_address, 405: _no_method, ApiError: _refused, Exception: _failed}
    return _Boundary(Starlette(routes=routes, exception_handlers=handlers), gate)


class _Boundary:
    """Checks who asks, and lets no exception out: its text may quote the prompt, and uvicorn would log it."""

    def __init__(self, app: Starlette, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] != "/health":
                self._gate.check(Request(scope).headers)
        except ApiError as error:
            await _error_response(error)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the last line of the request; `_failed` has answered it
            _log.error("unexpected %s while answering %s", type(error).__name__, scope["path"])


class _Api:
    """The endpoints."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def health(self, _request: Request) -> Response:
        """Whether requests are answered; needs no key and tells nothing private."""
        queue = self._desk.turnstile
        failing = self._desk.failing
        body = {
            "status": "failing" if failing else "ok",
            "engine": self._desk.engine.kind.label,
            "running": int(queue.running),
            "waiting": queue.waiting,
        }
        return JSONResponse(body, 503 if failing else 200)

    async def models(self, _request: Request) -> Response:
        """Everything that is offered."""
        offers = await asyncio.to_thread(self._desk.catalogue.offers)
        records = [replies.model_record(offer, owner="nightshift") for offer in offers]
        return JSONResponse({"object": "list", "data": records})

    async def model(self, request: Request) -> Response:
        """One of them."""
        with _refusals():
            offer = await asyncio.to_thread(self._desk.catalogue.resolve, request.path_params["name"])
        return JSONResponse(replies.model_record(offer, owner="nightshift"))

    async def chat_completions(self, request: Request) -> Response:
        """Continues a conversation."""
        return await self._accept(chat_request(await _read_object(request)))

    async def completions(self, request: Request) -> Response:
        """Continues a text."""
        return await self._accept(completion_request(await _read_object(request)))

    async def _accept(self, request: ChatRequest | CompletionRequest) -> Response:
        try:
            place = self._desk.turnstile.enter()
        except TurnstileFullError:
            raise QueueFullError(
                f"{self._desk.turnstile.waiting} requests wait already; try again later",
                code="queue_full",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from None
        try:
            with _refusals():
                order = await asyncio.to_thread(self._order, request)
        except BaseException:
            place.leave()
            raise
        reply = replies.Reply.begin(
            chat=isinstance(request, ChatRequest),
            offer=order.offer,
            package=self._desk.catalogue.package.package_id.hex(),
            prompt_tokens=len(order.prompt),
            include_usage=request.options.include_usage,
        )
        return _Generation(self._desk, place, order, reply, request.options)

    def _order(self, request: ChatRequest | CompletionRequest) -> Order:
        """Chooses the model and makes tokens; blocking, so in a thread."""
        language = self._desk.language
        offer = self._desk.catalogue.resolve(request.options.model)
        if isinstance(request, ChatRequest):
            prompt, param = language.conversation(request.messages), "messages"
        else:
            prompt, param = language.text(request.prompt), "prompt"
        engine, vocabulary = self._desk.engine, self._desk.catalogue.package.manifest.dimensions.vocabulary
        try:
            check_prompt(prompt, vocabulary, engine.context_tokens)
        except PromptError as error:
            long = len(prompt) >= engine.context_tokens
            code = "context_length_exceeded" if long else "invalid_value"
            raise InvalidRequestError(str(error), param=param, code=code) from error
        return Order(
            offer, prompt, request.options.sampling, request.options.stop, isinstance(request, CompletionRequest)
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """What the two kinds of delivery need."""

    pieces: AsyncGenerator[str, None]
    answer: Answer


class _Generation(Response):
    """An answer that is written while the client listens, and given up when it is gone."""

    def __init__(self, desk: Desk, place: Place, order: Order, reply: replies.Reply, options: Options) -> None:
        super().__init__()
        self._desk = desk
        self._place = place
        self._order = order
        self._reply = reply
        self._stream = options.stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer."""
        writing = asyncio.ensure_future(self._write(scope, receive, send))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, gone):
                task.cancel()
            await asyncio.wait({writing, gone})
            self._desk.release(self._place)
        if not writing.cancelled():
            writing.result()

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._desk.answer(self._order)
        async with contextlib.aclosing(self._desk.pieces(self._place, self._order, answer)) as pieces:
            work = _Work(pieces, answer)
            if self._stream:
                await self._send_stream(work, send)
            else:
                with _refusals():
                    text = "".join([piece async for piece in pieces])
                await JSONResponse(self._reply.whole(text, answer))(scope, receive, send)

    async def _send_stream(self, work: _Work, send: Send) -> None:
        started = False

        async def body(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            with _refusals():
                async for piece in work.pieces:
                    if not started:
                        started = True
                        await _start_stream(send, self._reply.opening())
                    await body(self._reply.piece(piece))
        except ApiError as error:
            # The status line is out already: the error is an event, as OpenAI sends it.
            if not started:
                raise
            await body(replies.event(error.body()), more=False)
            return
        if not started:
            await _start_stream(send, self._reply.opening())
        await body(self._reply.closing(work.answer), more=False)


async def _start_stream(send: Send, first: bytes) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if first:
        await send({"type": "http.response.body", "body": first, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read_object(request: Request) -> dict[str, Any]:
    """Reads the JSON body within limits of size and time."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Another type would let a page of a browser send this request without asking first (CORS).
    if kind != "application/json":
        raise InvalidRequestError("expected the header Content-Type: application/json", status=415, code="content_type")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_LIMIT_BYTES:
                    raise TooLargeError(f"the request body is over {BODY_LIMIT_BYTES} bytes", code="body_too_large")
    except TimeoutError:
        raise InvalidRequestError(
            f"the request body did not come within {BODY_WITHIN_S:g} s", status=408, code="timeout"
        ) from None
    return parse_object(bytes(body))


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turns the client's own errors into the API's."""
    try:
        yield
    except UnknownModelError as error:
        raise NotFoundError(str(error), param="model", code="model_not_found") from error
    except PromptError as error:
        raise InvalidRequestError(str(error), code="invalid_value") from error
    except DataError as error:
        raise InvalidRequestError(str(error), param="messages", code="invalid_value") from error
    except NightshiftError as error:
        raise EngineFailedError(
            str(error), code="engine_failed", headers={"Retry-After": str(RETRY_AFTER_S)}
        ) from error


async def _no_address(request: Request, _error: Exception) -> Response:
    return _error_response(
        NotFoundError(f"no such address: {request.method} {request.url.path[:200]}", code="unknown_url")
    )


async def _no_method(request: Request, _error: Exception) -> Response:
    message = f"{request.url.path[:200]} does not take {request.method}"
    return _error_response(InvalidRequestError(message, status=405, code="method_not_allowed"))


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _error_response(error)


async def _failed(_request: Request, error: Exception) -> Response:
    return _error_response(ApiError(f"unexpected {type(error).__name__}; not answered", code="internal"))


def _error_response(error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status, error.headers)
