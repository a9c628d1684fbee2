"""A stand-in for a model server: speaks the OpenAI protocol, answers one of a few sentences.

Run by its path, it needs the standard library alone, like a server that lives in an environment
of its own: ``python server.py --port 8001 --model NAME --answer TEXT [--answer TEXT …]``. Further
arguments, those of the server it stands for, are ignored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandInServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            rows = [{"id": name, "object": "model"} for name in self.server.models]
            self._send(200, {"object": "list", "data": rows})
        elif self.path in ("/health", "/version"):
            self._send(200, {"version": "stand-in"})
        else:
            self._send(404, {"error": {"message": f"no {self.path}"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            asked = json.loads(body)
            name, messages = asked["model"], asked["messages"]
        except (ValueError, KeyError, TypeError):
            return self._send(400, {"error": {"message": "needs JSON with model and messages"}})
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": {"message": f"no {self.path}"}})
        if name not in self.server.models:
            return self._send(404, {"error": {"message": f"the model {name!r} does not exist"}})
        # The last media part decides, so that models agree about an image more often than not.
        digest = hashlib.sha256(json.dumps(messages).encode()).digest()
        answers = self.server.answers
        text = answers[digest[0] % len(answers)]
        self._send(
            200,
            {
                "id": digest.hex()[:12],
                "object": "chat.completion",
                "model": name,
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
            },
        )

    def _send(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class StandInServer(ThreadingHTTPServer):
    """Serves models on the loopback interface; use as a context manager.

    Args:
        models: Names it answers for; any other is refused with 404.
        answers: Texts; which one is given follows from the request's content.
        port: 0 = a free one, see :attr:`url`.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, models: Sequence[str], answers: Sequence[str], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.models, self.answers = tuple(models), tuple(answers)

    @property
    def url(self) -> str:
        """Address up to and including ``/v1``."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> StandInServer:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--answer", action="append", required=True)
    args, _ = parser.parse_known_args()
    StandInServer(args.model, args.answer, args.port).serve_forever()


if __name__ == "__main__":
    main()
