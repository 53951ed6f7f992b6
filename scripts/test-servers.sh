#!/usr/bin/env bash
# Install the Azure Blob emulator that the tests run against into .tools. Does nothing where it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/patiently.sh

# A newer version is a new folder's content: the mark in it names the version.
azurite_version=3.35.0
folder=.tools/azurite

mkdir -p .tools
# Several test workers may find it missing at the same time.
exec 9>.tools/lock
flock 9
if [ "$(cat "$folder/version" 2>/dev/null)" = "$azurite_version" ]; then
  exit 0
fi

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing nodejs and npm with apt-get, for the Azure Blob emulator."
    install_packages nodejs npm
  else
    echo "Node.js and npm are missing: the tests run an Azure Blob emulator (Azurite) on them." >&2
    echo "On Debian and Ubuntu: sudo apt-get install nodejs npm" >&2
    exit 1
  fi
fi

echo "Installing Azurite $azurite_version into .tools (about a minute, once)."
rm -rf "$folder"
mkdir -p "$folder"
# Without a lock file, which would record where each package was downloaded from; nothing of it runs at install.
patiently npm install --prefix "$folder" --no-package-lock --no-save --ignore-scripts --no-audit --no-fund \
  --loglevel=error "azurite@$azurite_version" >/dev/null
echo "$azurite_version" >"$folder/version"
