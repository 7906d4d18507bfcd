"""`rbstream dlq` on a real broker: dead letters are listed, explained, and injected again as they once came."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from board import IN_TRANSACTION, Board
from broker import Broker
from cluster import headers
from confluent_kafka import Producer
from tiny import environment
from waiting import wait_until
from worker import Worker, variables, worker_settings

from rbstream.commands.dlq import MEANINGS
from rbstream.errors import Rejection
from rbstream.kafka.dlq import Place
from rbstream.packet.alert import Origin, Rejected
from rbstream.pipeline import Outcome
from rbstream.worker.batcher import Message
from rbstream.worker.messages import Destinations, Encoder

Fresh = Callable[[str], str]
Here = Callable[..., tuple[object, str, str]]
LAUNCHER = Path(__file__).with_name("launcher.py")
# Not long ago: what is older than a topic's retention is deleted at once.
TIME = int(time.time()) * 1000 - 3_600_000


@dataclass
class Scene:
    """A topic of dead letters, and the one they came from."""

    broker: Broker
    here: Here
    names: dict[str, str]
    letters: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *arguments: object) -> tuple[object, str, str]:
        return self.here("dlq", *map(str, arguments))

    def add(self, number: int = 1, largest: int = 1 << 20, **changes: Any) -> None:
        """Dead letters as the worker writes them, of messages `b"not Avro <n>"` or as `changes` say."""
        encoder = Encoder(Destinations({}, self.names["dead"], None, {self.names["dead"]: largest}), "tiny1")
        producer = Producer({"bootstrap.servers": self.broker.servers, "log_level": 0})
        for n in range(self.letters, self.letters + number):
            stage, reason = changes.get("stage", "container"), changes.get("reason", "not_avro")
            value = changes.get("value", b"not Avro %d" % n)
            message = Message(self.names["in"], 1, n, b"ZTF%d" % n, value, TIME + n, [("survey", b"its own")])
            rejected = Rejected(Rejection(stage, reason, f"because {n}"), Origin("x"), value)
            _, (letter,) = encoder.encode(message, Outcome("rejected", rejected, reason))
            producer.produce(
                letter.topic, letter.value, letter.key, changes.get("partition", n % 2),
                headers=letter.headers, timestamp=letter.timestamp,
            )  # fmt: skip
        self.letters += number
        assert producer.flush(30) == 0

    def injected(self, topic: str | None = None) -> Counter[bytes]:
        return Counter(message.value() or b"" for message in self.broker.read(topic or self.names["in"]))


@pytest.fixture
def scene(broker: Broker, here: Here, fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> Scene:
    names = {word: fresh(f"dlq-{word}") for word in ("in", "dead", "group")}
    broker.create(names["in"], names["dead"], partitions=2)
    settings = {
        "source.bootstrap_servers": broker.servers,
        "source.group_id": names["group"],
        "sink.dead_letters": names["dead"],
    }
    for name, value in variables(settings).items():
        monkeypatch.setenv(name, value)
    return Scene(broker, here, names, settings=settings)


def test_dead_letters_are_listed_with_counts_by_reason(scene: Scene) -> None:
    scene.add(3)
    scene.add(1, stage="record", reason="record")
    status, told, _ = scene("ls")
    assert status == 0
    lines = told.splitlines()
    assert lines[0].split() == ["place", "rejected", "stage", "reason", "key", "source", "bytes"]
    assert len(lines) == 6
    assert lines[-1] == f"4 dead letters in {scene.names['dead']}: 3 not_avro, 1 record"
    assert any(line.split()[0] == "1/1" and f"ZTF3  {scene.names['in']}/1/3[0]" in line for line in lines)


def test_an_empty_topic_has_no_dead_letters(scene: Scene) -> None:
    assert scene("ls")[:2] == (0, f"0 dead letters in {scene.names['dead']}\n")


def test_the_list_as_json_says_the_same(scene: Scene) -> None:
    scene.add(2)
    status, told, _ = scene("ls", "--json")
    listed = json.loads(told)
    assert (status, listed["counts"]) == (0, {"not_avro": 2})
    assert {row["place"] for row in listed["dead_letters"]} == {"0/0", "1/0"}
    (row,) = (row for row in listed["dead_letters"] if row["key"] == "ZTF1")
    assert row["source"] == f"{scene.names['in']}/1/1[0]"
    assert (row["stage"], row["reason"], row["detail"], row["bytes"]) == ("container", "not_avro", "because 1", 10)


def test_the_list_is_narrowed_by_reason_stage_age_and_number(scene: Scene) -> None:
    scene.add(3)
    scene.add(2, stage="cutout", reason="too_large")

    def places(*arguments: object) -> int:
        return len(json.loads(scene("ls", "--json", *arguments)[1])["dead_letters"])

    assert places("--reason", "too_large") == 2
    assert places("--stage", "container") == 3
    assert places("--stage", "container", "--reason", "too_large") == 0
    assert places("--since", "1h") == 5
    assert places("--since", "0s") == 0
    assert places("--limit", "2") == 2
    assert places("--limit", "0") == 5
    assert json.loads(scene("ls", "--json", "--limit", "1")[1])["counts"] == {"not_avro": 3, "too_large": 2}


def test_letters_that_a_transaction_took_back_are_not_there(scene: Scene) -> None:
    scene.add(1, partition=0)
    producer = Producer({"bootstrap.servers": scene.broker.servers, "transactional.id": scene.names["group"]})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(scene.names["dead"], b"taken back", partition=0)
    producer.flush(30)
    producer.abort_transaction()
    assert "1 dead letters" in scene("ls")[1]
    status, _, errors = scene("show", "0/1")
    assert (status, "has no dead letter 0/1" in errors) == (2, True)


def test_a_dead_letter_is_explained_saved_and_read_again(scene: Scene, packets: list[bytes], bundle: Path) -> None:
    scene.add(1, value=b"\x1f\x8bzipped, not Avro\x1b[31m")
    status, told, _ = scene("show", "0/0", "--save", "letter.bin", "--set", f"model.bundle={bundle}")
    assert status == 0
    assert Path("letter.bin").read_bytes() == b"\x1f\x8bzipped, not Avro\x1b[31m"
    for part in (
        f"{scene.names['dead']} 0/0: 23 bytes, key ZTF0",
        f"rbstream.source.topic      {scene.names['in']}  (topic it came from)",
        "survey                     its own  (the message's own header)",
        "what it means: The bytes don't begin as an Avro object container does.",
        "what to do:    See the first bytes",
        "0000  1f 8b 7a 69 70 70 65 64",
        "..zipped, not Av",
        "rejected: container not_avro: starts with 1f 8b",
    ):
        assert part in told, told
    assert "\x1b" not in told


def test_a_dead_letter_that_can_be_read_by_now_says_what_becomes_of_it(
    scene: Scene, packets: list[bytes], bundle: Path
) -> None:
    scene.add(1, value=packets[0])
    status, told, _ = scene("show", "0/0", "--json", "--set", f"model.bundle={bundle}", "--set", "filter.threshold=0")
    shown = json.loads(told)
    assert status == 0
    (line,) = shown["read_again"]
    assert line.startswith("passed: ZTF")
    assert shown["headers"]["rbstream.reason"] == "not_avro"
    assert bytes.fromhex(shown["first_bytes"]) == packets[0][:128]


def test_each_header_that_a_worker_writes_is_explained(scene: Scene) -> None:
    scene.add(1)
    scene.add(1, largest=1000, value=bytes(2000))
    written = {name for message in scene.broker.read(scene.names["dead"]) for name, _ in message.headers() or []}
    assert {f"rbstream.{name}" for name in MEANINGS} == {name for name in written if name.startswith("rbstream.")}


def test_a_dead_letter_is_shown_also_where_it_cannot_be_read_again(scene: Scene, tmp_path: Path) -> None:
    scene.add(1)
    status, told, _ = scene("show", "0/0", "--set", f"model.bundle={tmp_path / 'none.pt'}")
    assert status == 0
    assert "what to do" in told
    assert "can't be read here: " in told


@pytest.mark.parametrize("place", ["0/9", "7/0", "1/0"])
def test_a_place_without_a_dead_letter_is_told(scene: Scene, place: str) -> None:
    scene.add(1, partition=0)
    status, _, errors = scene("show", place)
    assert status == 2
    assert f"has no dead letter {place}" in errors
    status, _, errors = scene("replay", "0/0", place)
    assert status == 2
    assert not scene.injected()


@pytest.mark.parametrize("place", ["", "0", "0/", "/1", "0/-1", "a/b", "0/1/2", "٣/1"])
def test_what_is_no_place_is_refused(here: Here, place: str) -> None:
    status, _, errors = here("dlq", "show", place)
    assert status == 2
    assert "PARTITION/OFFSET" in errors
    with pytest.raises(ValueError, match="PARTITION/OFFSET"):
        Place.parse(place)


def test_injected_again_messages_are_what_they_were(scene: Scene) -> None:
    scene.add(1)
    status, told, _ = scene("replay")
    assert (status, told) == (0, f"1 dead letters injected: 1 into {scene.names['in']}\n")
    (message,) = scene.broker.read_all(scene.names["in"])
    assert (message.key(), message.value(), message.timestamp()[1]) == (b"ZTF0", b"not Avro 0", TIME)
    assert headers(message) == {"survey": "its own", "rbstream.replayed": f"{scene.names['dead']}/0/0"}


def test_without_a_choice_each_dead_letter_is_taken_up_once(scene: Scene) -> None:
    scene.add(250)
    assert scene("replay")[0] == 0
    assert scene.injected() == Counter(b"not Avro %d" % n for n in range(250))
    assert scene("replay")[1] == "0 dead letters injected\n"
    scene.add(3)
    assert scene("replay")[1].startswith("3 dead letters injected")
    assert scene.injected() == Counter(b"not Avro %d" % n for n in range(253))


def test_a_replay_that_is_killed_at_any_step_injects_each_once_when_it_is_called_again(
    scene: Scene, tmp_path: Path
) -> None:
    path = tmp_path / "board"
    board = Board(path)
    command = [sys.executable, str(LAUNCHER), str(path), "rbstream", "dlq", "replay"]
    for number, step in enumerate(IN_TRANSACTION, 1):
        scene.add(3)
        board.order(step, signal.SIGKILL)
        killed = subprocess.run(command, env=environment(**variables(scene.settings)), timeout=120, check=False)
        assert board.obeyed == number, step
        assert killed.returncode == -signal.SIGKILL or step == "committing"  # which it may just have been through with
    assert scene("replay")[0] == 0
    assert scene.injected() == Counter(b"not Avro %d" % n for n in range(scene.letters))
    assert scene("replay")[1] == "0 dead letters injected\n"


def test_what_is_chosen_is_injected_as_often_as_it_is_asked_for(scene: Scene) -> None:
    scene.add(2, partition=0)
    scene.add(1, partition=0, stage="record", reason="record")
    for arguments, expected in [
        (("0/1",), {b"not Avro 1": 1}),
        (("0/1", "0/2"), {b"not Avro 1": 2, b"not Avro 2": 1}),
        (("--reason", "record"), {b"not Avro 1": 2, b"not Avro 2": 2}),
        (("--all",), {b"not Avro 0": 1, b"not Avro 1": 3, b"not Avro 2": 3}),
    ]:
        status, told, _ = scene("replay", *arguments)
        assert status == 0
        assert "count as not taken up" in told
        assert scene.injected() == Counter(expected)
    assert scene("replay")[1].startswith("3 dead letters injected")
    assert scene("replay", "0/1", "--all")[0] == 2


def test_another_topic_can_be_named(scene: Scene, fresh: Fresh) -> None:
    topic = fresh("elsewhere")
    scene.add(2)
    status, _, errors = scene("replay", "--to", topic)
    assert status == 1
    assert f"has no topic {topic}" in errors
    scene.broker.create(topic)
    assert scene("replay", "--to", topic)[0] == 0
    assert scene.injected(topic).total() == 2
    assert not scene.injected()


def test_a_topic_that_is_gone_is_told_and_nothing_is_taken_up(scene: Scene) -> None:
    scene.add(2)
    gone, scene.names["in"] = scene.names["in"], "no-such-topic"
    scene.add(1)
    status, _, errors = scene("replay")
    assert status == 1
    assert "has no topic no-such-topic" in errors
    assert "--to" in errors
    assert not scene.injected(gone)


def test_what_its_topic_would_delete_at_once_is_refused(scene: Scene, fresh: Fresh) -> None:
    scene.add(1)
    short, long = fresh("short"), fresh("long")
    scene.broker.create(short, retention_ms=1_800_000)
    scene.broker.create(long, retention_ms=-1)
    status, _, errors = scene("replay", "--to", short)
    assert status == 1
    assert f"topic {short} deletes what is older than 30min" in errors
    assert scene("replay", "--to", long)[1].startswith("1 dead letters injected")


def test_across_two_clusters_how_far_it_got_is_kept_where_the_dead_letters_are(
    scene: Scene, kafka: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Broker()
    try:
        sink.start()
        sink.create(scene.names["dead"], partitions=2)
        monkeypatch.setenv("RBSTREAM_SINK__BOOTSTRAP_SERVERS", sink.servers)
        source, scene.broker = scene.broker, sink
        scene.add(150)
        assert scene("replay")[1].startswith("150 dead letters injected")
        assert scene("replay")[1] == "0 dead letters injected\n"
        assert {message.value() for message in source.read(scene.names["in"])} == {
            b"not Avro %d" % n for n in range(150)
        }
        assert (
            sum(at.offset for at in sink.committed(f"{scene.names['group']}.dlq", scene.names["dead"]).values()) == 150
        )
    finally:
        sink.close()


def test_a_dry_run_says_what_would_be_done_and_does_nothing(scene: Scene) -> None:
    scene.add(3)
    for _ in range(2):
        assert scene("replay", "--dry-run")[1] == f"3 dead letters would be injected: 3 into {scene.names['in']}\n"
    assert not scene.injected()


def test_those_of_which_only_a_hash_is_left_are_told_and_passed_over(scene: Scene) -> None:
    scene.add(1, partition=0, largest=1000, value=bytes(2000))
    scene.add(1, partition=0)
    assert "hash only" in scene("ls")[1]
    assert "what to do" in scene("show", "0/0")[1]
    status, told, _ = scene("replay")
    assert status == 0
    assert f"0/0 left: only its hash is left; the message was {scene.names['in']}/1/0[0]" in told
    assert scene.injected() == Counter([b"not Avro 1"])
    status, _, errors = scene("replay", "0/0")
    assert status == 1
    assert "1 of the dead letters asked for could not be injected" in errors


def test_messages_of_others_in_the_topic_are_listed_and_left(scene: Scene) -> None:
    producer = Producer({"bootstrap.servers": scene.broker.servers})
    producer.produce(scene.names["dead"], None, headers={"rbstream.reason": b"\xff\xfe", "rbstream.processed": "late"})
    producer.produce(scene.names["dead"], b"hello", key=b"\xff[red]\x1b[31m")
    producer.produce(scene.names["dead"], b"when?", headers={"rbstream.source.timestamp": b"9" * 30})
    assert producer.flush(30) == 0
    status, told, _ = scene("ls")
    assert (status, "\x1b" in told) == (0, False)
    assert "[red]" in told
    status, told, _ = scene("replay")
    assert status == 0
    assert told.count("left: no rbstream.source.topic") == 3
    assert scene("replay", "--all", "--to", scene.names["in"])[1].startswith("3 dead letters injected")
    assert scene.injected() == Counter([b"", b"hello", b"when?"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_replay_that_is_stopped_finishes_its_batch_and_says_how_far_it_got(
    scene: Scene, tmp_path: Path, number: signal.Signals
) -> None:
    scene.add(120)
    path = tmp_path / "board"
    Board(path).order("sending", number)
    command = [sys.executable, str(LAUNCHER), str(path), "rbstream", "dlq", "replay"]
    done = subprocess.run(
        command, env=environment(**variables(scene.settings)), timeout=120, capture_output=True, text=True, check=False
    )
    told = f"100 dead letters injected: 100 into {scene.names['in']}\n"
    assert (done.returncode, done.stdout) == (128 + number, told), done.stderr
    assert not scene.broker.open_transactions()
    assert scene("replay")[1].startswith("20 dead letters injected")
    assert set(scene.injected().values()) == {1}


def test_settings_that_are_missing_are_named(here: Here) -> None:
    for arguments, words in [
        (("ls",), "sink.dead_letters is not set"),
        (("ls", "--topic", "t"), "source.bootstrap_servers is not set"),
        (("replay", "--topic", "t"), "source.bootstrap_servers is not set"),
        (("ls", "--since", "yesterday"), "--since"),
        (("ls", "--limit", "-1"), "--limit"),
    ]:
        status, _, errors = here("dlq", *arguments)
        assert (status, words in errors) == (2, True), (arguments, errors)


def test_a_topic_that_is_not_there_is_told(scene: Scene) -> None:
    status, _, errors = scene("ls", "--topic", "no-such-topic")
    assert status == 1
    assert "has no topic no-such-topic" in errors


def test_what_a_worker_rejected_passes_once_the_cause_is_mended(
    scene: Scene, broker: Broker, fresh: Fresh, tmp_path: Path, bundle: Path, packets: list[bytes]
) -> None:
    """Framed packets of a schema that nobody has, until somebody adds it."""
    from rbstream.packet.container import read_blocks, read_header
    from rbstream.settings import Limits

    names = scene.names | {word: fresh(word) for word in ("out", "scores", "id")}
    broker.create(names["out"], names["scores"])
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    header = read_header(packets[0], Limits())
    producer = Producer({"bootstrap.servers": broker.servers})
    for packet in packets[:5]:
        (block,) = read_blocks(packet, header.length, header, Limits())
        producer.produce(names["in"], b"\x00\x00\x00\x00\x09" + block.data[block.start : block.end])
    assert producer.flush(30) == 0
    settings = worker_settings(broker.servers, bundle, names, filter__threshold=0, rejects__max_ratio=1)
    worker = Worker(tmp_path / "worker", settings | {"source.schemas": schemas})
    try:
        wait_until(lambda: len(broker.read_all(names["dead"])) == 5, "five dead letters", 60)
        assert "5 dead letters" in scene("ls", "--reason", "schema_id")[1]
        (schemas / "9.avsc").write_bytes(header.schema)
        again = scene(
            "show", "0/0", "--set", f"source.schemas={schemas}", "--set", f"model.bundle={bundle}",
            "--set", "filter.threshold=0",
        )  # fmt: skip
        assert "passed: ZTF" in again[1]
        assert scene("replay")[1].startswith("5 dead letters injected")
        wait_until(lambda: len(broker.read_all(names["out"])) == 5, "five alerts that passed", 60)
        assert worker.stop() == 0
    finally:
        if worker.running:
            worker.kill()
    assert len(broker.read_all(names["dead"])) == 5
