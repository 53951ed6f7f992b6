#!/usr/bin/env bash
# Make .venv and install one lock file and the product into it.
# Usage: scripts/environment.sh PYTHON REQUIREMENTS
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/patiently.sh

python=${1:-}
requirements=$2

if [ -z "$python" ]; then
  echo "Python 3.11 or later is needed, and none was found. Install it, or say which: make PYTHON=/path/to/python3.11 …" >&2
  exit 1
fi

if [ ! -x .venv/bin/python ]; then
  echo "Making a virtual environment in .venv with $("$python" --version)."
  why=$(mktemp)
  if ! "$python" -m venv .venv 2>"$why"; then
    rm -rf .venv
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      echo "This Python cannot make environments yet; installing python$version-venv with apt-get."
      install_packages "python$version-venv"
      "$python" -m venv .venv
    else
      cat "$why" >&2
      echo "This Python cannot make virtual environments. On Debian and Ubuntu: sudo apt-get install python$version-venv" >&2
      exit 1
    fi
  fi
  rm -f "$why"
fi

echo "Installing $requirements into .venv (exact versions, hashes checked)."
patiently .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$requirements"
echo "Installing the product itself."
patiently .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
