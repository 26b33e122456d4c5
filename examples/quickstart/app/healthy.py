"""Exits with 0 if the service in this container answers."""
from urllib.request import urlopen

with urlopen("http://127.0.0.1:8000/health", timeout=2) as answer:
    raise SystemExit(answer.status != 200)
