"""The server of `alignpro serve`: OpenAI's protocol in front of a frozen LLM.

It rewrites the last user message of each request and forwards the request to the frozen LLM's
server, with the caller's own key, which it neither keeps nor logs. The answer goes back unchanged,
streamed if the caller asks for that, and errors do too. The rewrite is in the header
X-Alignpro-Rewrite, percent-encoded as in a URL, and only its end where it is long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import openai
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from alignpro.prompter import Prompter

HEADER = "X-Alignpro-Rewrite"
LONGEST = 4000  # characters of the header, which clients limit
TIMEOUT = 600.0  # seconds
# These belong to one connection, or describe a body that is decoded here.
OWN_TO_A_CONNECTION = {
    *("connection", "keep-alive", "transfer-encoding", "upgrade", "content-length", "host"),
    *("accept-encoding", "content-encoding", "te", "trailer", "date", "server"),
}


def make_app(prompter: Prompter, endpoint: str) -> FastAPI:
    """Return the app that serves `prompter` in front of the server at the address `endpoint`."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with openai.DefaultAsyncHttpxClient(timeout=TIMEOUT) as app.state.client:
            yield

    app, one_at_a_time = FastAPI(title="alignpro", lifespan=lifespan), asyncio.Lock()
    base = endpoint.rstrip("/")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            place = _last_user_text(body["messages"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return _error(400, f"not a chat completion request: {type(error).__name__}: {error}")
        headers = {}
        if place is not None:
            part, key = place
            async with one_at_a_time:
                [part[key]] = await asyncio.to_thread(prompter.rewrite, [part[key]])
            headers[HEADER] = quote(part[key])[-LONGEST:]
        return await forward(request, json.dumps(body).encode(), headers)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        return await forward(request, b"", {})

    async def forward(request: Request, content: bytes, headers: dict[str, str]) -> Response:
        client = app.state.client
        sent = client.build_request(
            request.method,
            base + request.url.path.removeprefix("/v1"),
            params=request.query_params,
            headers=_passed_on(request.headers),
            content=content,
        )
        try:
            reply = await client.send(sent, stream=True)
        except Exception as error:
            why = f"the frozen LLM's server does not answer ({type(error).__name__})"
            return _error(502, why, headers)
        headers |= _passed_on(reply.headers)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in reply.aiter_bytes():
                    yield chunk
            finally:
                await reply.aclose()

        return StreamingResponse(body(), reply.status_code, headers)

    return app


def _last_user_text(messages: list[dict]) -> tuple[dict, str] | None:
    """Where the text of the last user message is: an object and its key. None if there is none."""
    for message in reversed(messages):
        if message["role"] == "user":
            if isinstance(message["content"], str):
                found = [(message, "content")]
            else:
                found = [(part, "text") for part in message["content"] if part["type"] == "text"]
            return found[-1] if found and found[-1][0][found[-1][1]].strip() else None
    return None


def _passed_on(headers) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k.lower() not in OWN_TO_A_CONNECTION}


def _error(code: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in OpenAI's form."""
    body = {"error": {"message": message, "type": "alignpro", "param": None, "code": None}}
    return JSONResponse(body, code, headers)
