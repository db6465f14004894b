"""A model hub over real HTTP, for tests: repositories with commits, and gated ones."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Serves `/{repository}/resolve/{revision}/{file}` and `/api/models/{repository}`."""

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        first, second, kind, commit, *path = [*parts, "", "", "", ""]
        commits = self.server.repositories.get(f"{first}/{second}", {})
        if commits is None:
            return self.refuse(403, "GatedRepo")
        if not commits:
            return self.refuse(404, "RepoNotFound")
        commit = next(iter(commits)) if commit in ("", "main") else commit
        if commit not in commits:
            return self.refuse(404, "RevisionNotFound")
        if api and kind in ("", "revision"):
            facts = {"id": f"{first}/{second}", "sha": commit, "siblings": []}
            return self.answer(200, json.dumps(facts).encode(), {})
        file = commits[commit] / "/".join(filter(None, path))
        if kind != "resolve" or not file.is_file():
            return self.refuse(404, "EntryNotFound", commit)
        self.answer(200, file.read_bytes(), {"X-Repo-Commit": commit})

    do_HEAD = do_GET

    def refuse(self, status, code, commit=""):
        self.answer(status, b"", {"X-Error-Code": code, "X-Repo-Commit": commit})

    def answer(self, status, body, headers):
        self.send_response(status)
        headers |= {"Content-Length": len(body), "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def hub(repositories):
    """Serve {repository: {commit: folder}}, newest commit first; yield the hub's URL.

    A repository with None in place of its commits is gated.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.repositories = repositories
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
