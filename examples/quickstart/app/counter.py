"""Counts, and remembers across restarts: the number lives in a volume."""
import os
import threading

from serve import serve

FILE = "/data/visits"
LOCK = threading.Lock()


def count(path):
    if path != "/next":
        return None
    with LOCK:
        try:
            with open(FILE) as file:
                number = int(file.read())
        except FileNotFoundError:
            number = 0
        with open(FILE + ".new", "w") as file:
            file.write(str(number + 1))
        os.replace(FILE + ".new", FILE)
    return f"{number + 1}\n"


serve(count)
