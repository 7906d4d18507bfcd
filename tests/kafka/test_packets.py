"""The packets that other tests publish are what they are said to be."""

import io
from collections import Counter

import fastavro
import pytest
from packets import MALFORMED, make_packets, templates

from rbstream.packet.alert import Origin, Packet, Rejected
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import ZTF
from rbstream.settings import Limits


def test_packets_are_unique_and_valid_ones_decode_to_the_simulated_alert_but_for_candid(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    base = templates(tmp_path_factory.mktemp("night"), alerts=20)
    made = list(make_packets(base, 300, malformed=0))
    candids, originals = set(), {template.object_id: template.content for template in base}
    for each in made:
        (record,) = fastavro.reader(io.BytesIO(each.content or b""))
        (original,) = fastavro.reader(io.BytesIO(originals[each.key.decode()]))
        candids.add(record["candid"])
        assert record["candidate"]["candid"] == record["candid"]
        original["candid"] = original["candidate"]["candid"] = record["candid"]
        assert record == original
    assert len(candids) == len(made)
    assert made == list(make_packets(base, 300, malformed=0))


def test_every_malformed_kind_comes_up_and_most_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = templates(tmp_path_factory.mktemp("night"), alerts=5)
    reader = PacketReader(ZTF, ("science", "template", "difference"), frozenset(), Limits())
    made = list(make_packets(base, 400, malformed=0.5))
    kinds = Counter(each.kind for each in made)
    assert kinds["valid"] == pytest.approx(200, abs=40)
    assert set(kinds) == {"valid", *MALFORMED}
    for each in made:
        items = list(reader.read(Packet(Origin("made"), each.content or b"")))
        assert len(items) == (2 if each.kind == "double" else 1)
        # What is wrong with a stamp shows when it is unzipped.
        if each.kind in ("truncated", "empty", "null", "not_avro", "wrong_sync"):
            assert all(isinstance(item, Rejected) for item in items), each.kind
