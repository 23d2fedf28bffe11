"""A unit for systemd: one long-lived process without privileges (systemd.exec(5), "Sandboxing").

Left out: `MemoryDenyWriteExecute`, which breaks onnxruntime and cffi, and `ProcSubset=pid`, which hides the
processor and the memory from libraries that ask for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nightshift.protocol.errors import UsageError

_UNIT = """\
# Written by `coordinator service print`.
[Unit]
Description=Nightshift coordinator
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
Type=exec
User={user}
ExecStart={program} --data {data} serve
Restart=on-failure
RestartSec=5s
# listen.drain_s, and room to write down what came.
TimeoutStopSec=60s
KillSignal=SIGTERM
LimitNOFILE=65536
UMask=0077

ReadWritePaths={data}
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def unit_text(data: Path, *, user: str, program: Path | None = None) -> str:
    """The unit file.

    Args:
        data: the coordinator's directory.
        user: who the process runs as.
        program: the `coordinator` command; that of this environment if absent.

    Raises:
        UsageError: a path or a name that a unit file cannot hold.
    """
    command = program or Path(sys.executable).parent / "coordinator"
    for text in (str(data), str(command), user):
        if any(letter.isspace() or letter in "%\"'\\$" for letter in text):
            raise UsageError(f"{text!r} has characters that mean something in a unit file; use another path or name")
    below_home = any(data.is_relative_to(home) for home in ("/home", "/root", "/run/user"))
    return _UNIT.format(user=user, program=command, data=data, protect_home="no" if below_home else "yes")
