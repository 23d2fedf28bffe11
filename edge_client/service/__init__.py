"""The timer that calls `edge-client run` at night: systemd on Linux, launchd on macOS. Nothing stays resident."""
