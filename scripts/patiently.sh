# To be sourced: installing from registries and mirrors, which have their bad moments.

# Run a command again where it fails, up to four times in all, with a pause that grows.
patiently() {
  local pause_s
  for pause_s in 5 20 60; do
    "$@" && return 0
    echo "That failed: $*. Trying again in $pause_s seconds." >&2
    sleep "$pause_s"
  done
  "$@"
}

# Install Debian packages, as root. Somebody else's installation is waited for.
install_packages() {
  patiently apt-get -o DPkg::Lock::Timeout=300 update -qq
  DEBIAN_FRONTEND=noninteractive patiently \
    apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" >/dev/null
}
