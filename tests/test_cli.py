"""The command: its exit statuses, what it says, and what is left when it is stopped."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import RBSTREAM, environment, rbstream, records, write_tar, write_tiny
from waiting import wait_until

from rbstream import __version__

Here = Callable[..., tuple[object, str, str]]


def processes(mark: str) -> list[int]:
    """Living processes with a word in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            ours = folder.name.isdigit() and mark in (folder / "cmdline").read_text()
            if ours and (folder / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.append(int(folder.name))
        except OSError:
            pass
    return found


class Running:
    """A replay that reads from a pipe and so lasts until told to end."""

    def __init__(self, bundle: Path, folder: Path, packet: bytes, jobs: int) -> None:
        self.mark = str(folder / "out.avro")
        command = [*RBSTREAM, "replay", "-", "--model", str(bundle), "--device", "cpu", "--jobs", str(jobs)]
        command += ["-o", self.mark, "--scores", str(folder / "s.csv"), "--rejects", str(folder / "r.avro")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        self.folder, self.jobs = folder, jobs
        tar = write_tar(folder / "in", [(f"{number}.avro", packet) for number in range(1100)])
        self.content = tar.read_bytes()[:-10240]
        tar.unlink()
        assert self.process.stdin is not None
        self.process.stdin.write(self.content)
        self.process.stdin.flush()
        try:
            wait_until(self.under_way, "something written", seconds=60)
        except AssertionError:
            self.process.kill()
            raise

    def under_way(self) -> bool:
        part = self.folder / f".out.avro.{self.process.pid}.part"
        return part.exists() and part.stat().st_size > 0

    def workers(self) -> list[int]:
        return [pid for pid in processes(self.mark) if pid != self.process.pid]

    def end(self) -> tuple[int, str]:
        """The status, and what was said; standard input is left open."""
        status = self.process.wait(60)
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        wait_until(lambda: not processes(self.mark), "no process left", seconds=60)
        return status, said


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_replay_leaves_nothing(
    bundle: Path, packets: list[bytes], tmp_path: Path, jobs: int, sent: signal.Signals, status: int
) -> None:
    running = Running(bundle, tmp_path, packets[0], jobs)
    assert len(running.workers()) == (jobs if jobs > 1 else 0)
    running.process.send_signal(sent)
    ended, said = running.end()
    assert ended == status
    assert "Traceback" not in said
    left = [path.name for path in tmp_path.iterdir()]
    assert not {"out.avro", "s.csv", "r.avro"} & set(left)
    assert not left or sent == signal.SIGKILL


def test_ctrl_c_reaches_the_whole_group_and_says_one_line(bundle: Path, packets: list[bytes], tmp_path: Path) -> None:
    running = Running(bundle, tmp_path, packets[0], 2)
    for pid in [*running.workers(), running.process.pid]:  # as a terminal does
        os.kill(pid, signal.SIGINT)
    status, said = running.end()
    assert status == 130
    assert said == "rbstream: interrupted; nothing half-written was kept\n"


def test_a_worker_that_is_killed_ends_the_run_in_words(bundle: Path, packets: list[bytes], tmp_path: Path) -> None:
    running = Running(bundle, tmp_path, packets[0], 2)
    os.kill(running.workers()[0], signal.SIGKILL)
    assert running.process.stdin is not None
    try:
        for _ in range(3):
            running.process.stdin.write(running.content)
        running.process.stdin.close()
    except BrokenPipeError:
        pass  # it has stopped reading
    status, said = running.end()
    assert status == 1
    assert "a worker process died (exit code -9)" in said
    assert list(tmp_path.iterdir()) == []


def test_auto_says_once_that_it_scores_on_the_cpu(bundle: Path, night: Path) -> None:
    import torch

    if torch.cuda.device_count():
        pytest.skip("there is a CUDA device here")
    done = rbstream("replay", night, "--model", bundle, "--jobs", 2, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["device"] == "cpu"
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["level"] == "warning"
    assert "scoring on the CPU" in line


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_device_that_is_not_there_stops_the_run(bundle: Path, night: Path, tmp_path: Path, jobs: int) -> None:
    out = tmp_path / "out.avro"
    done = rbstream("replay", night, "--model", bundle, "--device", "cuda:77", "--jobs", jobs, "-o", out)
    assert done.returncode == 1
    assert "cuda:77 was asked for" in done.stderr
    assert list(tmp_path.iterdir()) == []


def flooded(
    bundle: Path, bad: int, good: bytes, folder: Path, *arguments: object
) -> "subprocess.CompletedProcess[str]":
    """A replay of some good packets behind some bad ones."""
    members = [(f"{number}", b"bad") for number in range(bad)] + [("good", good)] * 4
    tar = write_tar(folder / "n.tar", members)
    return rbstream(
        "replay", tar, "--model", bundle, "--device", "cpu", "--jobs", 1, "--json", "-o", folder / "o.avro",
        "--rejects", folder / "r.avro", *arguments,
    )  # fmt: skip


def test_too_many_rejections_at_the_end_are_a_limit(bundle: Path, packets: list[bytes], tmp_path: Path) -> None:
    assert flooded(bundle, 15, packets[0], tmp_path).returncode == 0  # 19 are too few to judge
    done = flooded(bundle, 16, packets[0], tmp_path)
    assert done.returncode == 3
    assert "16 of 20 alerts were rejected, more than the limit of 20%: 16 not_avro" in done.stderr
    assert json.loads(done.stdout)["rejected"] == {"not_avro": 16}
    assert len(json.loads(done.stdout)["outputs"]) == 1  # all was read: what passed is kept
    assert flooded(bundle, 16, packets[0], tmp_path, "--max-reject-ratio", "0.8").returncode == 0


def test_too_many_rejections_while_running_stop_it(bundle: Path, packets: list[bytes], tmp_path: Path) -> None:
    done = flooded(bundle, 5000, packets[0], tmp_path)
    assert done.returncode == 3
    summary = json.loads(done.stdout)
    assert 1000 <= summary["in"] < 1500
    assert summary["outputs"] == []
    assert summary["device"] == "cpu"
    assert len(records(tmp_path / "r.avro")) == summary["in"]
    assert not (tmp_path / "o.avro").exists()


@pytest.mark.parametrize("flag", ["-o", "--scores", "--rejects", "--report"])
def test_an_output_that_cannot_be_written_is_told(bundle: Path, night: Path, tmp_path: Path, flag: str) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / {"--scores": "s.csv", "--report": "r.html"}.get(flag, "x")
    done = rbstream("replay", night, "--model", bundle, "--device", "cpu", "--jobs", 1, flag, out)
    assert done.returncode == 1
    assert f"{out}: can't be written: Not a directory" in done.stderr


@pytest.mark.parametrize("names", [("o.avro", "s.csv"), ("o.tar", "s.parquet"), ("o/", "s.csv")])
def test_a_full_disk_is_told_and_leaves_nothing(
    bundle: Path, night: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    """A limit on the size of files stands for the disk: the same failing write, without mounting one."""
    command = ["bash", "-c", 'trap "" XFSZ; ulimit -f 100; exec "$@"', "-", *RBSTREAM, "replay", str(night)]
    command += ["--model", str(bundle), "--device", "cpu", "--jobs", "1", "--threshold", "0"]
    command += ["-o", f"{tmp_path}/{names[0]}", "--scores", f"{tmp_path}/{names[1]}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 1
    assert "can't be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_standard_output_that_cannot_be_written_is_told(bundle: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*RBSTREAM, "model", "info", bundle],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    assert done.returncode == 1
    assert done.stderr == "rbstream: standard output can't be written: No space left on device\n"


@pytest.mark.parametrize(
    "command", ["", "replay", "simulate", "bench", "model", "model info", "model verify", "model import"]
)
def test_every_command_helps(here: Here, command: str) -> None:
    status, out, _ = here(*command.split(), "--help")
    assert status == 0
    assert "usage: rbstream" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "required: COMMAND"), ("frobnicate", "invalid choice"), ("replay", "required: PATH"),
        ("replay NIGHT --frob", "unrecognized arguments: --frob"), ("replay absent.avro", "no such file or folder"),
        ("replay NIGHT --jobs 0", "replay.jobs"), ("replay NIGHT --threshold 2", "filter.threshold"),
        ("replay NIGHT --device gpu", "model.device"), ("replay NIGHT --precision half", "model.precision"),
        ("replay NIGHT --set cutout_side=3", "nearest is limits.cutout_side"),
        ("replay NIGHT --set limits.cutout_side", "expected"),
        ("replay NIGHT --set limits.cutout_sied=3", "nearest is limits.cutout_side"),
        ("replay NIGHT --set limits.cutout_side=x", "limits.cutout_side"),
        ("replay NIGHT --where magspf<19", "magpsf"), ("replay NIGHT --where magpsf<", "ends too early"),
        ("replay NIGHT --scores s.txt", ".csv or .parquet"), ("replay NIGHT --model-sha256 12", "model.sha256"),
        ("simulate x.avro --alerts 0", "at least 1 alert"), ("model import x.h5 --normalize z -o x.pt", "l2-row"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told(here: Here, night: Path, arguments: str, words: str, tmp_path: Path) -> None:
    status, out, said = here(*arguments.replace("NIGHT", str(night)).split())
    assert status == 2
    assert words in said
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_beats_the_environment(bundle: Path, night: Path) -> None:
    command = (
        "replay",
        night,
        "--model",
        bundle,
        "--device",
        "cpu",
        "--jobs",
        1,
        "--json",
        "--max-reject-ratio",
        1,
    )
    small = environment(RBSTREAM_LIMITS__CUTOUT_SIDE="62")
    assert json.loads(rbstream(*command, env=small).stdout)["rejected"] == {"cutout_shape": 60}
    done = rbstream(*command, "--set", "limits.cutout_side=63", env=small)
    assert json.loads(done.stdout)["rejected"] == {}


def test_a_pinned_model_that_is_another_is_refused(bundle: Path, night: Path) -> None:
    done = rbstream("replay", night, "--model", bundle, "--model-sha256", "0" * 64)
    assert done.returncode == 1
    assert "not the one you pinned" in done.stderr


def test_verify_says_how_well_the_device_agrees(bundle: Path, tmp_path: Path) -> None:
    done = rbstream("model", "verify", bundle, "--device", "cpu", "--json")
    shown = json.loads(done.stdout)
    assert (shown["verified"], shown["device"], shown["golden_triplets"]) == (True, "cpu", 8)
    assert shown["largest_difference"] <= shown["tolerance"] == 1e-5
    other = write_tiny(tmp_path / "other.pt", survey="rubin")
    done = rbstream("replay", bundle, "--model", other)
    assert done.returncode == 2
    assert "survey 'rubin'" in done.stderr


def test_bench_says_its_ratio(bundle: Path, night: Path) -> None:
    done = rbstream("bench", night, "--model", bundle, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["alerts"] == 60
    assert result["ratio"] > 0
    assert {"read", "locate", "cutouts", "score", "filter", "annotate", "whole way"} <= result["stages"].keys()
    assert all(stage.keys() == {"microseconds", "cpu_seconds"} for stage in result["stages"].values())


def test_an_image_tells_its_revision_and_that_is_no_setting(tmp_path: Path) -> None:
    image = environment(RBSTREAM_REVISION="abc123")
    assert rbstream("--version", env=image).stdout == f"rbstream {__version__} abc123\n"
    assert rbstream("--version").stdout == f"rbstream {__version__}\n"
    assert rbstream("config", "show", env=image, cwd=tmp_path).returncode == 0
