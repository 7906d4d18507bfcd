"""`rbstream replay` as it is called: the same bytes from any number of processes, counts that add up."""

import csv
import gzip
import json
import os
import subprocess
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import RBSTREAM, environment, rbstream, records, write_tar

COLUMNS = ["candid", "objectId", "drb_upstream", "drb", "drbversion", "verdict", "file", "record"]


def replay(bundle: Path, *arguments: object, jobs: int = 1, **options: Any) -> dict[str, Any]:
    """What a replay that ends well says in JSON."""
    done = rbstream("replay", "--json", "--model", bundle, "--device", "cpu", "--jobs", jobs, *arguments, **options)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    assert summary["in"] == summary["passed"] + summary["filtered"] + sum(summary["rejected"].values())
    return summary


def table(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def renamed(packet: bytes) -> bytes:
    """The packet under another schema text: a container of its own in the output."""
    reader = fastavro.reader(BytesIO(packet))
    schema: Any = reader.writer_schema
    schema["doc"] = "another version"
    buffer = BytesIO()
    fastavro.writer(buffer, schema, list(reader), codec="deflate")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, packets: list[bytes], night: Path) -> list[Path]:
    """A folder of packets good and bad of two schemas, a tar with a cut end, a container."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "files").mkdir()
    for number, packet in enumerate(packets[:12]):
        content = (packet, renamed(packet), packet[:-9], b"garbage")[number % 4]
        (folder / "files" / f"{number:02}.avro").write_bytes(content)
    tar = write_tar(folder / "night.tar.gz", [(f"{n}.avro", p) for n, p in enumerate(packets * 5)], "w:gz")
    cut = write_tar(folder / "cut.tar", [(f"{n}.avro", p) for n, p in enumerate(packets[:9])])
    cut.write_bytes(cut.read_bytes()[:-60_000])
    return [folder / "files", tar, cut, night]


def test_any_number_of_processes_writes_the_same_bytes(bundle: Path, inputs: list[Path], tmp_path: Path) -> None:
    written = []
    for jobs in (1, 2, 3):
        folder = tmp_path / str(jobs)
        names = {"-o": "out.avro", "--scores": "scores.csv", "--rejects": "rejects.avro"}
        flags = [x for flag, name in names.items() for x in (flag, folder / name)]
        summary = replay(bundle, *inputs, *flags, jobs=jobs)
        assert summary["rejected"] == {"truncated": 3, "not_avro": 3, "tar": 1}
        assert [Path(path).name for path in summary["outputs"]] == ["out.avro", "out.2.avro"]
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0].keys() == {"out.avro", "out.2.avro", "scores.csv", "rejects.avro"}
    assert written[0] == written[1] == written[2]


def test_the_summary_has_the_documented_keys(bundle: Path, night: Path) -> None:
    summary = replay(bundle, night)
    assert summary.keys() == {
        "in", "passed", "filtered", "rejected", "outputs", "scores", "rejects", "report", "seconds",
        "alerts_per_second", "device", "model", "precision", "threshold", "where", "jobs", "histogram",
    }  # fmt: skip
    assert summary["in"] == sum(summary["histogram"]["alerts"]) == 60
    assert (summary["device"], summary["outputs"], summary["scores"]) == ("cpu", [], None)


def test_the_summary_for_people_says_the_same(bundle: Path, night: Path, tmp_path: Path) -> None:
    out = tmp_path / ("a" * 100) / "out.avro"
    done = rbstream("replay", night, "--model", bundle, "--device", "cpu", "--jobs", 1, "-o", out)
    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("in", "passed", "filtered", "rejected", "drb >= 0.5"):
        assert word in done.stdout
    assert f"output: {out}\n" in done.stdout


def test_what_passes_is_the_input_with_the_new_score(bundle: Path, night: Path, tmp_path: Path) -> None:
    replay(bundle, night, "-o", tmp_path / "out.avro", "--scores", tmp_path / "s.csv")
    rows = table(tmp_path / "s.csv")
    originals = {record["candid"]: record for record in records(night)}
    assert [int(row["candid"]) for row in rows] == list(originals)
    passed = {int(row["candid"]): row for row in rows if row["verdict"] == "passed"}
    assert all((float(row["drb"]) >= 0.5) == (row["verdict"] == "passed") for row in rows)
    written = records(tmp_path / "out.avro")
    assert [record["candid"] for record in written] == list(passed)
    for record in written:
        original, candidate = originals[record["candid"]], record["candidate"]
        assert f"{candidate.pop('drb'):.9g}" == passed[record["candid"]]["drb"]
        assert candidate.pop("drbversion") == "tiny1"
        assert candidate.pop("drb_upstream") == original["candidate"]["drb"]
        assert candidate.pop("drbversion_upstream") == original["candidate"]["drbversion"]
        same = {k: v for k, v in original["candidate"].items() if k not in ("drb", "drbversion")}
        np.testing.assert_equal(record | {"candidate": candidate}, original | {"candidate": same})


def test_the_scores_are_the_same_in_csv_and_parquet(bundle: Path, inputs: list[Path], tmp_path: Path) -> None:
    replay(bundle, *inputs, "--scores", tmp_path / "s.csv")
    replay(bundle, *inputs, "--scores", tmp_path / "s.parquet")
    rows, columns = table(tmp_path / "s.csv"), pq.read_table(tmp_path / "s.parquet")
    assert list(rows[0]) == columns.column_names == COLUMNS
    assert str(columns.schema.field("candid").type) == "int64"
    for row, other in zip(rows, columns.to_pylist(), strict=True):
        assert row["candid"] == ("" if other["candid"] is None else str(other["candid"]))
        assert (row["verdict"], row["file"], row["record"]) == (
            other["verdict"], other["file"], str(other["record"])
        )  # fmt: skip
        if other["drb"] is not None:
            assert np.float32(row["drb"]) == np.float32(other["drb"])
    members = [row["file"] for row in rows if "night.tar.gz" in row["file"]]
    assert members[:2] == [f"{inputs[1]}:0.avro", f"{inputs[1]}:1.avro"]


@pytest.mark.parametrize("kind", ["avro", "tar", "tar.gz"])
def test_standard_input_may_come_in_drops(
    bundle: Path, night: Path, packets: list[bytes], tmp_path: Path, kind: str
) -> None:
    members = [(f"{number}.avro", packet) for number, packet in enumerate(packets)]
    mode = "w:gz" if kind == "tar.gz" else "w"
    path = night if kind == "avro" else write_tar(tmp_path / "n", members, mode)
    command = [*RBSTREAM, "replay", "-", "--json", "--model", str(bundle), "--device", "cpu", "--jobs", "2"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    assert process.stdin is not None
    assert process.stdout is not None
    content = path.read_bytes()
    for start, end in [(i, i + 100) for i in range(0, 3000, 100)] + [(3000, 70_000), (70_000, len(content))]:
        process.stdin.write(content[start:end])
        process.stdin.flush()
    process.stdin.close()
    summary = json.loads(process.stdout.read())
    assert process.wait(60) == 0
    assert summary["in"] == 60
    assert summary["rejected"] == {}


@pytest.mark.parametrize("target", ["out/", "out.tar"])
def test_a_file_an_input_under_harmless_names(bundle: Path, packets: list[bytes], tmp_path: Path, target: str) -> None:
    names = [
        "../../evil.avro", "/etc/passwd", "a.avro", "a.avro", "a.2.avro", "a", "a/b.avro", "..", "é" * 120 + ".avro",
    ]  # fmt: skip
    tar = write_tar(tmp_path / "in.tar", list(zip(names, packets, strict=False)))
    summary = replay(bundle, tar, "-o", f"{tmp_path}/{target}", "--threshold", 0)
    if target == "out.tar":
        (tmp_path / "out").mkdir()
        subprocess.run(["tar", "xf", tmp_path / target, "-C", tmp_path / "out"], check=True)
    files = {path.name: [x["candid"] for x in records(path)] for path in (tmp_path / "out").iterdir()}
    originals = [next(iter(fastavro.reader(BytesIO(packet)))) for packet in packets[: len(names)]]
    candids = [original["candid"] for original in originals]  # type: ignore[index,call-overload]
    assert sorted(candid for found in files.values() for candid in found) == sorted(candids)  # type: ignore[type-var]
    assert {"evil.avro", "passwd", "a.avro", "a.2.avro", "a", "b.avro", "member.avro"} <= files.keys()
    assert (tmp_path / "out").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.tar",
        "out",
        *([target] if "tar" in target else []),
    }
    assert summary["passed"] == len(names)


def test_inputs_of_one_name_get_a_file_each(bundle: Path, night: Path, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "n.avro").write_bytes(night.read_bytes())
    summary = replay(bundle, tmp_path / "x", tmp_path / "y", "-o", f"{tmp_path}/out/", "--threshold", 0)
    assert [Path(path).name for path in summary["outputs"]] == ["n.avro", "n.2.avro"]
    assert [len(records(Path(path))) for path in summary["outputs"]] == [60, 60]


def test_what_an_earlier_run_left_beside_the_outputs_is_told_of(
    bundle: Path, night: Path, inputs: list[Path], tmp_path: Path
) -> None:
    def told(*arguments: object) -> str:
        done = rbstream("replay", "--model", bundle, "--device", "cpu", "--set", "log.format=text", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    before, other = "was there already and is not of this run", tmp_path / "out.2.avro"
    assert before not in told(*inputs, "-o", tmp_path / "out.avro")
    assert before not in told(*inputs, "-o", tmp_path / "out.avro")  # all of it is written again
    assert f"{other}: {before} (such_files=1)" in told(night, "-o", tmp_path / "out.avro")
    assert before not in told(other, "-o", tmp_path / "out.avro", "--threshold", 0)  # an input is no surprise

    (tmp_path / "none.avro").write_bytes(b"")
    nothing = told(tmp_path / "none.avro", "-o", tmp_path / "out.avro")
    assert f"{tmp_path / 'out.avro'}: {before} (such_files=2)" in nothing

    assert before not in told(inputs[0], "-o", f"{tmp_path}/each/", "--threshold", 0)
    assert before not in told(inputs[0], "-o", f"{tmp_path}/each/", "--threshold", 0)
    assert f"{tmp_path}/each/00.avro: {before}" in told(inputs[0], "-o", f"{tmp_path}/each/", "--where", "magpsf < 0")


def refused(bundle: Path, *arguments: object) -> str:
    done = rbstream("replay", "--model", bundle, "--device", "cpu", *arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    return done.stderr


def test_no_input_is_overwritten(bundle: Path, packets: list[bytes], tmp_path: Path) -> None:
    night = tmp_path / "n.avro"
    night.write_bytes(packets[0])
    (tmp_path / "link.avro").symlink_to(night)
    for flag, path in [
        ("-o", night),
        ("-o", f"{tmp_path}/"),
        ("-o", tmp_path / "link.avro"),
        ("--rejects", night),
    ]:
        assert "would be overwritten" in refused(bundle, night, flag, path)
    assert "would be overwritten" in refused(bundle, night, "-o", "x.avro", "--rejects", "x.avro")
    (tmp_path / "out.2.avro").write_bytes(renamed(packets[1]))
    clash = refused(bundle, night, tmp_path / "out.2.avro", "-o", tmp_path / "out.avro", "--threshold", 0)
    assert "schema number 2" in clash
    assert records(tmp_path / "out.2.avro")
    assert not (tmp_path / "out.avro").exists()


def test_rejects_are_taken_up_again_where_they_came_from(bundle: Path, inputs: list[Path], tmp_path: Path) -> None:
    first = replay(bundle, *inputs, "--rejects", tmp_path / "1.avro", "--scores", tmp_path / "1.csv")
    again = replay(bundle, tmp_path / "1.avro", "--rejects", tmp_path / "2.avro", "--scores", tmp_path / "2.csv")
    assert sum(first["rejected"].values()) == again["in"] == 7
    kept = records(tmp_path / "1.avro")
    assert [{**record, "detail": ""} for record in records(tmp_path / "2.avro")][:6] == [
        {**record, "detail": ""} for record in kept
    ][:6]
    rejected = [row for row in table(tmp_path / "1.csv") if row["verdict"] == "rejected"]
    assert [row["file"] for row in table(tmp_path / "2.csv")] == [row["file"] for row in rejected]


def test_rejects_that_others_wrote_again_are_rejects(bundle: Path, inputs: list[Path], tmp_path: Path) -> None:
    replay(bundle, *inputs, "--rejects", tmp_path / "1.avro")
    with (tmp_path / "1.avro").open("rb") as file:
        reader = fastavro.reader(file)
        kept = [record for record in reader if record["reason"] == "truncated"]  # type: ignore[index,call-overload]
        with (tmp_path / "2.avro").open("wb") as out:
            fastavro.writer(out, reader.writer_schema, kept, codec="deflate")  # type: ignore[arg-type]
    assert replay(bundle, tmp_path / "2.avro")["rejected"] == {"truncated": 3}


def test_a_mended_limit_scores_what_was_rejected(bundle: Path, night: Path, tmp_path: Path) -> None:
    options: Sequence[object] = ("--set", "limits.cutout_side=62", "--max-reject-ratio", 1)
    assert replay(bundle, night, "--rejects", tmp_path / "r.avro", *options)["rejected"] == {"cutout_shape": 60}
    assert replay(bundle, tmp_path / "r.avro", "--scores", tmp_path / "s.csv")["rejected"] == {}
    rows = table(tmp_path / "s.csv")
    assert [(row["file"], row["record"]) for row in rows] == [(str(night), str(n)) for n in range(60)]


def test_a_night_of_no_alerts_is_no_error(bundle: Path, night: Path, tmp_path: Path) -> None:
    from rbstream.packet.container import read_header
    from rbstream.settings import Limits

    length = read_header(night.read_bytes(), Limits()).length
    (tmp_path / "none.avro").write_bytes(night.read_bytes()[:length])
    for jobs in (1, 2):
        arguments = (tmp_path / "none.avro", "-o", tmp_path / "out.avro", "--scores", tmp_path / "s.parquet")
        summary = replay(bundle, *arguments, "--report", tmp_path / "r.html", jobs=jobs)
        assert (summary["in"], summary["outputs"]) == (0, [])
        assert pq.read_table(tmp_path / "s.parquet").num_rows == 0


def test_a_night_of_which_nothing_passes_is_an_empty_container(bundle: Path, night: Path, tmp_path: Path) -> None:
    summary = replay(bundle, night, "-o", tmp_path / "out.avro", "--where", "magpsf < 0")
    assert summary["filtered"] == 60
    assert records(tmp_path / "out.avro") == []


def test_every_real_packet_gets_a_verdict(bundle: Path, shared_data: Path, tmp_path: Path) -> None:
    names = {"-o": "o.avro", "--rejects": "r.avro", "--scores": "s.csv", "--report": "r.html"}
    flags = [x for flag, name in names.items() for x in (flag, tmp_path / name)]
    summary = replay(bundle, shared_data / "ztf", *flags, jobs=2)
    assert summary["in"] == len(table(tmp_path / "s.csv")) == 205
    assert sum(summary["rejected"].values()) == len(records(tmp_path / "r.avro")) == 5
    assert sum(len(records(Path(path))) for path in summary["outputs"]) == summary["passed"]


def test_the_published_scores_come_out_again(shared_data: Path, tmp_path: Path) -> None:
    """The strongest test of the whole way: ZTF's own scores, with NaN, cut and filled stamps among them."""
    model = tmp_path / "d6_m7.pt"
    source = shared_data / "braai" / "d6_m7.h5"
    assert rbstream("model", "import", source, "--normalize", "l2-row", "-o", model).returncode == 0
    folder = tmp_path / "scored"
    folder.mkdir()
    replay(model, shared_data / "ztf" / "alerts", "-o", folder / "o.avro", "--threshold", 0)
    candidates = [record["candidate"] for path in folder.iterdir() for record in records(path)]
    published = [c for c in candidates if c["drbversion_upstream"] == "d6_m7"]
    assert len(published) > 90
    assert max(abs(c["drb"] - c["drb_upstream"]) for c in published) <= 1e-6


