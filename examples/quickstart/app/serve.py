"""What the three services share: a small HTTP server that answers /health and hands the rest to a function."""
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8000


def serve(answer, kind="text/plain"):
    """Serves forever; `answer(path)` returns the text for a path, or None if there is nothing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            health = self.path == "/health"
            try:
                text = "ok\n" if health else answer(self.path)
            except OSError as error:
                self.send_error(502, explain=str(error))
                return
            if text is None:
                self.send_error(404)
                return
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):
            if self.path != "/health":
                print(self.client_address[0], format % args, flush=True)

    print(f"listening on port {PORT}", flush=True)
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
