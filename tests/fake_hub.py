"""A Hugging Face hub on this machine: the few requests of which a snapshot download consists."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

SHA = "1" * 40


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        for name, folder in self.server.models.items():
            if path == f"/api/models/{name}/revision/main":
                if name in self.server.gated:
                    return self.refuse(403, "GatedRepo")
                return self.send(json.dumps({"id": name, "sha": SHA, "siblings": []}).encode())
            if path == f"/api/models/{name}/tree/{SHA}":
                files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
                return self.send(json.dumps([entry(folder, f) for f in files]).encode())
            if path.startswith(at := f"/{name}/resolve/{SHA}/"):
                file = folder / path.removeprefix(at)
                if file.name == self.server.breaks_at:
                    return self.refuse(400, "")  # not one of those that are tried again
                self.server.sent += [file.name] if self.command == "GET" else []
                return self.send(file.read_bytes())
        self.refuse(404, "RepoNotFound")

    def send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", SHA)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def entry(folder: Path, file: Path) -> dict[str, object]:
    """A file as the hub lists it."""
    content = file.read_bytes()
    path = file.relative_to(folder).as_posix()
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": path, "size": len(content), "oid": oid}


class FakeHub(ThreadingHTTPServer):
    """Offers folders as models; use it as a context manager.

    Args:
        models: Id -> folder.
        gated: Ids whose terms nobody has accepted.
    """

    daemon_threads = True

    def __init__(self, models: dict[str, Path], gated: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models, self.gated = models, gated
        self.asked: list[str] = []
        self.sent: list[str] = []  # files whose content left
        self.breaks_at = ""  # a file that cannot be had
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> FakeHub:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