def test_garbage_in_any_amount_adds_up(bundle: Path, packets: list[bytes], tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    members = []
    for number in range(300):
        packet = bytearray(packets[number % 60])
        for at in random.integers(0, len(packet), random.integers(1, 5)):
            packet[at] = random.integers(256)
        content = bytes(packet if number % 2 else packet[: random.integers(len(packet))])
        members.append((f"{number}.avro", content))
    tar = write_tar(tmp_path / "n.tar.gz", members, "w:gz")
    summary = replay(
        bundle, tar, "--scores", tmp_path / "s.csv", "--rejects", tmp_path / "r.avro", "--max-reject-ratio", 1
    )
    assert summary["in"] == len(table(tmp_path / "s.csv")) >= 300
    assert len(records(tmp_path / "r.avro")) == sum(summary["rejected"].values()) > 140


@pytest.mark.skipif(os.name != "posix", reason="file names that are no UTF-8")
def test_file_names_may_hold_any_bytes(bundle: Path, packets: list[bytes], tmp_path: Path) -> None:
    name = os.fsdecode(b"night\xff.avro")
    (tmp_path / name).write_bytes(packets[0])
    done = rbstream(
        "replay", tmp_path, "--model", bundle, "--device", "cpu", "--jobs", 1, "--threshold", 0, "-o",
        f"{tmp_path}/out/", "--scores", tmp_path / "s.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path / "out" / name)) == 1
    assert "\ufffd" in table(tmp_path / "s.csv")[0]["file"]


def test_a_compressed_container_is_read_too(bundle: Path, night: Path, tmp_path: Path) -> None:
    (tmp_path / "night.avro").write_bytes(gzip.compress(night.read_bytes(), 1))
    assert replay(bundle, tmp_path / "night.avro")["in"] == 60
