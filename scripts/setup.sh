#!/usr/bin/env bash
# Makes .venv: Python 3.13, the locked dependencies, this project in editable mode. Run it as often as you like:
# when nothing has changed it returns at once. Works with uv, and without uv with pip.
#
#   UV       the uv to use, instead of one found, or installed into .venv-tools
#   PYTHON   the Python to use, instead of a 3.13 found
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(pwd -P)
venv=$root/.venv
tools=$root/.venv-tools
stamp=$venv/.autosell-setup
min_uv=0.8.0 # as required-version in pyproject.toml

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}
runs() { "$@" >/dev/null 2>&1 </dev/null; }

# An activated environment of another project is not the one to fill.
unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT PYTHONHOME

# The folder is part of the fingerprint: in a moved clone, .venv still points to where it was.
fingerprint=$({ printf '%s\n' "$root" "${PYTHON:-}" && cat pyproject.toml uv.lock scripts/setup.sh; } | cksum)
if [[ -f $stamp && $(<"$stamp") == "$fingerprint" ]] && runs "$venv/bin/python" -c ''; then
  exit 0
fi

# --- what is there -------------------------------------------------------------------------------

is_python() { # it really starts (a pyenv shim may only look as if) and is new enough
  runs "$1" -c 'import sys; raise SystemExit(not (3, 13) <= sys.version_info[:2] < (4, 0))'
}

find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]] && ! is_python "$PYTHON"; then
    say "PYTHON=$PYTHON is not a Python >=3.13,<4: looking for another"
  fi
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python3.13 \
    /usr/local/bin/python3.13 /usr/bin/python3.13 python3 python; do
    if is_python "$candidate"; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

is_uv() { # it starts and is new enough
  local version
  version=$("$1" --version 2>/dev/null | awk '{print $2}') || return 1
  [[ -n $version && $(printf '%s\n' "$min_uv" "$version" | sort -V | head -n 1) == "$min_uv" ]]
}

find_uv() {
  local candidate
  for candidate in ${UV:+"$UV"} uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" "$tools/bin/uv"; do
    if is_uv "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

install_uv() { # into a private environment, by any Python that can make one
  local candidate
  for candidate in "$@" python3 python /usr/bin/python3; do
    rm -rf "$tools"
    if runs "$candidate" -m venv "$tools" && runs "$tools/bin/python" -m pip install "uv>=$min_uv" \
      && is_uv "$tools/bin/uv"; then
      printf '%s\n' "$tools/bin/uv"
      return
    fi
  done
  rm -rf "$tools"
  return 1
}

apt_install_python() { # Debian's, whatever its version: it can install uv, which knows where to get a newer one
  [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
  say "no Python with venv here: apt-get install python3-venv"
  export DEBIAN_FRONTEND=noninteractive
  runs apt-get update && runs apt-get install -y --no-install-recommends python3-venv
}

# --- .venv ---------------------------------------------------------------------------------------

moved() { # its commands start the Python of another folder
  [[ -f $venv/bin/pytest ]] && ! head -n 3 "$venv/bin/pytest" | grep -qF "$venv/bin/"
}

python=$(find_python) || python=
uv=$(find_uv || install_uv ${python:+"$python"}) || { apt_install_python && uv=$(install_uv); } || uv=

if [[ -e $venv ]] && { ! runs "$venv/bin/python" -c '' || moved; }; then
  say "making .venv anew: it belongs to another folder or Python"
  rm -rf "$venv"
fi

if [[ -n $uv ]]; then
  say "uv $("$uv" --version | awk '{print $2}'), Python ${python:-3.13, which uv has to find or fetch}"
  "$uv" sync --quiet --frozen --all-extras --python "${python:-3.13}" </dev/null || die "uv sync failed (PYTHON= names a Python 3.13, if there is one that was not found)"
elif [[ -n $python ]]; then
  say "uv cannot be had: pip takes the newest allowed versions, not the locked ones; Python $python"
  "$python" -m venv "$venv" || die "this Python has no venv module that works: install it, or uv"
  "$venv/bin/python" -m pip install --quiet --upgrade 'pip>=25.1' </dev/null # the first with --group
  "$venv/bin/python" -m pip install --quiet --group dev --editable '.[django,fastapi,redis]' </dev/null
else
  die "neither uv nor Python 3.13 is here or can be installed: install either, or name it with UV= or PYTHON="
fi

printf '%s\n' "$fingerprint" >"$stamp"
say "ready: .venv"
