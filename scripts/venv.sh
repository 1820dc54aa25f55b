#!/usr/bin/env bash
# Makes .venv with every dependency, pinned by constraints.txt. Safe to run again.
# Prefers the system's Python: training pods of the demo use this environment under the same interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

start=$SECONDS
uv_version=$(sed -n 's/^uv==//p' constraints.txt)

# Root on Debian gets the system's Python: it is the one that the demo's pods have too.
if [ "$(id -u)" = 0 ] && [ -z "${PYTHON:-}" ] && [ ! -x /usr/bin/python3 ] && command -v apt-get >/dev/null; then
    echo "· installing python3 and python3-venv (Debian)"
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null
fi

python=
for candidate in "${PYTHON:-}" /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: no Python 3.11 or newer found; install one, or set PYTHON to its path" >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "· installing python3-venv (Debian)"
        apt-get update -qq >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
    else
        echo "error: $python has no venv module; install it (Debian: apt-get install python3-venv)" >&2
        exit 1
    fi
fi

echo "· virtual environment .venv from $("$python" --version) (PyTorch is large: some minutes the first time)"
[ -x .venv/bin/python ] && [ -x .venv/bin/uv ] || "$python" -m venv --clear .venv
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet "uv==$uv_version"
# Bytecode at once: where Python may not write it, each of a test's processes would compile PyTorch again.
.venv/bin/uv pip install --quiet --python .venv/bin/python --compile-bytecode \
    --constraints constraints.txt --overrides overrides.txt -e '.[operator,trainer,cli,examples,docs,dev]'
echo "  done in $((SECONDS - start)) s"
