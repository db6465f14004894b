"""A small copy of the Hub: the part of its HTTP interface that reading a dataset needs."""

import contextlib
import hashlib
import http.server
import json
import threading
from pathlib import Path
from urllib.parse import unquote, urlparse


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        self.server.asked.append(path)
        if self.server.gated:
            self.reply(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        elif path.startswith("/api/datasets/"):
            self.describe(*path.removeprefix("/api/datasets/").split("/"))
        elif path.startswith("/datasets/"):
            owner, name, _resolve, revision, *rest = path.removeprefix("/datasets/").split("/")
            self.send(self.server.root.joinpath(owner, name, *rest), revision)
        else:
            self.reply(404)

    do_HEAD = do_GET

    def describe(self, owner, name, kind, revision, *below):
        """What a revision is (`kind` revision), or the files and folders in it (tree)."""
        top = self.server.root / owner / name
        if kind == "revision":
            return self.reply(200, json.dumps({"id": f"{owner}/{name}", "sha": revision}).encode())
        paths = top.joinpath(*below).glob("*")
        entries = [
            {
                "type": "directory" if path.is_dir() else "file",
                "path": str(path.relative_to(top)),
                "oid": "0" * 40,
                "size": path.stat().st_size,
            }
            for path in paths
        ]
        self.reply(200, json.dumps(entries).encode())

    def send(self, path, revision):
        """A file, or the requested bytes of it."""
        if not path.is_file():
            return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=revision)
        body = path.read_bytes()
        headers = {"X_Repo_Commit": revision, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
        if "Range" not in self.headers:
            return self.reply(200, body, **headers)
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        first, end = int(first), min(int(last or len(body)) + 1, len(body))
        where = f"bytes {first}-{end - 1}/{len(body)}"
        self.reply(206, body[first:end], Content_Range=where, **headers)

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(root: Path, gated: bool = False):
    """Serve the datasets in `root`/OWNER/NAME, or refuse all; yield (address, requested paths)."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.root, server.gated, server.asked = root, gated, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.asked
    finally:
        server.shutdown()
        server.server_close()
