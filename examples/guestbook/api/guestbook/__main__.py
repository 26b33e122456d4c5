"""The guestbook's API: entries in PostgreSQL, visits in Redis."""

import json
import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import psycopg2
import redis

PORT = 8000
TABLE = """
CREATE TABLE IF NOT EXISTS entries (
    id serial PRIMARY KEY, name text NOT NULL, text text NOT NULL, at timestamptz NOT NULL DEFAULT now()
)"""


def query(sql, *values):
    """Rows of one transaction on a connection of its own, so that a database that was away costs one request at most."""
    with open(os.environ["PASSWORD_FILE"], encoding="utf-8") as file:
        password = file.read().strip()
    connection = psycopg2.connect(os.environ["DATABASE"], password=password, connect_timeout=2)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


class Api(BaseHTTPRequestHandler):
    """GET and POST /api/entries."""

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/healthy":
            query("SELECT 1")
            return self.answer(200, "healthy")
        if self.path != "/api/entries":
            return self.answer(404, "there is nothing here")
        rows = query("SELECT name, text FROM entries ORDER BY id")
        entries = [{"name": name, "text": text} for name, text in rows]
        self.answer(200, {"visits": self.server.redis.incr("visits"), "entries": entries})

    def do_POST(self):
        if self.path != "/api/entries":
            return self.answer(404, "there is nothing here")
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if not (body.get("name") and body.get("text")):
            return self.answer(400, "an entry has a name and a text")
        query("INSERT INTO entries (name, text) VALUES (%s, %s)", body["name"][0], body["text"][0])
        self.answer(201, "written")


def main():
    if "--check" in sys.argv:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthy", timeout=2)
        return
    query(TABLE)
    server = ThreadingHTTPServer(("", PORT), Api)
    server.redis = redis.Redis(host=os.environ["REDIS"], socket_timeout=2)
    print("ready", flush=True)
    server.serve_forever()


main()
