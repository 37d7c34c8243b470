"""A server of resumable uploads as Cloud Storage documents them: bytes that it has already are ignored when they come again."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import google_crc32c


class Uploads:
    """What has arrived."""

    def __init__(self) -> None:
        self.address = ""
        self.objects: dict[str, bytes] = {}
        self.lost: dict[int, str] = {}
        """Numbers of the pieces, from 1, whose connections break: before they are `kept`, after, or when `kept half`."""
        self.puts = 0
        self.name = ""
        self.held = bytearray()


@contextmanager
def resumable_uploads() -> Iterator[Uploads]:
    """Runs the server."""
    uploads = Uploads()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def do_POST(self) -> None:
            uploads.name = json.loads(self._body())["name"]
            uploads.held.clear()
            self._answer(200, {"Location": f"{uploads.address}/session"})

        def do_PUT(self) -> None:
            body = self._body()
            uploads.puts += 1
            lost = uploads.lost.get(uploads.puts)
            matched = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"])
            assert matched is not None
            if matched[1] is not None and lost != "refused":
                known = len(uploads.held) - int(matched[1])
                assert known >= 0, "there is a gap"
                arrived = body[: len(body) // 2] if lost == "kept half" else body
                uploads.held += arrived[known:]
            if lost is not None:
                self.close_connection = True
                return
            if matched[2] == "*" or len(uploads.held) < int(matched[2]):
                self._answer(308, {"Range": f"bytes=0-{len(uploads.held) - 1}"})
                return
            uploads.objects[uploads.name] = bytes(uploads.held)
            checksum = base64.b64encode(google_crc32c.value(bytes(uploads.held)).to_bytes(4, "big")).decode()
            self._answer(200, {}, {"name": uploads.name, "crc32c": checksum, "size": str(len(uploads.held))})

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, status: int, headers: dict[str, str], content: dict[str, str] | None = None) -> None:
            data = json.dumps(content or {}).encode()
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        uploads.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield uploads
        finally:
            server.shutdown()
            thread.join()
