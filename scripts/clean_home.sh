#!/usr/bin/env bash
# Runs a command with an empty HOME and TMPDIR of its own, so that nothing an earlier run left behind can help it, and
# removes both afterwards (KEEP=1 keeps them, as it keeps the cluster). Caches, and how this machine reaches its package
# registries, are handed on by name. TMPDIR says on which disk: /var/tmp, for /tmp may be a small one in memory.
set -euo pipefail

HOME=${HOME:-~}
longest=40 # the path of a Unix socket has at most 107 letters
config=${XDG_CONFIG_HOME:-$HOME/.config}
cache=${XDG_CACHE_HOME:-$HOME/.cache}

# keep_directory NAME PATH: what tools keep there is shared with runs in the real home.
keep_directory() {
    export "$1=${!1:-$2}"
}

# keep_file NAME PATH: a configuration that a tool would have found in the real home.
keep_file() {
    if [ -z "${!1:-}" ] && [ -f "$2" ]; then
        export "$1=$2"
    fi
}

keep_directory DISTILL_CACHE "$HOME/.cache/distill-operator" # Kubernetes, images: hack/testcluster/settings.py
keep_directory UV_CACHE_DIR "$cache/uv"
keep_directory PIP_CACHE_DIR "$cache/pip"
keep_directory NPM_CONFIG_CACHE "$HOME/.npm"
keep_file UV_CONFIG_FILE "$config/uv/uv.toml"
keep_file PIP_CONFIG_FILE "$config/pip/pip.conf"
keep_file PIP_CONFIG_FILE "$HOME/.pip/pip.conf"
keep_file NPM_CONFIG_USERCONFIG "$HOME/.npmrc"
keep_file NETRC "$HOME/.netrc"
if command -v go >/dev/null; then
    for name in GOENV GOPATH GOMODCACHE GOCACHE; do # GOENV is the file of `go env -w`: proxies, flags
        keep_directory "$name" "$(go env "$name")"
    done
fi
case ${DISTILL_KUBECONFIG:-} in
    \~/*) export DISTILL_KUBECONFIG="$HOME/${DISTILL_KUBECONFIG#\~/}" ;;
esac

base=${TMPDIR:-/var/tmp}
if [ ${#base} -gt $longest ]; then
    echo "TMPDIR has more than $longest letters: using /var/tmp" >&2
    base=/var/tmp
fi
place=$(mktemp -d "$base/d.XXXXXX")
# Not across file systems: a killed test may have left a mount.
trap '
    [ "${KEEP:-}" = 1 ] && echo "KEEP=1: $place is still there" && exit
    find "$place" -xdev -type d ! -perm -700 -exec chmod u+rwx {} \;
    find "$place" -xdev -delete || echo "$place could not be removed" >&2
' EXIT
chmod 755 "$place"
mkdir -m 700 "$place/home"
mkdir -m 1777 "$place/tmp"

unset XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_RUNTIME_DIR # so they lie in HOME
unset YOLO_CONFIG_DIR MPLCONFIGDIR MATPLOTLIBRC TORCH_HOME TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR
export HOME="$place/home" TMPDIR="$place/tmp"

status=0
"$@" || status=$?
exit $status
