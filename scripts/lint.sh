#!/usr/bin/env bash
# Every static check; runs all of them and fails when one did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

failed=0
cannot_run=77 # exit status of a check whose tool cannot be had, which CI does not forgive
check() {
    local name=$1 status=0
    shift
    output=$("$@" 2>&1) || status=$?
    if [ "$status" = 0 ]; then
        echo "ok    $name"
        return
    fi
    if [ "$status" = "$cannot_run" ] && [ "${CI:-}" != true ]; then
        echo "SKIP  $name"
    else
        echo "FAIL  $name"
        failed=1
    fi
    printf '%s\n' "$output" | sed 's/^/      /'
}

mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)

check "no merge conflicts" bash -c "! git grep --untracked -nE '^(<{7}|>{7}) '"
check "ruff check" .venv/bin/ruff check .
check "ruff format" .venv/bin/ruff format --check .
check "mypy --strict" .venv/bin/mypy
check "import-linter" .venv/bin/lint-imports
check "generated files" scripts/generate.sh --check
check "shellcheck" .venv/bin/shellcheck "${scripts[@]}"
check "hadolint" .venv/bin/hadolint Dockerfile
helm=$(.venv/bin/python -c 'from testcluster.artifacts import binaries; print(binaries.helm())' | tail -n 1)
check "helm lint" "$helm" lint --strict charts/distill-operator
check "kube-score and checkov (chart, and what the operator makes)" .venv/bin/python -m manifestlint
exit $failed
