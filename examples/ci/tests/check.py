"""Exit code 0 if the API says what it should, else 3."""

import sys
import urllib.request

page = urllib.request.urlopen("http://api:8000/").read().decode()
print(page.strip())
sys.exit(0 if "it works" in page else 3)
