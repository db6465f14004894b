"""A model hub over real HTTP, for tests: repositories with commits, gated ones, and uploads."""

import base64
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
        if api and kind == "tree":
            files = [
                {"type": "file", "path": path.name, "oid": "0" * 40, "size": path.stat().st_size}
                for path in commits[commit].iterdir()
            ]
            return self.answer(200, json.dumps(files).encode(), {})
        file = commits[commit] / "/".join(filter(None, path))
        if kind != "resolve" or not file.is_file():
            return self.refuse(404, "EntryNotFound", commit)
        self.answer(200, file.read_bytes(), {"X-Repo-Commit": commit})

    do_HEAD = do_GET

    def do_POST(self):
        """Take a new repository, or a commit whose files are all in the request itself."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.split("?")[0]
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            return self.reply({"url": f"{self.server.url}/{name}"})
        if path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        _, _, owner, name, kind, _ = path.strip("/").split("/")
        if kind == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            regular = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self.reply({"files": [{"path": path, **regular} for path in files]})
        commit = hashlib.sha1(body).hexdigest()
        folder = self.server.uploads / commit
        folder.mkdir()
        for row in map(json.loads, body.splitlines()):
            if row["key"] == "file":
                content = base64.b64decode(row["value"]["content"])
                (folder / row["value"]["path"]).write_bytes(content)
        self.server.repositories[f"{owner}/{name}"] = {commit: folder}
        url = f"{self.server.url}/{owner}/{name}/commit/{commit}"
        self.reply({"success": True, "commitOid": commit, "commitUrl": url})

    def reply(self, value):
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status, code, commit=""):
        self.answer(status, b"", {"X-Error-Code": code, "X-Repo-Commit": commit})

    def answer(self, status, body, headers):
        self.send_response(status)
        headers |= {"Content-Length": len(body), "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def hub(repositories, uploads=None):
    """Serve {repository: {commit: folder}}, newest commit first; yield the hub's URL.

    A repository with None in place of its commits is gated. What is uploaded is kept in the folder
    `uploads` and added to `repositories`.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.repositories, server.uploads = repositories, uploads
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()
