#!/usr/bin/env bash
# Every static check; runs all of them and fails when one did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

failed=0
check() {
    local name=$1
    shift
    if output=$("$@" 2>&1); then
        echo "ok    $name"
    else
        echo "FAIL  $name"
        printf '%s\n' "$output" | sed 's/^/      /'
        failed=1
    fi
}

mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)

check "ruff check" .venv/bin/ruff check .
check "ruff format" .venv/bin/ruff format --check .
check "mypy --strict (contract, operator, CLI, testcluster)" .venv/bin/mypy
check "import-linter" .venv/bin/lint-imports
check "generated files" scripts/generate.sh --check
check "shellcheck" .venv/bin/shellcheck "${scripts[@]}"
check "hadolint" .venv/bin/hadolint Dockerfile
helm=$(.venv/bin/python -c 'from testcluster.artifacts import binaries; print(binaries.helm())' | tail -n 1)
check "helm lint" "$helm" lint --strict charts/distill-operator
exit $failed
