#!/usr/bin/env bash
# Runs every test and fails when one did: first those that may share the machine, on three processes, of which some wait
# at any time; then those that wait for timeouts, in pairs, and those with a cluster, one after the other. Beside these
# two, at the lowest priority, run tests that only compute. `--fast` leaves out what needs root or Kubernetes. Further
# arguments are pytest's; with a selection, no test may be left of a part.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

logs=$(mktemp -d)
beside=
trap 'rm -rf "$logs"; [ -z "$beside" ] || kill "$beside" 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
color=no
[ -t 1 ] && color=yes
export OMP_NUM_THREADS=1

closing=()
failed=0
nothing=5 # pytest's status when no test is left
close() {
    local name=$1 log=$2 status=$3
    closing+=("$name:" "$(grep -E ' in [0-9.]+s' "$log" | tail -n 1)")
    [ "$status" = 5 ] && [ "$selected" = yes ] && return
    nothing=0
    [ "$status" = 0 ] || failed=1
}
part() {
    local name=$1
    shift
    .venv/bin/python -m pytest --color=$color "$@" 2>&1 | tee -i "$logs/part"
    close "$name" "$logs/part" "${PIPESTATUS[0]}"
}

paths=(tests)
first="not alone and not patient"
if [ "${1:-}" = --fast ]; then
    paths=(tests/contract tests/operator tests/cli tests/local tests/chart tests/project tests/trainer)
    first="not alone"
    fast=yes
    shift
fi
selected=no
[ $# = 0 ] || selected=yes

# A file, and with it its fixtures, is one process's. tests/conftest.py decides which come first, and which are patient.
by_file=(--dist loadfile --no-loadscope-reorder)
part "on three processes" -n 3 "${by_file[@]}" -m "$first" "${paths[@]}" "$@"
if [ -z "${fast:-}" ]; then
    nice -n 19 .venv/bin/python -m pytest --color=$color -n 2 "${by_file[@]}" -m patient tests/trainer "$@" \
        >"$logs/beside" 2>&1 &
    beside=$!
    part "in pairs" -n 2 "${by_file[@]}" -m alone --ignore=tests/e2e tests "$@"
    part "with a cluster" tests/e2e "$@"
    printf '\nbeside them, what only computes:\n'
    wait "$beside"
    status=$?
    beside=
    cat "$logs/beside"
    close "beside them" "$logs/beside" "$status"
fi

printf '%s\n' "" "${closing[@]}"
exit $((failed ? 1 : nothing))
