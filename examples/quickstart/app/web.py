"""The page. It asks the API for the number of visits."""
import html
import os
from urllib.request import urlopen

from serve import serve

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>stack quickstart</title>
<style>body {{ font: 1.5rem system-ui; margin: 20vh auto; max-width: 30rem; text-align: center }} b {{ font-size: 5rem }}</style>
<p>{greeting}! You are visitor number
<p><b>{visits}</b>
"""


def page(path):
    if path != "/":
        return None
    with urlopen(os.environ["API"] + "/visits", timeout=5) as answer:
        visits = answer.read().decode().strip()
    return PAGE.format(greeting=html.escape(os.environ["GREETING"]), visits=html.escape(visits))


serve(page, "text/html")
