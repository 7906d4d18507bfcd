"""Exactly once from one cluster to another: the group lives at the sink, and what happens to its topics is noticed."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broker import Broker
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from stage import PATIENCE, Stage, offsets
from tiny import environment, rbstream
from waiting import wait_until
from worker import variables

Fresh = Callable[[str], str]

AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
# For longer outages: RBSTREAM_TEST_OUTAGE=120.
OUTAGE_SECONDS = float(os.environ.get("RBSTREAM_TEST_OUTAGE", "0"))


@pytest.fixture(params=["classic", "consumer"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stage(broker: Broker, sink: Broker, bundle: Path, tmp_path: Path, fresh: Fresh) -> Iterator[Stage]:
    """Topics of this test's own: two partitions at the source, results at the sink."""
    made = Stage(broker, bundle, tmp_path, fresh("two"), sink=sink, partitions=2)
    yield made
    made.close()


def progress(stage: Stage, name: str = "in") -> str:
    return f"{stage.topic('group')}.progress.{stage.topic(name)}"


def group_lag(stage: Stage) -> dict[tuple[str, int], int]:
    """Offsets of the source's that the group at the sink has not committed."""
    prefix = progress(stage).removesuffix(stage.topic("in"))
    return stage.broker.lag(stage.topic("group"), stage.topic("in"), kept=stage.out, prefix=prefix)


def offsets_command(stage: Stage, *arguments: object) -> "tuple[int, str, str]":
    done = rbstream("offsets", *arguments, env=environment(**variables(stage.settings())))
    return done.returncode, done.stdout, done.stderr


def halts(stage: Stage, *words: str, **settings: object) -> None:
    """A worker that starts now ends with status 3 and says these words; nothing is written, and nothing committed."""
    before = footprint(stage)
    worker = stage.start(ready=False, name=f"halts-{len(stage.workers)}", **settings)
    assert worker.wait(PATIENCE) == 3
    text = worker.text()
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert footprint(stage) == before


def footprint(stage: Stage) -> object:
    """All that a worker leaves: messages, and the group's offsets at either cluster."""
    groups = [(stage.broker, stage.topic("in")), (stage.out, progress(stage))]
    offsets = {
        at: (mark.offset, mark.metadata)
        for cluster, topic in groups
        if _is_there(cluster, topic)
        for at, mark in cluster.committed(stage.topic("group"), topic).items()
    }
    return [len(stage.read(name)) for name in ("out", "dead", "scores")], offsets


def test_every_alert_goes_out_once_though_workers_are_killed(stage: Stage, packets: list[bytes], protocol: str) -> None:
    first = stage.start(source__group_protocol=protocol)
    stage.publish(packets[:20])
    stage.publish(packets[20:30], partition=1)
    wait_until(lambda: stage.scores(), "a first score", PATIENCE)
    first.kill()
    stage.publish(packets[30:40], partition=1)
    second = stage.start(source__group_protocol=protocol, name="second")
    scores = stage.await_scores(40)
    wait_until(lambda: not group_lag(stage), "lag 0", PATIENCE)
    assert second.stop() == 0
    assert [(score["partition"], score["offset"]) for score in scores] == [
        *((0, number) for number in range(20)),
        *((1, number) for number in range(20)),
    ]
    assert len(offsets(stage.read("out"))) == 40
    assert not stage.out.open_transactions()
    assert stage.out.read_all(progress(stage)) == []
    assert not stage.lag()  # the group at the source is told, too


def test_new_topics_and_partitions_at_the_source_are_mirrored_and_read_from_their_beginning(
    stage: Stage, packets: list[bytes], protocol: str
) -> None:
    stage.start(source__topics=[f"^{stage.word}_[0-9]+$"], source__group_protocol=protocol, ready=False)
    topic = f"{stage.word}_1"
    stage.broker.create(topic)
    stage.publish(packets[:3], topic)
    assert [score["topic"] for score in stage.await_scores(3)] == [topic] * 3
    stage.broker.grow(topic, 3)
    stage.publish(packets[3:6], topic, partition=2)
    assert [score["partition"] for score in stage.await_scores(6)] == [0, 0, 0, 2, 2, 2]


def test_two_workers_share_and_one_that_leaves_hands_over(stage: Stage, packets: list[bytes], protocol: str) -> None:
    one = stage.start(source__group_protocol=protocol, name="one", sink__transactional_id=stage.topic("one"))
    two = stage.start(source__group_protocol=protocol, name="two", sink__transactional_id=stage.topic("two"))
    stage.publish(packets[:20])
    stage.publish(packets[20:40], partition=1)
    stage.await_scores(40)
    assert one.stop() == 0
    stage.publish(packets[40:50])
    stage.publish(packets[50:60], partition=1)
    assert len(stage.await_scores(60)) == 60
    wait_until(lambda: not group_lag(stage), "lag 0", PATIENCE)
    assert two.stop() == 0


