#!/usr/bin/env bash
# Writes every file that is generated; with --check only says whether one is stale.
set -euo pipefail
cd "$(dirname "$0")/.."

made=$(mktemp)
trap 'rm -f "$made"' EXIT
stale=0

# generate MODULE FILE...: what the module prints belongs in each of the files.
generate() {
    .venv/bin/python -m "$1" >"$made"
    for target in "${@:2}"; do
        cmp -s "$made" "$target" && continue
        if [ "$mode" = --check ]; then
            echo "error: $target is stale; run \`make generate\` and commit it" >&2
            stale=1
        else
            mkdir -p "$(dirname "$target")"
            cp "$made" "$target"
            chmod 644 "$target"
            echo "wrote $target"
        fi
    done
}

mode=${1:-}
generate distill_api.generate.crd crds/distilljob.yaml charts/distill-operator/files/distilljob.yaml
generate distill_api.generate.reasons docs/reasons.md
generate distill_api.generate.reference docs/distilljob.md
generate distill_cli.reference docs/commands.md
generate dashboards.boards.fleet charts/distill-operator/dashboards/distill-fleet.json
generate dashboards.boards.job charts/distill-operator/dashboards/distilljob.json
exit $stale
