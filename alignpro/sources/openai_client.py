"""Replies of an OpenAI-compatible endpoint, read with care: whatever their shape, and no key."""

from __future__ import annotations

# Refusals that the client's asking again has not changed (429), or would not.
REFUSALS = {
    401: "refuses the key: set OPENAI_API_KEY (a judge also takes it as api_key)",
    403: "does not allow these calls with this key",
    404: "knows no such model, or nothing answers at this address: check model and base_url "
    "(in a preset: source and endpoint)",
    429: "allows no more calls for now: wait, or raise its limit",
}


def clean(text: str) -> str:
    """`text` with lone surrogates, which no request can carry, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def hide_key(text: str, client) -> str:
    """`text` without the key of `client`, which servers like to repeat."""
    key = client.api_key
    return text.replace(key, "[key]") if len(key) > 5 else text  # "EMPTY" is no secret


def ask(client, request: dict) -> dict:
    """The first choice of one chat completion, as plain values; raises what the client raises.

    content, refusal, model and finish_reason are texts without the client's key, input_tokens and
    output_tokens are at least 0; each is None where the endpoint did not send it so. The client
    asks again after a 429, a 5xx or a broken connection, waiting as long as Retry-After says (up
    to two minutes), else half a second, doubled each time up to eight.
    """
    completion = client.chat.completions.create(**request)
    # The client builds its objects from whatever the endpoint sent, without checking it.
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message, usage = getattr(choice, "message", None), getattr(completion, "usage", None)
    return {
        "content": _text(message, "content", client),
        "refusal": _text(message, "refusal", client),
        "model": _text(completion, "model", client),
        "finish_reason": _text(choice, "finish_reason", client),
        "input_tokens": _count(usage, "prompt_tokens"),
        "output_tokens": _count(usage, "completion_tokens"),
    }


def _text(part: object, name: str, client) -> str | None:
    text = getattr(part, name, None)
    return hide_key(clean(text), client) if isinstance(text, str) else None


def _count(usage: object, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and count >= 0 else None
