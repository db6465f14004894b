"""A scripted OpenAI-compatible endpoint over real HTTP, for tests: it answers, stalls or breaks."""

import json
import re
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TAGGED = re.compile(r"<(prompt|response [12]) ([0-9a-f]{16})>\n(.*?)\n</\1 \2>", re.DOTALL)


def texts_of(body):
    """(prompt, first response, second response) of a request, read between the tags."""
    return tuple(text for _, _, text in TAGGED.findall(body["messages"][-1]["content"]))


def verdict(winner, score_1=5, score_2=5, reasoning="because"):
    """A judge's JSON object."""
    fields = {"reasoning": reasoning, "score_1": score_1, "score_2": score_2, "verdict": winner}
    return json.dumps(fields)


def longer(body):
    """A consistent judge: the longer response is better, equal lengths are a tie."""
    _, first, second = map(len, texts_of(body))
    return verdict("1" if first > second else "2" if second > first else "tie")


def completion(content, usage=(100, 20), finish_reason="stop", **message):
    """The body of a successful reply around `content`."""
    choice = {"index": 0, "finish_reason": finish_reason}
    choice["message"] = {"role": "assistant", **message}
    choice["message"]["content"] = content
    reply = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
    }
    if usage:
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        reply["usage"] = dict(zip(names, (*usage, sum(usage))))
    return reply


def say(content, **more):
    """Script: reply with `content`; a function gets the request's body and returns the content."""
    return lambda handler, body: handler.send(
        200, completion(content(body) if callable(content) else content, **more)
    )


def status(code, headers=None, body=None):
    """Script: an HTTP error."""
    return lambda handler, _: handler.send(code, body or {"error": {"message": "no"}}, headers)


def newer(script, *refused):
    """Script: a newer OpenAI model. It refuses `max_tokens`, the fields `refused`, and a
    temperature or top_p other than 1, in OpenAI's words; else it does what `script` does.
    """

    def answer(handler, body):
        values = {name: body[name] for name in ("temperature", "top_p") if body.get(name, 1) != 1}
        if "max_tokens" in body:
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            )
            param, code = "max_tokens", "unsupported_parameter"
        elif unsupported := [name for name in refused if name in body]:
            param, code = unsupported[0], "unsupported_parameter"
            message = f"Unsupported parameter: '{param}' is not supported with this model."
        elif values:
            param, value = next(iter(values.items()))
            code = "unsupported_value"
            message = (
                f"Unsupported value: '{param}' does not support {value} with this model. Only the "
                "default (1) value is supported."
            )
        else:
            return script(handler, body)
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        handler.send(400, {"error": error})

    return answer


def raw(payload, kind="application/json"):
    """Script: a 200 with exactly these bytes."""
    return lambda handler, _: handler.send(200, payload, {"Content-Type": kind})


def stall(seconds):
    """Script: send nothing for so many seconds, then close the connection."""
    return lambda handler, _: time.sleep(seconds)


def reset(handler, _):
    """Script: announce a body, send its beginning and reset the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "x", "choices": [{"mess')
    handler.wfile.flush()
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        judge = self.server.judge
        with judge.lock:
            number = len(judge.requests)
            judge.requests.append(body)
            judge.times.append(time.monotonic())
            judge.keys.add(self.headers["Authorization"])
        step = judge.steps[number] if number < len(judge.steps) else judge.then
        self.close_connection = True
        try:
            step(self, body)
        except (BrokenPipeError, ConnectionResetError):  # the client gave up
            return

    def send(self, code, body, headers=None):
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        headers = {"Content-Type": "application/json", **(headers or {})}
        for name, value in {**headers, "Content-Length": len(payload)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):  # connections are reset on purpose
        pass


class JudgeServer:
    """Answers request n with the script `steps[n]`, later ones with `then`; records all of them."""

    def __init__(self, *steps, then=None):
        self.steps, self.then = list(steps), then or say(longer)
        self.requests, self.times, self.keys = [], [], set()
        self.lock = threading.Lock()

    def __enter__(self):
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.judge = self
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
