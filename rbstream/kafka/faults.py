"""What a Kafka error means for what we were doing: one pure function, and the errors that carry its verdict."""

from enum import Enum

from confluent_kafka import KafkaError

from rbstream.errors import RbstreamError


class Fault(Enum):
    """The four outcomes. Unknown ones end the process too, since nobody has thought them through."""

    REPEAT = "repeat the same call"
    ABORT = "abort the transaction, go back to what was committed, and take it up again"
    EXIT = "exit; the supervisor starts another"
    UNKNOWN = "not known to rbstream; exit"


class KafkaFailure(RbstreamError):
    """Kafka refused something for good, or has been away for too long."""


class ProducerLostError(KafkaFailure):
    """This producer does not get on any more; a new one of the same name does, and ends what this one left open."""


class InstanceInUseError(KafkaFailure):
    """The broker still holds a predecessor's static membership under this instance id (KIP-848)."""


class Aborted(Exception):
    """Nothing of this was committed, and it can be tried again."""


# The same answer would come however often we ask: another owns our name, we lack a right, the topic or the message
# can't be what they are.
_FOR_GOOD = frozenset(
    {
        KafkaError._FATAL,
        KafkaError._FENCED,
        KafkaError._AUTHENTICATION,
        KafkaError._INVALID_ARG,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.INVALID_COMMIT_OFFSET_SIZE,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.OFFSET_METADATA_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.PRODUCER_FENCED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.UNSUPPORTED_VERSION,
    }
)
# The group has moved on without us, or the transaction or its messages were given up on the way.
_ABORTABLE = frozenset(
    {
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._NO_OFFSET,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._PURGE_QUEUE,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.TRANSACTION_ABORTABLE,
        KafkaError.UNKNOWN_MEMBER_ID,
    }
)
# The broker is away, slow, starting, or moving things around.
_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._DESTROY_BROKER,
        KafkaError._QUEUE_FULL,
        KafkaError._RESOLVE,
        KafkaError._RETRY,
        KafkaError._SSL,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.FETCH_SESSION_ID_NOT_FOUND,
        KafkaError.INVALID_FETCH_SESSION_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)


def judge(error: KafkaError) -> Fault:
    """What to do about an error of either client.

    What librdkafka says of the error counts before what its code suggests; but what can't get better is never
    repeated, whatever it says.
    """
    code = error.code()
    if error.fatal() or code in _FOR_GOOD:
        return Fault.EXIT
    if error.txn_requires_abort() or code in _ABORTABLE:
        return Fault.ABORT
    if error.retriable() or code in _PASSING:
        return Fault.REPEAT
    return Fault.UNKNOWN
