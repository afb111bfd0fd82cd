# shellcheck shell=bash
# Debian packages the project needs, sourced by ./check and ./quickstart.
#
#   packages_need build|check|all   installs what is missing, after saying what and why
#
# Tested on Debian 12. The names are those of Ubuntu 22.04 and 24.04 too (not tested there).

# package|reason
PACKAGES_BUILD="
g++|C++20 compiler
cmake|build
ninja-build|build
ccache|rebuilds in seconds
pkg-config|finds PCRE2, utf8proc, OpenSSL and zstd
libdnnl-dev|oneDNN: plain dense products
ocl-icd-opencl-dev|oneDNN's CMake files ask for it
libfmt-dev|messages
nlohmann-json3-dev|JSON
libcli11-dev|command line
libyaml-cpp-dev|configuration files
libpcre2-dev|regular expressions of the tokenizers
libutf8proc-dev|Unicode normal forms
libssl-dev|SHA-256 of model files and data sets
zlib1g-dev|data sets in .gz
libzstd-dev|data sets in .zst
"
PACKAGES_CHECK="
libgtest-dev|unit tests
clang-format-14|the one formatter version the sources are held to
python3|tools/*.py and their tests
git|the list of the sources
"
PACKAGES_ALL="
clang-14|second compiler and fuzz targets
libclang-rt-14-dev|libFuzzer and the sanitizers of clang
libomp-14-dev|OpenMP of clang
"

packages_supported() {
  local id="" version=""
  [ -r /etc/os-release ] && id=$(. /etc/os-release && echo "$ID") && version=$(. /etc/os-release && echo "$VERSION_ID")
  case "$id-$version" in
    debian-12 | ubuntu-22.04 | ubuntu-24.04) return 0 ;;
  esac
  if ! command -v apt-get >/dev/null; then
    echo "packages: ${id:-this system} ${version} has no apt-get: install the equivalents of these by hand and set RUNG_SKIP_PACKAGES=1" >&2
    return 1
  fi
  echo "packages: ${id} ${version} is not one of Debian 12, Ubuntu 22.04, Ubuntu 24.04; trying their package names" >&2
}

packages_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Arguments: "package|reason" lines. Does nothing and prints nothing when all is there.
packages_install_missing() {
  local missing="" line name
  while IFS= read -r line; do
    [ -n "$line" ] || continue
    name=${line%%|*}
    if ! packages_installed "$name"; then
      [ -n "$missing" ] || echo "packages: missing"
      printf '  %-20s %s\n' "$name" "${line#*|}"
      missing="$missing $name"
    fi
  done <<<"$1"
  [ -n "$missing" ] || return 0

  local sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "packages: not root and no sudo; ask an administrator for: apt-get install$missing" >&2
      return 1
    fi
    sudo=sudo
  fi
  echo "packages: installing$missing"
  # An old package list names files the mirror no longer has: refresh it first. Offline, the refresh
  # fails but the packages may still be in the local cache.
  $sudo apt-get update -qq || echo "packages: apt-get update failed, trying the list at hand" >&2
  if ! $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; then
    echo "packages: apt-get could not install$missing (no network? see the lines above)" >&2
    return 1
  fi
}

packages_need() {
  [ -z "${RUNG_SKIP_PACKAGES:-}" ] || return 0
  local list="$PACKAGES_BUILD"
  case "$1" in
    check) list="$list$PACKAGES_CHECK" ;;
    all) list="$list$PACKAGES_CHECK$PACKAGES_ALL" ;;
  esac
  if ! packages_supported; then
    echo "$list" | sed -e '/^$/d' -e 's/^/  /' >&2
    return 1
  fi
  packages_install_missing "$list"
}
