#!/bin/sh
# Installs edge-client for the user who runs it: an environment of its own, made by pipx or uv, and nothing else.
# Usage: scripts/install.sh [WHEEL]    without a wheel: the package `nightshift` of the package index
# Again, to upgrade. Root is not needed, and nothing is started: `edge-client service install` does that.
set -eu

PACKAGE=${1:-nightshift}

say() { printf '==> %s\n' "$1" >&2; }
fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-15}"
}

system=$(uname -s)
machine=$(uname -m)
case $system in
    Linux | Darwin) ;;
    MINGW* | MSYS* | CYGWIN* | Windows*) fail "Windows is not supported; run this in WSL 2 (a Linux inside Windows)" ;;
    *) fail "$system is not supported; Linux and macOS are" ;;
esac
case $machine in
    x86_64 | amd64 | aarch64 | arm64) ;;
    armv6l | armv7l | armhf)
        fail "32-bit ARM ($machine) is not supported: numpy and onnxruntime have no wheels for it. On a Raspberry Pi 3 or newer install the 64-bit Raspberry Pi OS" ;;
    *) fail "$machine is not supported; x86-64 and 64-bit ARM are" ;;
esac

python=
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import struct, sys; sys.exit(sys.version_info < (3, 11) or struct.calcsize("P") < 8)' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "a 64-bit Python 3.11 or newer is needed (on a 64-bit kernel a 32-bit system is not enough); on Debian or Raspberry Pi OS 12 or newer: sudo apt install python3" 2

if [ "$PACKAGE" != nightshift ]; then
    [ -f "$PACKAGE" ] || fail "there is no file $PACKAGE" 2
    case $PACKAGE in *.whl) ;; *) fail "$PACKAGE is no wheel (*.whl)" 2 ;; esac
fi

if command -v pipx >/dev/null 2>&1; then
    say "installing $PACKAGE with pipx"
    pipx install --force --python "$python" "$PACKAGE"
elif command -v uv >/dev/null 2>&1; then
    say "installing $PACKAGE with uv"
    uv tool install --force --python "$python" "$PACKAGE"
else
    fail "neither pipx nor uv is here; on Debian or Raspberry Pi OS: sudo apt install pipx && pipx ensurepath; on macOS: brew install pipx" 2
fi

command -v edge-client >/dev/null 2>&1 || say "open a new shell, so that edge-client is on the path (or run: pipx ensurepath)"
if [ "$system" = Linux ] && ! ls /usr/lib/*/libjemalloc.so.2 >/dev/null 2>&1; then
    say "for training with less memory: sudo apt install libjemalloc2"
fi
say "next: edge-client join TOKEN, edge-client doctor, edge-client service install"
