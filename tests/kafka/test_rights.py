"""With the rights that docs/worker.md names, and no others, a worker works."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import Broker
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from stage import PATIENCE, Stage
from waiting import wait_until

Fresh = Callable[[str], str]
Right = tuple[ResourceType, str, ResourcePatternType, list[AclOperation]]

# Whoever comes without a name sets the stage.
GUARDED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
USERS = {"rbstream": "secret"}
LOGIN = {
    "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "rbstream",
    "sasl.password": "secret",
}  # fmt: skip
READ, WRITE, DESCRIBE = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE
TOPIC, GROUP, LITERAL = ResourceType.TOPIC, ResourceType.GROUP, ResourcePatternType.LITERAL


@pytest.fixture(scope="module")
def guarded(kafka: None) -> Iterator[Broker]:
    broker = Broker(GUARDED, USERS)
    try:
        yield broker.start()
    finally:
        broker.close()


@pytest.fixture(scope="module")
def guarded_sink(kafka: None) -> Iterator[Broker]:
    broker = Broker(GUARDED, USERS)
    try:
        yield broker.start()
    finally:
        broker.close()


def source_rights(stage: Stage) -> list[Right]:
    return [(TOPIC, stage.topic("in"), LITERAL, [READ, DESCRIBE]), (GROUP, stage.topic("group"), LITERAL, [READ])]


def sink_rights(stage: Stage) -> list[Right]:
    topics: list[Right] = [
        (TOPIC, stage.topic(name), LITERAL, [WRITE, DESCRIBE, AclOperation.DESCRIBE_CONFIGS])
        for name in ("out", "dead", "scores")
    ]
    return [*topics, (ResourceType.TRANSACTIONAL_ID, stage.topic("id"), LITERAL, [WRITE, DESCRIBE])]


def progress_rights(stage: Stage) -> list[Right]:
    operations = [AclOperation.CREATE, AclOperation.ALTER, DESCRIBE, READ, WRITE]
    return [
        (GROUP, stage.topic("group"), LITERAL, [READ]),
        (TOPIC, f"{stage.topic('group')}.progress", ResourcePatternType.PREFIXED, operations),
    ]


def grant(cluster: Broker, *rights: Right) -> None:
    allow = AclPermissionType.ALLOW
    bindings = [
        AclBinding(kind, name, pattern, "User:rbstream", "*", operation, allow)
        for kind, name, pattern, operations in rights
        for operation in operations
    ]
    for future in cluster.admin.create_acls(bindings).values():
        future.result(30)


def login(stage: Stage, **more: Any) -> dict[str, Any]:
    """Settings of one who has a name at both clusters."""
    for side, cluster in (("source", stage.broker), ("sink", stage.out)):
        more[f"{side}.bootstrap_servers"] = cluster.sasl_servers
        more |= {f"{side}.properties.{name}": value for name, value in LOGIN.items()}
    return more


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_within_one_cluster(
    guarded: Broker, bundle: Path, tmp_path: Path, packets: list[bytes], fresh: Fresh, delivery: str, protocol: str
) -> None:
    stage = Stage(guarded, bundle, tmp_path, fresh("guarded"))
    try:
        grant(guarded, *source_rights(stage), *sink_rights(stage))
        stage.publish(packets[:5])
        worker = stage.start(**login(stage, delivery=delivery, source__group_protocol=protocol))
        assert len(stage.await_scores(5)) == 5
        wait_until(lambda: not stage.lag(), "lag 0", PATIENCE)
        assert worker.stop() == 0
    finally:
        stage.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_between_two_clusters(
    guarded: Broker, guarded_sink: Broker, bundle: Path, tmp_path: Path, packets: list[bytes], fresh: Fresh,
    protocol: str,
) -> None:  # fmt: skip
    stage = Stage(guarded, bundle, tmp_path, fresh("guarded"), sink=guarded_sink)
    try:
        grant(guarded, *source_rights(stage)[:1])
        grant(guarded_sink, *sink_rights(stage), *progress_rights(stage))
        stage.publish(packets[:5])
        worker = stage.start(**login(stage, source__group_protocol=protocol))
        assert len(stage.await_scores(5)) == 5
        guarded.grow(stage.topic("in"), 2)
        stage.publish(packets[5:8], partition=1)
        assert len(stage.await_scores(8)) == 8
        assert worker.stop() == 0
    finally:
        stage.close()
