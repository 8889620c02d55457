#!/bin/sh
# One script for those who try and those who change asyncworker: it makes a virtual environment, once, and
#   ./dev.sh demo [OPTION...]    shows what asyncworker does
#   ./dev.sh test [OPTION...]    runs the tests; options are pytest's, `./dev.sh test long` adds the long ones
#   ./dev.sh check               looks at style, types and the rules of the house
#   ./dev.sh bench [FILE...]     measures; without a file says what can be measured
#   ./dev.sh run [ARGUMENT...]   runs the command asyncworker
#   ./dev.sh python [ARGUMENT...]
# PYTHON=python3.13 ./dev.sh test uses that Python and an environment of its own, .venv-3.13.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

fail() {
  printf 'dev.sh: %s\n' "$1" >&2
  exit 2
}

usage() {
  sed -n '2,/^set -eu/{/^set/d;s/^# \{0,1\}//;p;}' "$here/dev.sh"
}

new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    new_enough "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer"
    python=$PYTHON
    venv=$here/.venv-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    return
  fi
  venv=$here/.venv
  for python in python3 python3.14 python3.13 python3.12 python3.11 "${HOME:-/nowhere}"/.pyenv/versions/3.1[1-9]*/bin/python; do
    if new_enough "$python"; then
      return
    fi
  done
  fail "there is no Python 3.11 or newer: install one, or say which: PYTHON=/path/to/python $0"
}

# install EXTRA: make sure that the environment is there with this extra; `dev` includes `embedded`.
install() {
  # What the many processes of a run compile is kept with the environment, not beside the sources.
  unset PYTHONDONTWRITEBYTECODE
  export PYTHONPYCACHEPREFIX="$venv/pycache"
  stamp=$venv/installed-$1
  for done in "$stamp" "$venv/installed-dev"; do
    # Each stamp holds the place: an environment that was moved must be made anew.
    if [ -f "$done" ] && [ "$(cat "$done")" = "$here" ] && [ -z "$(find "$here/pyproject.toml" -newer "$done")" ] &&
      new_enough "$venv/bin/python"; then
      return
    fi
  done
  printf 'dev.sh: installing into %s (once; takes up to a minute)\n' "${venv#"$here/"}" >&2
  with_uv "$1" || with_pip "$1"
  printf '%s' "$here" >"$stamp"
}

with_uv() {
  command -v uv >/dev/null 2>&1 || return 1
  export UV_PYTHON_DOWNLOADS=never
  { new_enough "$venv/bin/python" || uv venv --quiet --clear --python "$python" "$venv"; } &&
    uv pip install --quiet --python "$venv/bin/python" --editable "$here[$1]" && return
  printf 'dev.sh: uv could not, trying pip\n' >&2
  return 1
}

with_pip() {
  log=$here/.venv-install.log
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "this Python cannot make virtual environments: apt-get install python3-venv"
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv" >"$log" 2>&1 ||
    fail "no virtual environment could be made: $(tail -n 1 "$log")"
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --editable "$here[$1]" >"$log" 2>&1 || {
    if grep -qE 'NewConnectionError|ConnectTimeoutError|Name or service|name resolution|ProxyError' "$log"; then
      fail "pip could not reach its package index: no network? (all it said: ${log#"$here/"})"
    fi
    fail "pip could not install: $(grep -i error "$log" | tail -n 1) (all it said: ${log#"$here/"})"
  }
  rm -f "$log"
}

command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
  demo | run)
    find_python
    install embedded
    [ "$command" = run ] || set -- demo "$@"
    exec "$venv/bin/python" -m asyncworker "$@"
    ;;
  python)
    find_python
    install dev
    exec "$venv/bin/python" "$@"
    ;;
  test)
    find_python
    install dev
    cd "$here"
    if [ "${1:-}" = long ]; then
      shift
      set -- --long "$@"
    fi
    # A few chosen tests start faster in one process; all of them end sooner in three, for they wait a third of the time.
    case "$*" in '' | --long) set -- -n 3 --dist worksteal "$@" ;; esac
    exec "$venv/bin/python" -m pytest -q "$@"
    ;;
  check)
    find_python
    install dev
    cd "$here"
    bad=0
    for what in 'ruff check --quiet' 'ruff format --check --quiet' mypy 'mypy tests/typing/api.py' \
      'pytest -q tests/test_house.py'; do
      # shellcheck disable=SC2086
      "$venv/bin/python" -m $what || bad=1
    done
    exit $bad
    ;;
  bench)
    find_python
    install dev
    cd "$here"
    if [ $# -eq 0 ]; then
      for file in bench/bench_*.py bench/control/bench_*.py; do
        printf '%-38s %s\n' "$file" "$(sed -n '1s/^"""//p' "$file")"
      done
      exit
    fi
    for file in "$@"; do
      "$venv/bin/python" "$file"
    done
    ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
