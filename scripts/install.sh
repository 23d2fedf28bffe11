#!/bin/sh
# Installs edge-client in an environment of its own, made by uv or pipx, and nothing else. Again, to upgrade.
# Usage: scripts/install.sh [--system] [WHEEL]
#   without a wheel: the package `nightshift` of the package index
#   --system: for all users, below /opt/nightshift, for the system's service; as root
# Nothing is started: `edge-client service install` does that.
set -eu

say() { printf '==> %s\n' "$1" >&2; }
fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-15}"
}

for_all=
case ${1:-} in
    --system)
        for_all=yes
        shift
        ;;
    -*) fail "$1 is no option of this script; it is: scripts/install.sh [--system] [WHEEL]" 2 ;;
esac
PACKAGE=${1:-nightshift}

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

if [ -n "$for_all" ]; then
    [ "$(id -u)" = 0 ] || fail "--system installs for all users and needs root: sudo scripts/install.sh --system …" 2
    # Where the service's own user can read it; root's home is closed to it.
    export PIPX_HOME=/opt/nightshift PIPX_BIN_DIR=/usr/local/bin UV_TOOL_DIR=/opt/nightshift/venvs UV_TOOL_BIN_DIR=/usr/local/bin
    umask 022
fi

# Whoever installed it upgrades it, so that it is never there twice.
tool=
case $(pipx list --short 2>/dev/null || true) in *"nightshift "*) tool=pipx ;; esac
for candidate in uv pipx; do
    if [ -z "$tool" ] && command -v "$candidate" >/dev/null 2>&1; then tool=$candidate; fi
done
# Neither compiles what it installs: of 48 MB of bytecode a device needs a fifth.
case $tool in
    uv)
        say "installing $PACKAGE with uv"
        uv tool install --force --upgrade --python "$python" "$PACKAGE"
        environment=$(uv tool dir)/nightshift
        ;;
    pipx)
        say "installing $PACKAGE with pipx"
        pipx install --force --python "$python" --pip-args=--no-compile "$PACKAGE"
        environment=${PIPX_HOME:-}/venvs/nightshift
        [ -n "${PIPX_HOME:-}" ] || environment=$(pipx environment --value PIPX_LOCAL_VENVS)/nightshift
        ;;
    *) fail "neither uv nor pipx is here; on Debian or Raspberry Pi OS: sudo apt install pipx && pipx ensurepath; on macOS: brew install pipx" 2 ;;
esac

# That fifth, now: the system's service may not write here, and would compile it again at every pass.
if [ -x "$environment/bin/python" ]; then
    "$environment/bin/python" - <<'END' || say "compiling did not work; the first passes take a little longer"
import importlib, pkgutil
import edge_client
import onnxruntime, rich.progress, tokenizers, tuf.ngclient, uvicorn
for module in pkgutil.walk_packages(edge_client.__path__, "edge_client."):
    importlib.import_module(module.name)
END
fi

command -v edge-client >/dev/null 2>&1 || say "open a new shell, so that edge-client is on the path (or run: $tool $([ "$tool" = uv ] && echo tool update-shell || echo ensurepath))"
if [ "$system" = Linux ] && ! ls /usr/lib/*/libjemalloc.so.2 >/dev/null 2>&1; then
    say "for training with less memory: sudo apt install libjemalloc2"
fi
if [ -n "$for_all" ]; then
    say "next: sudo edge-client --home system join TOKEN, then … doctor, then … service install --system"
else
    say "next: edge-client join TOKEN, edge-client doctor, edge-client service install"
fi
