#!/usr/bin/env bash
# Installs what a fresh Debian 12 or Ubuntu 22.04+ lacks for building and testing. Quiet, may run as often as
# you like; touches nothing (and asks for no password) where all is there.   usage: tools/setup.sh [--check]
set -euo pipefail

case ${1:-} in
    "") check_only=0 ;;
    --check) check_only=1 ;;
    *) echo "usage: tools/setup.sh [--check]     (--check: only say what is missing)"; [[ $1 == --help ]]; exit ;;
esac

program() { command -v "$1" >/dev/null 2>&1; }
header() { [[ -e /usr/include/$1 || -e /usr/local/include/$1 || -n $(compgen -G "/usr/include/*-linux-gnu/$1") ]]; }
python_has() { python3 -c "import $1" >/dev/null 2>&1; }

# package: how to tell that it is there, wherever it came from
missing=()
need() {
    local package=$1
    shift
    "$@" || missing+=("$package")
}
need g++ program g++
need make program make
need cmake program cmake
need ninja-build program ninja
need pkg-config program pkg-config
need git program git
need clang-format program clang-format
need python3 program python3
need python3-pip python_has pip
need python3-venv python_has ensurepip
need nlohmann-json3-dev header nlohmann/json.hpp
need libyaml-cpp-dev header yaml-cpp/yaml.h
need libpcre2-dev header pcre2.h
need libutf8proc-dev header utf8proc.h
need libgtest-dev header gtest/gtest.h
optional=()
header dnnl.hpp || optional+=(libdnnl-dev) # a GEMM library to compare with; the build goes on without it

if ((check_only)); then
    [[ -z ${optional[*]} ]] || echo "setup: optional and missing: ${optional[*]}"
    [[ -z ${missing[*]} ]] || { echo "setup: missing: ${missing[*]}"; exit 1; }
    exit 0
fi
[[ -z ${missing[*]}${optional[*]} ]] && exit 0

cannot() {
    if ((${#missing[@]})); then
        echo "setup: cannot install ($1); please install by hand: ${missing[*]}" >&2
        exit 1
    fi
    echo "setup: ${optional[*]} is missing and cannot be installed ($1); going on without it"
    exit 0
}
program apt-get || cannot "no apt-get on this system"
as_root=()
if ((EUID != 0)); then
    program sudo || cannot "not root and no sudo"
    # an optional package is not worth a password prompt
    if ((${#missing[@]} == 0)) && ! sudo -n true 2>/dev/null; then cannot "needs root"; fi
    as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1; }
apt update || true # the lists may be good enough; if not, the next line says so
if ((${#missing[@]})); then
    echo "setup: installing ${missing[*]}"
    apt install -y --no-install-recommends "${missing[@]}" ||
        cannot "apt-get: $(grep -E '^E:' "$log" | tail -1 || tail -1 "$log")"
fi
if ((${#optional[@]})); then
    apt install -y --no-install-recommends "${optional[@]}" ||
        echo "setup: ${optional[*]} is not available here; going on without it (oneDNN is optional)"
fi
