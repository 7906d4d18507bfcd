"""The broker of the other tests: what it is told to keep, it keeps."""

from collections.abc import Callable
from pathlib import Path

import pytest
from broker import Broker, headers
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from waiting import wait_until


def producer(broker: Broker, **more: object) -> Producer:
    return Producer({"bootstrap.servers": broker.servers, "log_level": 0} | more)


def test_what_was_acknowledged_is_there_after_a_stop_and_after_a_kill(
    broker: Broker, fresh: Callable[[str], str]
) -> None:
    topic = fresh("kept")
    broker.create(topic, partitions=3)
    for end in (broker.stop, broker.kill):
        client = producer(broker)
        for number in range(10):
            client.produce(topic, str(number), partition=number % 3, headers={"number": str(number)})
        assert client.flush(30) == 0
        end()
        broker.start()
    assert broker.ends(topic) == {(topic, 0): 8, (topic, 1): 6, (topic, 2): 6}
    messages = broker.read_all(topic)
    assert sorted(headers(message)["number"] for message in messages) == sorted([str(n) for n in range(10)] * 2)


def test_an_open_transaction_is_listed_and_not_read_and_lag_counts_its_marker(
    broker: Broker, fresh: Callable[[str], str]
) -> None:
    topic, name, group = fresh("t"), fresh("id"), fresh("g")
    broker.create(topic)
    client = producer(broker, **{"transactional.id": name})
    client.init_transactions(30)
    client.begin_transaction()
    client.produce(topic, b"1")
    assert client.flush(30) == 0
    assert broker.open_transactions() == {name: "Ongoing"}
    assert broker.read_all(topic) == []
    assert len(broker.read_all(topic, isolation="read_uncommitted")) == 1
    client.commit_transaction(30)
    wait_until(lambda: broker.open_transactions() == {}, "transaction completed")
    assert len(broker.read_all(topic)) == 1

    reader = Consumer({"bootstrap.servers": broker.servers, "group.id": group})
    reader.commit(offsets=[TopicPartition(topic, 0, 1, metadata="so far")], asynchronous=False)
    assert broker.committed(group, topic)[topic, 0].metadata == "so far"
    assert broker.lag(group, topic) == {(topic, 0): 1}  # the transaction's marker
    reader.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    assert broker.lag(group, topic) == {}
    reader.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_users_log_in_with_their_password_and_with_no_other(secured: Broker, mechanism: str) -> None:
    seen: list[int] = []
    for word in ("right", "wrong"):
        client = producer(
            secured,
            **{"bootstrap.servers": secured.sasl_servers, "security.protocol": "SASL_PLAINTEXT"},
            **{"sasl.mechanism": mechanism, "sasl.username": "alice", "sasl.password": word},
            error_cb=lambda error: seen.append(error.code()),
        )
        if word == "right":
            assert client.list_topics(timeout=30).brokers
            assert seen == []
        else:
            wait_until(lambda: client.poll(0.1) or KafkaError._AUTHENTICATION in seen, "refused")  # noqa: B023


@pytest.fixture(scope="module")
def secured(kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Broker:
    """A broker with a user, and with its data elsewhere."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "data"
    broker = Broker(users={"alice": "right"}, log_dir=elsewhere)
    try:
        yield broker.start()
        assert (elsewhere / "meta.properties").is_file()
    finally:
        broker.close()
    assert not Path(broker.folder).exists()
