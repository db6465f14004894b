"""Calls to an OpenAI-compatible endpoint, as the judge and a frozen LLM behind HTTP make them.

`connect` makes the client and `ask_adapting` makes one call. Servers differ in the request fields
that they take and in where they report an error; that is handled here. The API key is removed from
everything that a server sends back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from urllib.parse import unquote, urlsplit

import openai

# What a status code means for the user. Trying again has not helped (429) or would not help.
REFUSALS = {
    401: "refuses the key: set OPENAI_API_KEY (a judge also takes it as api_key)",
    403: "does not allow these calls with this key",
    404: "knows no such model, or nothing answers at this address: check model and base_url "
    "(in a preset: source and endpoint)",
    429: "allows no more calls for now: wait, or raise its limit",
}
# The codes under which Azure, OpenAI and others report a request that their filter withholds.
FILTERS = {
    "content_filter",
    "content_policy_violation",
    "moderation_blocked",
    "ResponsibleAIPolicyViolation",
}
# Newer OpenAI models take the second name alone, most other servers the first.
RENAMED = {"max_tokens": "max_completion_tokens"}


def connect(
    base_url: str | None, api_key: str | None, timeout: float, retries: int
) -> openai.OpenAI:
    """A client of the endpoint at `base_url` (None: OpenAI's own).

    `api_key` may be None for a server that needs none. `timeout` is in seconds per attempt.
    `retries` is the number of further attempts after a 429, a 5xx or a broken connection; the
    openai client waits between them.
    """
    http = openai.DefaultHttpxClient(event_hooks={"response": [_reveal_error]})
    return openai.OpenAI(
        base_url=base_url,
        api_key=(api_key or "").strip() or "none",  # a key from a file often ends in a newline
        timeout=timeout,
        max_retries=retries,
        http_client=http,
    )


def clean(text: str) -> str:
    """`text` with U+FFFD in place of lone surrogates, which no request can carry."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def hide_key(text: str, client: openai.OpenAI) -> str:
    """`text` without the key of `client` or the password in its address.

    Servers like to repeat both.
    """
    password = urlsplit(str(client.base_url)).password or ""
    for secret in (client.api_key, password, unquote(password)):
        if len(secret) > 5:  # "EMPTY" is no secret
            text = text.replace(secret, "[key]")
    return text


def ask(client: openai.OpenAI, request: dict) -> dict:
    """The first choice of one chat completion, as plain values.

    content, refusal, reasoning, model and finish_reason are texts without the client's key;
    input_tokens and output_tokens are integers of at least 0. Each is None where the endpoint did
    not send it in this form. Raises what the client raises.
    """
    completion = client.chat.completions.create(**request)
    # The client builds its objects from whatever the endpoint sent, without checking it.
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message, usage = getattr(choice, "message", None), getattr(completion, "usage", None)
    reasoning = _text(message, "reasoning", client) or _text(message, "reasoning_content", client)
    return {
        "content": _text(message, "content", client),
        "refusal": _text(message, "refusal", client),
        "reasoning": reasoning,
        "model": _text(completion, "model", client),
        "finish_reason": _text(choice, "finish_reason", client),
        "input_tokens": _count(usage, "prompt_tokens"),
        "output_tokens": _count(usage, "completion_tokens"),
    }


def ask_adapting(
    client: openai.OpenAI,
    request: dict,
    changes: dict[str, str | None],
    optional: Collection[str],
) -> dict:
    """As `ask`, after changing the request fields that the server refuses, where that is allowed.

    `max_tokens` may be sent as `max_completion_tokens`, and the fields in `optional` may be left
    out. `changes` maps a field to the name it is sent under, or to None where it is left out. It
    starts empty, is updated when a changed request succeeds, and is applied to the next request.
    An error that names no field is taken to mean `response_format`. Raises what the client raises.
    """
    known = dict(changes)
    while True:
        sent = changed(request, known, optional)
        try:
            reply = ask(client, sent)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if is_filtered(error):
                raise
            field = refused_field(error, sent) or "response_format"
            if field in RENAMED and field in sent:
                known[field] = RENAMED[field]
            elif field in optional and field in sent:
                known[field] = None
            else:
                raise
        else:
            changes.update(known)
            return reply


def changed(request: dict, changes: dict[str, str | None], optional: Collection[str]) -> dict:
    """`request` with `changes` applied; only a field in `optional` is left out."""
    sent = {}
    for field, value in request.items():
        name = changes.get(field, field)
        if name is not None or field not in optional:
            sent[name or field] = value
    return sent


def refused_field(error: openai.APIStatusError, request: dict) -> str | None:
    """The field of `request` that `error` complains about, or None where it names none."""
    fields = {*request, *request.get("extra_body", {})} - {"model", "messages", "extra_body"}
    body = error.body if isinstance(error.body, dict) else {}
    words = re.findall(r"\w+", f"{body.get('param')} {error.message} {error.response.text}")
    return next((word for word in words if word in fields), None)


def is_filtered(error: Exception) -> bool:
    """Whether a content filter refuses the request for good, in the words of several servers."""
    body = getattr(error, "body", None)
    body = body if isinstance(body, dict) else {}
    inner, metadata = body.get("innererror"), body.get("metadata")
    codes = {str(body.get("code")), str(inner.get("code") if isinstance(inner, dict) else None)}
    return bool(codes & FILTERS) or (isinstance(metadata, dict) and "flagged_input" in metadata)


def _reveal_error(response) -> None:
    """Give an error inside a successful HTTP response its own status code.

    Some servers answer 200 with `{"error": ...}`, or with a choice whose finish_reason is "error".
    With the right code the client tries again, or raises, as for any other error. A code that is no
    HTTP status becomes 429 where it speaks of a rate limit, else 502.
    """
    if response.status_code != 200:
        return
    try:
        body = json.loads(response.read())
    except (ValueError, RecursionError):
        return  # the client reports it
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    choice = choice if isinstance(choice, dict) else {}
    error = choice.get("error") or (isinstance(body, dict) and body.get("error"))
    if error or choice.get("finish_reason") == "error":
        code = error.get("code") if isinstance(error, dict) else None
        if not (isinstance(code, int) and 400 <= code < 600):
            code = 429 if "rate" in str(code) and "limit" in str(code) else 502
        response.status_code = code


def _text(part: object, name: str, client: openai.OpenAI) -> str | None:
    text = getattr(part, name, None)
    return hide_key(clean(text), client) if isinstance(text, str) else None


def _count(usage: object, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and count >= 0 else None
