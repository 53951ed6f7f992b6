#!/usr/bin/env bash
# Make sure that this machine has strace, by which the tests let single calls to a disk fail.
set -euo pipefail
source "$(dirname "$0")/patiently.sh"

if command -v strace >/dev/null; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "The tests need strace; installing it with apt-get."
  install_packages strace
fi
if ! command -v strace >/dev/null; then
  echo "The tests need strace, to let a disk fail. On Debian and Ubuntu: sudo apt-get install strace" >&2
  exit 1
fi