def test_a_committed_offset_that_was_deleted_at_the_source_halts_and_the_command_that_is_told_goes_on(
    stage: Stage, packets: list[bytes], protocol: str
) -> None:
    stage.publish(packets[:2])
    first = stage.start(source__group_protocol=protocol)
    assert len(stage.await_scores(2)) == 2
    assert first.stop() == 0
    stage.publish(packets[2:10])
    admin = AdminClient({"bootstrap.servers": stage.broker.servers})
    for future in admin.delete_records([TopicPartition(stage.topic("in"), 0, 5)]).values():
        future.result()
    command = f"offsets set {stage.topic('in')}/0 earliest"
    halts(stage, "3 alerts were deleted before they were read", f"rbstream {command}", source__group_protocol=protocol)
    assert group_lag(stage) == {(stage.topic("in"), 0): 8}
    assert offsets_command(stage, *command.split()[1:])[0] == 0
    stage.start(name="third", source__group_protocol=protocol)
    assert [score["offset"] for score in stage.await_scores(7)] == [0, 1, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("anew", "protocol"),
    [(False, "classic"), (True, "classic"), (True, "consumer")],
    ids=["deleted", "made anew, classic", "made anew, consumer"],
)
def test_a_progress_topic_that_is_deleted_halts_and_never_begins_anew(
    stage: Stage, packets: list[bytes], anew: bool, protocol: str
) -> None:
    # Nothing at the source tells that there was progress.
    quiet = {"source__report_progress": "false", "source__group_protocol": protocol}
    stage.publish(packets[:5])
    worker = stage.start(**quiet)
    stage.await_scores(5)
    stage.out.delete(progress(stage))
    if anew:
        wait_until(lambda: not _is_there(stage.out, progress(stage)), "the topic is gone")
        stage.out.create(progress(stage), partitions=2)
    assert worker.wait(PATIENCE) == 3
    told = f"progress topic {progress(stage)} was deleted"
    assert told in worker.text()
    halts(stage, told, **quiet)
    assert "0 offsets were taken over" in offsets_command(stage, "import")[1]
    halts(stage, told, **quiet)
    assert len(stage.scores()) == 5
    stage.publish(packets[20:21], partition=1)
    status, _, errors = offsets_command(stage, "set", f"{stage.topic('in')}/0", 5)
    assert status == 2
    assert f"these would begin anew: {stage.topic('in')}/1" in errors
    assert offsets_command(stage, "set", stage.topic("in"), "latest")[0] == 0
    stage.publish(packets[5:8])
    stage.start(name="third", **quiet)
    assert [score["offset"] for score in stage.await_scores(8)] == list(range(8))


def test_the_ledger_deleted_halts(stage: Stage, packets: list[bytes], protocol: str) -> None:
    stage.publish(packets[:2])
    first = stage.start(source__group_protocol=protocol)
    stage.await_scores(2)
    assert first.stop() == 0
    stage.publish(packets[2:4])
    stage.out.delete(f"{stage.topic('group')}.progress")
    halts(stage, "the ledger of progress topics", source__group_protocol=protocol)


def test_a_deployment_that_was_at_least_once_goes_on_where_it_was_once_that_is_asked_for(
    stage: Stage, packets: list[bytes]
) -> None:
    stage.publish(packets[:10])
    stage.publish(packets[10:14], partition=1)
    old = stage.start(delivery="at-least-once")
    stage.await_scores(14)
    wait_until(lambda: not stage.lag(), "lag 0 at the source", PATIENCE)
    status, _, errors = offsets_command(stage, "import")
    assert status == 1
    assert "stop all workers first" in errors
    assert old.stop() == 0
    stage.publish(packets[14:16])
    halts(stage, "rbstream offsets import")
    for arguments, told in [(("--dry-run",), "2 offsets would be taken over"), ((), "2 offsets were"), ((), "0 offs")]:
        status, said, errors = offsets_command(stage, "import", *arguments)
        assert status == 0, errors
        assert told in said
    stage.start(name="new")
    assert len(stage.await_scores(16)) == 16
    wait_until(lambda: not group_lag(stage), "lag 0", PATIENCE)
    (shown,) = [each for each in json.loads(offsets_command(stage, "show", "--json")[1]) if each["high"] == 12]
    assert (shown["committed"], shown["lag"]) == (12, 0)
    status, _, errors = offsets_command(stage, "set", stage.topic("in"), "earliest")
    assert status == 1
    assert "stop all workers first" in errors


