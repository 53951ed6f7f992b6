#!/usr/bin/env bash
# Make sure that this machine has strace, by which the tests let single calls to a disk fail.
set -euo pipefail

if command -v strace >/dev/null; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "The tests need strace; installing it with apt-get."
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends strace >/dev/null
fi
if ! command -v strace >/dev/null; then
  echo "The tests need strace, to let a disk fail. On Debian and Ubuntu: sudo apt-get install strace" >&2
  exit 1
fi
