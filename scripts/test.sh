#!/usr/bin/env bash
# Runs every test and fails when one did: first those that may share the machine, on two processes, then the others one
# after the other. `--fast` leaves out what needs root or Kubernetes. Further arguments are pytest's; with a selection,
# no test may be left of one of the two parts.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
color=no
[ -t 1 ] && color=yes
export OMP_NUM_THREADS=1

closing=()
failed=0
nothing=5 # pytest's status when no test is left
part() {
    local name=$1 status
    shift
    .venv/bin/python -m pytest --color=$color "$@" 2>&1 | tee -i "$log"
    status=${PIPESTATUS[0]}
    closing+=("$name:" "$(grep -E ' in [0-9.]+s' "$log" | tail -n 1)")
    [ "$status" = 5 ] && [ "$selected" = yes ] && return
    nothing=0
    [ "$status" = 0 ] || failed=1
}

paths=(tests)
if [ "${1:-}" = --fast ]; then
    paths=(tests/contract tests/operator tests/cli tests/local tests/chart tests/project tests/trainer)
    fast=yes
    shift
fi
selected=no
[ $# = 0 ] || selected=yes

# A file, and with it its fixtures, is one process's. tests/conftest.py decides which come first.
part "on two processes" -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" "${paths[@]}" "$@"
[ -n "${fast:-}" ] || part "alone" -m alone "${paths[@]}" "$@"

printf '%s\n' "" "${closing[@]}"
exit $((failed ? 1 : nothing))
