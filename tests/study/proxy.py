"""A proxy before an MLflow server that loses answers: the server does what it is asked, and the
client is not told."""

import http.client
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Proxy:
    uri: str
    lost: Counter[str] = field(default_factory=Counter)
    """End of an address, as ``runs/create`` -> answers that were lost."""


@contextmanager
def losing(server: str, how: str) -> Iterator[Proxy]:
    """Each request that changes something loses its first answer.

    ``how``: ``503`` is answered instead, the line is ``cut``, or ``none`` is lost. Who asks may
    name any host, as of a forward proxy.
    """
    seen = set[tuple[str, str, bytes]]()

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            onward = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            asked = urlsplit(self.path)._replace(scheme="", netloc="").geturl()
            onward.request(self.command, asked, body, headers)
            answer = onward.getresponse()
            content = answer.read()
            onward.close()
            request = (self.command, self.path, body)
            reads = self.command == "GET" or self.path.endswith("search")
            if how != "none" and not reads and request not in seen:
                seen.add(request)
                proxy.lost["/".join(self.path.split("/")[-2:])] += 1
                if how == "cut":
                    self.close_connection = True
                    return
                self.send_response(503)
                content = b""
            else:
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        proxy = Proxy(uri=f"http://127.0.0.1:{listener.server_port}")
        Thread(target=listener.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            listener.shutdown()
