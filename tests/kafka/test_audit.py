"""`rbstream audit` on what a worker really wrote, and on topics in which something was removed, doubled or forged."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from broker import Broker
from confluent_kafka import Message, Producer
from stage import PATIENCE, Stage, record
from tiny import environment, rbstream
from waiting import wait_until
from worker import variables

Fresh = Callable[[str], str]


@pytest.fixture(scope="module", params=["one cluster", "two clusters"])
def scene(
    request: pytest.FixtureRequest,
    broker: Broker,
    sink: Broker,
    bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
    packets: list[bytes],
) -> Iterator[Stage]:
    """Thirty alerts of which a worker passed some, and two messages that are none."""
    two = request.param == "two clusters"
    word = request.param.replace(" ", "-")
    stage = Stage(
        broker, bundle, tmp_path_factory.mktemp("night"), f"audit-{word}", sink if two else None, partitions=2
    )
    worker = stage.start(filter__threshold=0.5, rejects__max_ratio=1)
    stage.publish(packets[:20])
    stage.publish([b"junk", packets[20][:1000], *packets[20:30]], partition=1)
    stage.await_scores(32)
    assert worker.stop() == 0
    yield stage
    stage.close()


def audit(stage: Stage, *arguments: object, **changes: Any) -> tuple[int, dict[str, Any]]:
    """Its status, and what it says as JSON."""
    settings = stage.settings(**changes)
    done = rbstream("audit", "--json", *arguments, env=environment(**variables(settings)))
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def kinds(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["where"], each["what"]) for each in found["differences"]]


def copied(stage: Stage, name: str, messages: list[Message], fresh: Fresh, more: list[dict[str, Any]]) -> str:
    """A topic that holds these, as they are, and some more."""
    topic = fresh(f"{stage.word}-{name}")
    stage.out.create(topic)
    producer = Producer({"bootstrap.servers": stage.out.servers})
    for message in messages:
        producer.produce(
            topic, message.value(), message.key(), headers=message.headers(), timestamp=message.timestamp()[1]
        )
    for each in more:
        producer.produce(topic, **each)
    assert producer.flush(30) == 0
    return topic


def place(message: Message) -> str:
    said = {name: value.decode() for name, value in message.headers() or []}
    return "{}/{}/{}[{}]".format(
        *(said[f"rbstream.source.{name}"] for name in ("topic", "partition", "offset", "record"))
    )


def forged(message: Message, value: bytes | None = None, **headers: str) -> dict[str, Any]:
    """As a message, with other headers."""
    changed = {f"rbstream.{name.replace('__', '.')}": text.encode() for name, text in headers.items()}
    said = [(name, changed.get(name, old)) for name, old in message.headers() or []]
    return {
        "value": value or message.value(),
        "key": message.key(),
        "headers": said,
        "timestamp": message.timestamp()[1],
    }


def test_what_a_worker_wrote_has_no_difference(scene: Stage) -> None:
    status, found = audit(scene)
    passed = len(scene.read("out"))
    assert (status, found["differences"], found["warnings"], found["waiting"]) == (0, [], [], 0)
    assert 0 < passed < 30
    assert found["counts"] == {
        "messages": 32, "alerts": 32, "passed": passed, "filtered": 30 - passed, "rejected": 2,
        f"in {scene.topic('out')}": passed, "in the dead letters": 2,
    }  # fmt: skip
    told = rbstream("audit", env=environment(**variables(scene.settings())))
    assert told.returncode == 0
    assert "no difference: nothing lost, nothing twice" in told.stdout


def test_one_output_removed_one_doubled_and_one_forged_are_named_and_no_other(scene: Stage, fresh: Fresh) -> None:
    outputs = scene.read("out")
    scores = {(score["partition"], score["offset"]): score for score in scene.scores()}
    filtered = next(score for score in scores.values() if score["verdict"] == "filtered")
    removed, doubled, model = outputs[0], outputs[1], outputs[2]
    forgery = forged(model, source__partition=str(filtered["partition"]), source__offset=str(filtered["offset"]))
    topic = copied(scene, "out", outputs[1:], fresh, [forged(doubled), forgery])
    status, found = audit(scene, sink__topic=topic)
    where = f"{filtered['topic']}/{filtered['partition']}/{filtered['offset']}[0]"
    assert status == 1
    assert sorted(set(kinds(found))) == sorted(
        [
            (place(removed), "passed, and in no output"),
            (place(doubled), f"more than once in {topic}"),
            (where, f"in {topic}, and not passed"),
            (where, f"another drb in {topic} than in the scores"),
            (where, f"another candid in {topic} than in the scores"),
        ]
    )


def test_a_stretch_without_messages_is_told_from_one_without_differences(scene: Stage) -> None:
    status, found = audit(scene, f"{scene.topic('in')}/0/9000-9009")
    (warning,) = found["warnings"]
    assert (status, found["counts"]["messages"]) == (0, 0)
    assert "nothing to compare" in warning
    assert scene.topic("in") in warning


def test_topics_that_nothing_matches_are_told(scene: Stage) -> None:
    settings = variables(scene.settings(source__topics=["^none_like_this$"]))
    done = rbstream("offsets", "show", env=environment(**settings))
    assert done.returncode == 0
    assert "no topic is there that matches source.topics: ^none_like_this$" in done.stderr


def test_what_somebody_else_wrote_is_told_by_what_it_lacks(scene: Stage, fresh: Fresh) -> None:
    outputs = scene.read("out")
    bare = {"value": outputs[0].value(), "timestamp": outputs[0].timestamp()[1]}
    _, found = audit(scene, sink__topic=copied(scene, "out", outputs, fresh, [bare]))
    (difference,) = found["differences"]
    assert difference["detail"] == "it has no header rbstream.source.partition"


@pytest.mark.parametrize(
    ("headers", "value", "what"),
    [
        ({"source__offset": "1000"}, None, "in {topic}, of an offset that is not there"),
        ({"source__topic": "elsewhere"}, None, "in {topic}, and not scored"),
        ({"drb": "0.123"}, None, "another drb in {topic} than in the scores"),
        ({"source__offset": "x"}, None, "in {topic}, and not as rbstream writes it"),
        ({}, b"nothing", "in {topic}, and not as rbstream writes it"),
    ],
    ids=["no such offset", "no such topic", "another score", "no coordinates", "no packet"],
)
def test_a_forgery_is_named(
    scene: Stage, fresh: Fresh, headers: dict[str, str], value: bytes | None, what: str
) -> None:
    outputs = scene.read("out")
    topic = copied(scene, "out", outputs, fresh, [forged(outputs[0], value, **headers)])
    status, found = audit(scene, sink__topic=topic)
    assert status == 1
    assert what.format(topic=topic) in [kind for _, kind in kinds(found)]
    assert {kind for _, kind in kinds(found)} <= {what.format(topic=topic), f"more than once in {topic}"}


def test_scores_and_dead_letters_that_are_missing_are_named(scene: Stage, fresh: Fresh) -> None:
    scores, dead = scene.read("scores"), scene.read("dead")
    kept = [message for message in scores if record(message)["offset"] != 7]
    lost = [(f"{scene.topic('in')}/{number}/7", "without a score") for number in (0, 1)]
    topic = copied(scene, "scores", kept, fresh, [])
    status, found = audit(scene, sink__scores=topic, sink__dead_letters=copied(scene, "dead", dead[1:], fresh, []))
    assert status == 1
    assert set(lost) < set(kinds(found))
    assert (place(dead[0]), "rejected, and not in the dead letters") in kinds(found)
    others = {kind for where, kind in kinds(found) if "/7" not in where and where != place(dead[0])}
    assert others == set()


def test_a_stretch_of_time_is_looked_at_alone(scene: Stage, packets: list[bytes], fresh: Fresh) -> None:
    status, found = audit(scene, "--to", "1h")
    assert (status, found["counts"]["messages"], found["waiting"]) == (0, 0, 0)
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    status, found = audit(scene, "--from", "1h", "--to", soon)
    assert (status, found["counts"]["messages"]) == (0, 32)
    status, found = audit(scene, "--from", soon)
    assert (status, found["counts"]["messages"]) == (0, 0)


def test_offsets_are_looked_at_alone(scene: Stage, fresh: Fresh) -> None:
    outputs = scene.read("out")
    topic = copied(scene, "out", outputs[1:], fresh, [])
    number, offset = (int(part) for part in place(outputs[0]).removesuffix("[0]").split("/")[1:])
    stretch = f"{scene.topic('in')}/{number}/{{}}-{{}}"
    status, found = audit(scene, stretch.format(offset, offset), sink__topic=topic)
    assert (status, kinds(found)) == (1, [(place(outputs[0]), "passed, and in no output")])
    assert found["counts"]["messages"] == 1
    status, found = audit(scene, stretch.format(offset + 1, 100), sink__topic=topic)
    assert (status, found["differences"], found["waiting"]) == (0, [], 0)


@pytest.mark.parametrize(
    "arguments", [["elsewhere/0/1-2"], ["x/0/2-1"], ["x/0"], ["--from", "yesterday"], ["x/0/1-2", "--from", "1h"]]
)
def test_what_cannot_be_looked_at_is_wrong_usage(scene: Stage, arguments: list[str]) -> None:
    done = rbstream("audit", *arguments, env=environment(**variables(scene.settings())))
    assert (done.returncode, done.stdout) == (2, "")


def test_what_is_not_yet_taken_is_no_difference(
    broker: Broker, bundle: Path, tmp_path: Path, packets: list[bytes], fresh: Fresh
) -> None:
    stage = Stage(broker, bundle, tmp_path, fresh("audit"))
    try:
        stage.publish(packets[:5])
        status, found = audit(stage)
        assert (status, found["waiting"], found["counts"]["messages"]) == (0, 5, 0)
        worker = stage.start()
        stage.await_scores(5)
        wait_until(lambda: not stage.lag(), "lag 0", PATIENCE)
        assert worker.stop() == 0
        stage.publish(packets[5:7])
        status, found = audit(stage)
        assert (status, found["waiting"], found["counts"]["messages"]) == (0, 2, 5)
    finally:
        stage.close()


def test_without_a_scores_topic_it_says_what_to_set() -> None:
    done = rbstream("audit", "--bootstrap-servers", "127.0.0.1:1", "--topics", "in")
    assert done.returncode == 2
    assert "sink.scores" in done.stderr
