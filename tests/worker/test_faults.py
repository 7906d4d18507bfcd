"""What a Kafka error means: every case in a table."""

import pytest

pytest.importorskip("confluent_kafka")
from confluent_kafka import KafkaError

from rbstream.kafka.faults import Fault, judge

TABLE = [
    # The broker is away, slow or starting: the same call again.
    (KafkaError(KafkaError._TIMED_OUT), Fault.REPEAT),
    (KafkaError(KafkaError._TRANSPORT), Fault.REPEAT),
    (KafkaError(KafkaError._ALL_BROKERS_DOWN), Fault.REPEAT),
    (KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS), Fault.REPEAT),
    (KafkaError(KafkaError.NOT_COORDINATOR), Fault.REPEAT),
    (KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT), Fault.REPEAT),
    (KafkaError(KafkaError.UNKNOWN_LEADER_EPOCH), Fault.REPEAT),
    (KafkaError(KafkaError.OFFSET_NOT_AVAILABLE), Fault.REPEAT),
    (KafkaError(KafkaError._STATE, retriable=True), Fault.REPEAT),
    # The transaction can't be committed, another one can.
    (KafkaError(KafkaError.UNKNOWN_MEMBER_ID), Fault.ABORT),
    (KafkaError(KafkaError.ILLEGAL_GENERATION), Fault.ABORT),
    (KafkaError(KafkaError.STALE_MEMBER_EPOCH), Fault.ABORT),
    (KafkaError(KafkaError._MAX_POLL_EXCEEDED), Fault.ABORT),
    (KafkaError(KafkaError._MSG_TIMED_OUT), Fault.ABORT),
    (KafkaError(KafkaError.KAFKA_STORAGE_ERROR, retriable=True), Fault.ABORT),
    (KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, txn_requires_abort=True), Fault.ABORT),
    (KafkaError(KafkaError._TIMED_OUT, retriable=True, txn_requires_abort=True), Fault.ABORT),
    # Another owns our name, we lack a right, or it can't ever work: not even where librdkafka would try again.
    (KafkaError(KafkaError._FENCED, fatal=True), Fault.EXIT),
    (KafkaError(KafkaError.PRODUCER_FENCED), Fault.EXIT),
    (KafkaError(KafkaError.FENCED_INSTANCE_ID), Fault.EXIT),
    (KafkaError(KafkaError._FATAL), Fault.EXIT),
    (KafkaError(KafkaError._TIMED_OUT, fatal=True, retriable=True), Fault.EXIT),
    (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, txn_requires_abort=True), Fault.EXIT),
    (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, txn_requires_abort=True), Fault.EXIT),
    (KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, retriable=True), Fault.EXIT),
    (KafkaError(KafkaError._AUTHENTICATION), Fault.EXIT),
    # Nobody has thought these through.
    (KafkaError(KafkaError._BAD_MSG), Fault.UNKNOWN),
    (KafkaError(KafkaError.INVALID_PRODUCER_EPOCH), Fault.UNKNOWN),
    (KafkaError(31_415), Fault.UNKNOWN),
]


@pytest.mark.parametrize(("error", "fault"), TABLE, ids=[f"{error.name()}-{fault.name}" for error, fault in TABLE])
def test_each_error_has_its_outcome(error: KafkaError, fault: Fault) -> None:
    assert judge(error) is fault
