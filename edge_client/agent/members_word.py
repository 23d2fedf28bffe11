"""Sending the one thing that a member says about a cohort: an answer, a refusal, or an erasure statement.

What is sent is what is stored, so a retry after a lost reply or a power cut sends the same bytes.
"""

from __future__ import annotations

from edge_client.agent.session import Session
from edge_client.connection import CALL_DEADLINE_S
from edge_client.store.answers import Kind, StoredAnswer
from nightshift.host.failpoints import failpoint


def send(session: Session, answer: StoredAnswer) -> None:
    """Send what was stored, and note that it was acknowledged.

    Raises:
        StateConflictError: the coordinator no longer wants it, or holds another word of this member.
        UnreachableError: the coordinator does not answer; it is sent again next time.
    """
    from nightshift.v1 import device_pb2

    connection, stub = session.connection, session.connection.stub
    if answer.kind is Kind.ANSWER:
        given = device_pb2.AnswerRequest.FromString(answer.message)
        connection.call(lambda: stub.Answer(given, timeout=CALL_DEADLINE_S))
    elif answer.kind is Kind.REFUSAL:
        refusal = device_pb2.RefuseRequest.FromString(answer.message)
        connection.call(lambda: stub.Refuse(refusal, timeout=CALL_DEADLINE_S))
    else:
        erasure = device_pb2.StateErasureRequest.FromString(answer.message)
        connection.call(lambda: stub.StateErasure(erasure, timeout=CALL_DEADLINE_S))
    failpoint("device.answer.sent")
    session.store.answers.mark_sent(answer.cohort_id, session.now_unix_s)
