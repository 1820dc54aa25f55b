#!/usr/bin/env bash
# Writes every file that is generated from the contract; with --check only says whether one is stale.
set -euo pipefail
cd "$(dirname "$0")/.."

made=$(mktemp)
trap 'rm -f "$made"' EXIT
.venv/bin/python -m distill_api.generate.crd >"$made"

stale=0
for target in crds/distilljob.yaml charts/distill-operator/files/distilljob.yaml; do
    cmp -s "$made" "$target" && continue
    if [ "${1:-}" = --check ]; then
        echo "error: $target is stale; run \`make generate\` and commit it" >&2
        stale=1
    else
        mkdir -p "$(dirname "$target")"
        cp "$made" "$target"
        chmod 644 "$target"
        echo "wrote $target"
    fi
done
exit $stale
