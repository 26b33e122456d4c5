#!/usr/bin/env bash
# Brings the quickstart up, looks at it and takes it down again. STACK is the binary.
set -euo pipefail
cd "$(dirname "$0")/quickstart"
stack=${STACK:-stack}
port=${PORT:-8080}

if [ ! -x /usr/bin/python3 ]; then
    echo '» the services run on Debian'"'"'s python3: installing it'
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3
fi

show() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}
stack() { "$stack" "$@"; }
page() {
    printf '\n\033[1m$ curl http://localhost:%s\033[0m\n' "$port"
    /usr/bin/python3 -c "
import re, urllib.request
page = urllib.request.urlopen('http://127.0.0.1:$port', timeout=5).read().decode()
print(*re.sub('<style>.*</style>|<title>.*</title>|<[^>]*>', '', page).split())"
}

trap 'stack down -v >/dev/null 2>&1' EXIT
show stack up -d --wait
show stack ps
page
page
show stack logs
show stack down
printf '\n\033[1mThat was it.\033[0m The volume with the count is still there; `stack up -d` in %s goes on counting.\n' "$PWD"
trap - EXIT
