#!/usr/bin/env bash
# Make sure that this machine has a PostgreSQL server for the tests: 15 or later, for databases with a locale of ICU.
# Nothing of it is started here; the tests start and stop a server of their own.
set -euo pipefail
source "$(dirname "$0")/patiently.sh"
oldest=15

newest() {
  find /usr/lib/postgresql -maxdepth 3 -path '*/bin/initdb' 2>/dev/null | cut -d/ -f5 | sort -n | tail -1 || true
}

found=$(newest)
if [ "${found:-0}" -ge "$oldest" ]; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "The tests need a PostgreSQL server; installing postgresql with apt-get."
  install_packages postgresql
  found=$(newest)
fi
if [ "${found:-0}" -lt "$oldest" ]; then
  echo "The tests need PostgreSQL $oldest or later in /usr/lib/postgresql. On Debian and Ubuntu: sudo apt-get install postgresql" >&2
  exit 1
fi
