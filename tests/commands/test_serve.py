"""The proxy: the real client in front, a scripted endpoint behind, and the real wire between."""

import contextlib
import json
import logging
import threading
import time
from urllib.parse import unquote

import openai
import pytest
import uvicorn
from judge_server import JudgeServer, say, status

from alignpro.commands.proxy import HEADER, make_app

KEY = "sk-a-secret-key-that-nobody-may-see"


class Polite:
    """A prompter whose rewrites are known; it notes if two requests are rewritten at once."""

    def __init__(self):
        self.busy, self.mixed = threading.Lock(), False

    def rewrite(self, prompts, seed=None):
        self.mixed |= not self.busy.acquire(blocking=False)
        time.sleep(0.02)
        self.busy.release()
        return [f"{x} Bitte höflich." for x in prompts]


@contextlib.contextmanager
def serving(endpoint, prompter=None):
    """A client of the proxy in front of `endpoint`."""
    app = make_app(prompter or Polite(), endpoint)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="debug"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0)
    finally:
        server.should_exit = True
        thread.join()


def asked(server):
    return server.requests[-1]["messages"][-1]["content"]


def test_the_last_user_message_is_rewritten_and_the_answer_comes_back():
    with JudgeServer(then=say("Four minutes.")) as server, serving(server.url) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="m",
            temperature=0.3,
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": "How long does an egg take?"},
            ],
        )
    assert raw.parse().choices[0].message.content == "Four minutes."
    assert unquote(raw.headers[HEADER]) == "How long does an egg take? Bitte höflich."
    [body] = server.requests
    assert [m["content"] for m in body["messages"]] == [
        *("Be brief.", "Hello", "Hello!", "How long does an egg take? Bitte höflich.")
    ]
    assert body["temperature"] == 0.3 and body["model"] == "m"
    assert server.keys == {f"Bearer {KEY}"}


def test_a_stream_comes_back_in_its_pieces():
    gate = threading.Event()

    def stream(handler, body):
        assert body["stream"]
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for n, word in enumerate(("One, ", "two, ", "three.")):
            delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
            handler.wfile.write(f"data: {json.dumps(chunk | {'choices': [delta]})}\n\n".encode())
            handler.wfile.flush()
            if n == 0:
                assert gate.wait(10), "the first piece was held back"
        handler.wfile.write(b"data: [DONE]\n\n")

    with JudgeServer(then=stream) as server, serving(server.url) as client:
        words = []
        messages = [{"role": "user", "content": "Count."}]
        for chunk in client.chat.completions.create(model="m", messages=messages, stream=True):
            words.append(chunk.choices[0].delta.content)
            gate.set()
    assert words == ["One, ", "two, ", "three."] and asked(server) == "Count. Bitte höflich."


@pytest.mark.parametrize(
    ("code", "error"), [(401, openai.AuthenticationError), (429, openai.RateLimitError)]
)
def test_errors_of_the_endpoint_come_back_as_they_are(code, error):
    body = {"error": {"message": "not so", "type": "odd", "code": "why"}}
    refused = status(code, {"Retry-After": "7"}, body)
    with JudgeServer(then=refused) as server, serving(server.url) as client:
        with pytest.raises(error) as caught:
            client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Why?"}]
            )
    assert caught.value.body == body["error"]
    assert caught.value.response.headers["Retry-After"] == "7"


def test_an_endpoint_that_does_not_answer_is_named():
    with JudgeServer() as server:
        pass
    with serving(server.url) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Why?"}])
    assert caught.value.status_code == 502
    assert "the frozen LLM's server does not answer (ConnectError)" in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "sent", "rewritten"),
    [
        (
            [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            [{"type": "text", "text": "Hi Bitte höflich."}],
            True,
        ),
        ([{"role": "user", "content": " "}], " ", False),
        ([{"role": "system", "content": "Hi"}], "Hi", False),
    ],
)
def test_other_forms_of_a_message(messages, sent, rewritten):
    with JudgeServer(then=say("Yes.")) as server, serving(server.url) as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=messages)
    assert asked(server) == sent and (HEADER in raw.headers) is rewritten


def test_what_is_no_request_is_refused_in_openai_form():
    with JudgeServer() as server, serving(server.url) as client:
        with pytest.raises(openai.BadRequestError, match="not a chat completion request: KeyError"):
            client.post("/chat/completions", body={"model": "m"}, cast_to=object)
    assert server.requests == []


def test_requests_at_once_are_rewritten_one_after_another_and_the_key_is_nowhere(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    prompter = Polite()
    with JudgeServer(then=say(lambda b: b["messages"][0]["content"])) as server:
        with serving(server.url, prompter) as client:
            answers = {}

            def ask(n):
                messages = [{"role": "user", "content": f"Number {n}?"}]
                reply = client.chat.completions.create(model="m", messages=messages)
                answers[n] = reply.choices[0].message.content

            threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert answers == {n: f"Number {n}? Bitte höflich." for n in range(8)} and not prompter.mixed
    shown = capsys.readouterr()
    records = [r.getMessage() for r in caplog.records if not r.name.startswith("openai")]
    assert not any(KEY in text for text in [*records, shown.out, shown.err])


def test_a_long_rewrite_is_cut_in_the_header_alone():
    with JudgeServer(then=say("Yes.")) as server, serving(server.url) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "x" * 50_000}]
        )
    assert len(raw.headers[HEADER]) == 4000 and raw.headers[HEADER].endswith("h%C3%B6flich.")
    assert len(asked(server)) > 50_000
