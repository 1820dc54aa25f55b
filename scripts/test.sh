#!/usr/bin/env bash
# Runs every test and fails when one did: first those that may share the machine, on three processes, of which some wait
# at any time; then those that wait for timeouts, in pairs; then those with a cluster, one after the other. `--fast`
# leaves out what needs root or Kubernetes. Further arguments are pytest's; with a selection, no test may be left of a part.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

log=$(mktemp)
trap 'rm -f "$log"' E# Runs every test and fails when one did: first those that may share the machine, on three processes, of which some wait
# at any time; then those that wait for timeouts, in pairs; then those with a cluster, one after the other. `--fast`
# leaves out what needs root or Kubernetes. Further arguments are pytest's; with a selection, no test may be left of a part.
IT
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
by_file=(--dist loadfile --no-loadscope-reorder)
part "on three processes" -n 3 "${by_file[@]}" -m "not alone" "${paths[@]}" "$@"
if [ -z "${fast:-}" ]; then
    part "in pairs" -n 2 "${by_file[@]}" -m alone --ignore=tests/e2e tests "$@"
    part "alone" tests/e2e "$@"
fi

printf '%s\n' "" "${closing[@]}"
exit $((failed ? 1 : nothing))
