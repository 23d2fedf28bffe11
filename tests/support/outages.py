"""What a device must hear while a store of the coordinator does not answer."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def assert_unavailable(call: Callable[[], object]) -> None:
    """The call ends with UNAVAILABLE and says in RetryInfo when to come back."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE, raised.value
    status = rpc_status.from_call(raised.value)
    waits = []
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            waits.append(info.retry_delay.seconds)
    assert len(waits) == 1
    assert waits[0] > 0
