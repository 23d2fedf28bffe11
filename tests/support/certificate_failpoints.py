"""Failpoints in the life of a certificate, met by tests/integration/test_certificate_life.py.

The tests that look for failpoints that nobody meets ask here as well.
"""

from __future__ import annotations

RENEWING = ("device.renewal.answered", "device.renewal.saved", "device.renewal.confirmed")
COMING_BACK = ("device.late-renewal.answered", "device.late-renewal.saved")
LEAVING = ("device.leave.forgotten", "device.leave.parted")
DEVICE = {*RENEWING, *COMING_BACK, *LEAVING}

RENEWED = "coordinator.renewal.committed"
RENEWED_LATE = "coordinator.late-renewal.committed"
COORDINATOR = {RENEWED, RENEWED_LATE}
