"""An OpenAI-compatible server that costs nothing: for tests and benchmarks of its clients.

Run as ``python tests/fake_server.py --port 8000``; imports nothing but the standard library.
Every whole request is counted when it arrives, one line ``<hash of its body>`` in ``--seen``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    server: FakeServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/version":
            return self._send({"version": "fake 1"})
        if self.path == "/most":
            return self._send({"most": self.server.most})
        self._send({"data": [{"id": "fake", "owned_by": "fake"}]})

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the client was killed while it asked
            self.close_connection = True
            return
        digest = hashlib.sha256(body).hexdigest()
        self.server.saw(digest)
        if self.server.poison and self.server.poison.encode() in body:
            os._exit(3)
        if refused := next((f for f in self.server.refuse if f in json.loads(body)), None):
            # in the words of OpenAI's reasoning models
            message = f"Unsupported parameter: '{refused}' is not supported with this model."
            error = {"message": message, "param": refused, "code": "unsupported_parameter"}
            return self._send({"error": error | {"type": "invalid_request_error"}}, 400)
        self.server.under_way(1)
        time.sleep(self.server.latency)
        self.server.under_way(-1)
        self._send(
            {
                "choices": [{"message": {"content": f"answer {digest}"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
            }
        )

    def _send(self, content: object, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class FakeServer(ThreadingHTTPServer):
    """Listens on ``port`` of the loopback interface (0 = any).

    Args:
        latency: Seconds every answer takes; any number are under way at once.
        seen: File that gets a line a request, or None.
        poison: A request with this text ends the process.
        refuse: A request with one of these fields is answered with HTTP 400.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        port: int = 0,
        latency: float = 0.0,
        seen: Path | None = None,
        poison: str = "",
        refuse: tuple[str, ...] = (),
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.latency, self.poison, self.refuse = latency, poison, refuse
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.asked: list[str] = []
        self.most = self._now = 0  # requests under way
        self._lock = threading.Lock()
        self._seen = seen.open("a") if seen else None

    def saw(self, digest: str) -> None:
        with self._lock:
            self.asked.append(digest)
            if self._seen:
                self._seen.write(f"{digest}\n")
                self._seen.flush()

    def under_way(self, change: int) -> None:
        with self._lock:
            self._now += change
            self.most = max(self.most, self._now)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a killed client is no news

    def __enter__(self) -> FakeServer:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--seen", type=Path)
    parser.add_argument("--poison", default="")
    args = parser.parse_args()
    print("serving", flush=True)
    FakeServer(args.port, args.latency, args.seen, args.poison).serve_forever()


if __name__ == "__main__":
    sys.exit(main())
