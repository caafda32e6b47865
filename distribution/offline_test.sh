#!/bin/sh
# Installs the packed wheelhouse on a machine without a network, which a namespace of this one
# plays, and runs the tests and the demo there.
#
#   sh distribution/offline_test.sh ARCHIVE [PYTHON]
set -eu

archive=$1
python=$(command -v "${2:-python3}") || {
    echo "offline_test.sh: there is no ${2:-python3}" >&2
    exit 1
}
case $python in /*) ;; *) python=$PWD/$python ;; esac

if [ -z "${ALONE:-}" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    # As root, or as a user who may map itself to root.
    for options in "--net" "--net --map-root-user"; do
        # shellcheck disable=SC2086
        if unshare $options true 2>/dev/null; then
            unshare $options env -i ALONE="$scratch" HOME="$scratch" TMPDIR="$scratch" LC_ALL=C.UTF-8 \
                PATH=/usr/local/bin:/usr/bin:/bin sh "$0" "$archive" "$python"
            exit
        fi
    done
    echo "offline_test.sh: unshare must not make a network namespace here, so nothing was tested" >&2
    exit 1
fi

interfaces=$(sed -n 's/^ *\([^ :]*\):.*/\1/p' /proc/net/dev)
echo "network interfaces here: $interfaces"
[ "$interfaces" = lo ] || exit 1

tar -xzf "$archive" -C "$ALONE"
cd "$ALONE/wheelhouse"
PYTHON=$python sh install.sh --with-tests "$ALONE/venv"
"$ALONE/venv/bin/python" -m optax_ls verify
cd check
"$ALONE/venv/bin/python" -m pytest -q -n auto -m runtime tests
"$ALONE/venv/bin/python" logistic.py
