#!/bin/sh
# Fetches a data set into $TARGET before the training, for an init container; see distilljob.yaml and docs/data.md.
#
#   SOURCE  s3://bucket/folder (needs aws), gs://bucket/folder (gcloud), hf://owner/name, a data set (hf)
#   TARGET  folder for the files, on the volume `data`
#   SHARED  true: all pods of the attempt have the same claim, so the first one fetches and the others wait
#   TRIES   how often it is tried, default 5; what is there already is not fetched again
#
# $TARGET/.fetched is there, with the source's name, only when all files are.
set -eu

marker=$TARGET/.fetched
is_complete() {
    [ "$(cat "$marker" 2>/dev/null)" = "$SOURCE" ]
}

if is_complete; then
    echo "$SOURCE is in $TARGET already"
    exit 0
fi
if [ "${SHARED:-false}" = true ] && [ "${JOB_COMPLETION_INDEX:-0}" != 0 ]; then
    echo "waiting until the first pod has fetched $SOURCE"
    until is_complete; do sleep 2; done
    exit 0
fi

fetch() {
    case $SOURCE in
    s3://*) aws s3 sync "$SOURCE" "$TARGET" --only-show-errors ;;
    gs://*) gcloud storage rsync --recursive "$SOURCE" "$TARGET" ;;
    hf://*) hf download --repo-type dataset "${SOURCE#hf://}" --local-dir "$TARGET" ;;
    *)
        echo "error: SOURCE is $SOURCE, but must begin with s3://, gs:// or hf://" >&2
        exit 2
        ;;
    esac
}

rm -f "$marker" # of another source
try=1
until fetch; do
    if [ "$try" -ge "${TRIES:-5}" ]; then
        echo "error: $SOURCE could not be fetched; what is there is kept for the next attempt if TARGET is on a claim" >&2
        exit 1
    fi
    try=$((try + 1))
    echo "trying again, $try of ${TRIES:-5}"
    sleep "${PAUSE:-10}"
done
sync
echo "$SOURCE" >"$marker.new"
mv "$marker.new" "$marker"
echo "$SOURCE is complete in $TARGET"
