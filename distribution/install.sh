#!/bin/sh
# Installs optax_ls from this folder into a virtual environment, without any network.
#
#   sh install.sh [--with-tests] [VENV]
#
# VENV (venv, if not named) is taken if it is there and made with ${PYTHON:-python3} if not. Nothing is
# installed unless every file of this folder is the one that SHA256SUMS names.
set -eu

refuse() {
    echo "install.sh: $*" >&2
    echo "install.sh: nothing was installed" >&2
    exit 1
}

tests=no
venv=
for word in "$@"; do
    case $word in
        --with-tests) tests=yes ;;
        -*) refuse "there is no option $word; usage: sh install.sh [--with-tests] [VENV]" ;;
        *) [ -z "$venv" ] || refuse "one VENV, please: $venv or $word"
           venv=$word ;;
    esac
done
venv=${venv:-venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
cd "$here"

# Is every file here, and as it was?
if command -v sha256sum >/dev/null 2>&1; then sums=sha256sum
elif command -v shasum >/dev/null 2>&1; then sums="shasum -a 256"
else refuse "neither sha256sum nor shasum is here to check the files with"
fi
[ -f SHA256SUMS ] || refuse "SHA256SUMS is missing: this is not a whole wheelhouse"
for name in install.sh requirements.txt requirements-test.txt platform.txt; do
    grep -q "^[0-9a-f]\{64\}  $name\$" SHA256SUMS || refuse "SHA256SUMS does not name $name"
done
if grep -q -v "^[0-9a-f]\{64\}  [A-Za-z0-9_]" SHA256SUMS || grep -q '\.\./' SHA256SUMS; then
    refuse "SHA256SUMS has a line that is no sum of a file of this folder"
fi
report=$($sums -c SHA256SUMS 2>&1) || {
    printf '%s\n' "$report" | grep -v ': OK$' >&2 || true
    refuse "the files above are missing or not those that SHA256SUMS names"
}

# Is this the machine that the wheels are for?
if [ -e "$venv" ]; then
    [ -x "$venv/bin/python" ] || refuse "$venv is there and is no virtual environment"
    python=$venv/bin/python
else
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null 2>&1 || refuse "there is no $python; name one, as in PYTHON=python3.11"
fi
wanted=$(cat platform.txt)
found=$("$python" -c 'import platform as p; print(*p.python_version_tuple()[:2], sep=".", end=" ")
print(p.system(), p.machine())') || refuse "$python does not run"
[ "$wanted" = "$found" ] || refuse "the wheels are for Python $wanted; $python is Python $found"

[ -e "$venv" ] || "$python" -m venv "$venv" || refuse "$venv could not be made"
set -- -r requirements.txt
[ $tests = no ] || set -- "$@" -r requirements-test.txt
pip() {
    PIP_CONFIG_FILE=/dev/null "$venv/bin/python" -m pip --isolated --disable-pip-version-check "$@"
}
pip install --quiet --no-index --no-deps --require-hashes --find-links wheels "$@" || {
    echo "install.sh: pip gave up, as above; do not use $venv, remove it and try again" >&2
    exit 1
}
pip check || {
    echo "install.sh: optax_ls is installed in $venv, whose other packages do not fit" >&2
    exit 1
}
echo "optax_ls is installed in $venv"