def test_a_source_topic_that_was_made_anew_halts_until_it_is_said_where_to_begin(
    stage: Stage, packets: list[bytes], protocol: str
) -> None:
    stage.publish(packets[:5])
    first = stage.start(source__group_protocol=protocol)
    stage.await_scores(5)
    assert first.stop() == 0
    stage.broker.delete(stage.topic("in"))
    wait_until(lambda: not _is_there(stage.broker, stage.topic("in")), "the topic is gone")
    stage.broker.create(stage.topic("in"))
    stage.publish(packets[5:12])
    halts(stage, f"source topic {stage.topic('in')} was made anew", source__group_protocol=protocol)
    assert offsets_command(stage, "set", stage.topic("in"), "earliest")[0] == 0
    stage.start(name="third")
    assert len(stage.await_scores(12)) == 12


def test_what_an_at_least_once_worker_did_in_between_is_not_done_again(
    stage: Stage, packets: list[bytes], protocol: str
) -> None:
    for number, delivery in enumerate(["exactly-once", "at-least-once"]):
        stage.publish(packets[5 * number : 5 * number + 5])
        worker = stage.start(delivery=delivery, name=delivery, source__group_protocol=protocol)
        stage.await_scores(5 * number + 5)
        wait_until(lambda: not stage.lag(), "told at the source", PATIENCE)
        assert worker.stop() == 0
    halts(stage, "rbstream offsets import", source__group_protocol=protocol)
    assert "1 offsets were taken over" in offsets_command(stage, "import")[1]
    stage.publish(packets[10:12])
    stage.start(name="fourth")
    assert [score["offset"] for score in stage.await_scores(12)] == list(range(12))


def test_a_source_that_lets_us_have_no_group_is_read_all_the_same(
    bundle: Path, tmp_path: Path, sink: Broker, packets: list[bytes], fresh: Fresh, kafka: None
) -> None:
    source = Broker(AUTHORIZER)
    stage: Stage | None = None
    try:
        source.start()
        deny(source, (ResourceType.GROUP, "*", AclOperation.ALL))
        stage = Stage(source, bundle, tmp_path, fresh("denied"), sink=sink)
        stage.publish(packets[:5])
        worker = stage.start()
        assert len(stage.await_scores(5)) == 5
        assert "the source does not let us have a group" in worker.text()
        assert worker.stop() == 0
        assert offsets_command(stage, "show")[0] == 0
    finally:
        if stage is not None:
            stage.close()
        source.close()


def test_either_cluster_away_and_back_loses_and_doubles_nothing(
    broker: Broker, sink: Broker, stage: Stage, packets: list[bytes], protocol: str
) -> None:
    worker = stage.start(source__group_protocol=protocol)
    sent = 0
    for cluster in (sink, broker):
        heard = worker.text().count("brokers are down")
        stage.publish(packets)
        stage.await_scores(sent + 1)  # it is at work
        cluster.kill()
        wait_until(lambda: worker.text().count("brokers are down") > heard, "noticed", PATIENCE)  # noqa: B023
        time.sleep(OUTAGE_SECONDS)
        if cluster is sink:  # who publishes does not know
            stage.publish(packets[:10])
        cluster.start()
        stage.publish(packets[10:] if cluster is sink else packets)
        sent += 2 * len(packets)
        assert [score["offset"] for score in stage.await_scores(sent)] == list(range(sent))
    assert worker.running
    assert worker.stop() == 0


def test_without_the_right_to_make_topics_it_says_what_to_run(stage: Stage, kafka: None, packets: list[bytes]) -> None:
    sink = Broker(AUTHORIZER)
    try:
        sink.start()
        stage.sink = sink
        sink.create(stage.topic("out"), stage.topic("dead"), stage.topic("scores"))
        create = AclOperation.CREATE
        deny(sink, (ResourceType.BROKER, "kafka-cluster", create), (ResourceType.TOPIC, "*", create))
        worker = stage.start(ready=False)
        assert worker.wait(PATIENCE) == 1
        assert "kafka-topics.sh --bootstrap-server" in worker.text()
        assert "Traceback" not in worker.text()
    finally:
        sink.close()


def deny(broker: Broker, *what: tuple[ResourceType, str, AclOperation]) -> None:
    """Take some rights from everybody, and leave all others."""
    rules = []
    for kind, name, operation in what:
        for each, permission in ((AclOperation.ALL, AclPermissionType.ALLOW), (operation, AclPermissionType.DENY)):
            rules.append(AclBinding(kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", each, permission))
    if AclOperation.ALL in [operation for *_, operation in what]:
        rules = [rule for rule in rules if rule.permission_type == AclPermissionType.DENY]
    for future in broker.admin.create_acls(rules).values():
        future.result(30)


def _is_there(cluster: Broker, topic: str) -> bool:
    return topic in cluster.admin.list_topics(timeout=10).topics


def test_sigterm_while_alerts_come_ends_well(stage: Stage, packets: list[bytes]) -> None:
    worker = stage.start()
    stage.publish(packets * 5)
    wait_until(lambda: stage.scores(), "a first score", PATIENCE)
    worker.send(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    stage.start(name="second")
    assert [score["offset"] for score in stage.await_scores(len(packets) * 5)] == list(range(len(packets) * 5))
