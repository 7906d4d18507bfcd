"""Outputs whose names are no plain files, and inputs that are none: refused with words, or done right."""

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from tiny import RBSTREAM, environment, rbstream, records


@pytest.fixture
def command(bundle: Path, night: Path) -> list[object]:
    return ["replay", night, "--model", bundle, "--device", "cpu", "--jobs", 1, "--threshold", 0]


@pytest.mark.parametrize("flag", ["-o", "--rejects"])
def test_what_is_no_regular_file_is_not_replaced(command: list[object], tmp_path: Path, flag: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = rbstream(*command, flag, tmp_path / "pipe")
    assert done.returncode == 2
    assert "no regular file" in done.stderr
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_through_a_link_its_target_is_written(command: list[object], tmp_path: Path) -> None:
    (tmp_path / "link.avro").symlink_to(tmp_path / "target.avro")
    assert rbstream(*command, "-o", tmp_path / "link.avro").returncode == 0
    assert (tmp_path / "link.avro").is_symlink()
    assert records(tmp_path / "target.avro")


@pytest.mark.parametrize(
    ("flag", "name", "word"),
    [("-o", "", "empty name"), ("--scores", "", "empty name"), ("-o", "-", "standard output"),
     ("-o", "night.tar.gz", "not zipped"), ("--report", "r.avro", ".html")],
)  # fmt: skip
def test_a_name_that_can_not_mean_what_it_says_is_wrong_usage(
    command: list[object], tmp_path: Path, flag: str, name: str, word: str
) -> None:
    done = rbstream(*command, flag, name, cwd=tmp_path)
    assert done.returncode == 2
    assert word in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_of_a_folder_does_not_take_the_name_of_another_output(
    command: list[object], night: Path, tmp_path: Path
) -> None:
    rejects = tmp_path / "out" / night.name
    done = rbstream(*command, "-o", f"{tmp_path}/out/", "--rejects", rejects)
    assert done.returncode == 0
    assert not records(rejects)
    assert records(tmp_path / "out" / f"{night.stem}.2.avro")


def test_a_file_of_zeros_is_a_rejection_and_no_empty_tar(command: list[object], tmp_path: Path) -> None:
    (tmp_path / "zeros.avro").write_bytes(bytes(20_000))
    command[1] = tmp_path / "zeros.avro"
    done = rbstream(*command, "--json")
    assert '"not_avro": 1' in done.stdout


@pytest.mark.parametrize("variable", ["RBSTREAM_LIMIT__CUTOUT_SIDE", "RBSTREAM_JOBS"])
def test_a_variable_that_sets_nothing_is_wrong_usage(command: list[object], variable: str) -> None:
    done = rbstream(*command, env=environment(**{variable: "2"}))
    assert done.returncode == 2
    assert variable in done.stderr


def test_closed_standard_input_is_wrong_usage(command: list[object]) -> None:
    command[1] = "-"
    done = rbstream(*command, preexec_fn=lambda: os.close(0))
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr


def test_with_standard_output_and_error_closed_the_files_are_right(command: list[object], tmp_path: Path) -> None:
    def close() -> None:
        os.close(1)
        os.close(2)

    arguments = [*RBSTREAM, *map(str, command), "-o", str(tmp_path / "out.avro")]
    assert subprocess.run(arguments, env=environment(), preexec_fn=close, timeout=120).returncode == 0
    assert records(tmp_path / "out.avro")


def test_a_closed_terminal_leaves_nothing_half_written(command: list[object], tmp_path: Path) -> None:
    command[1] = "-"
    arguments = [*RBSTREAM, *map(str, command), "-o", str(tmp_path / "out.avro")]
    with subprocess.Popen(arguments, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stdin is not None
        process.stdin.write(b"Obj")  # it waits for the rest
        process.stdin.flush()
        _until_handled(process.pid, signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode == 128 + signal.SIGHUP
    assert not list(tmp_path.iterdir())


def _until_handled(pid: int, number: int) -> None:
    """Wait until a process has a handler for a signal."""
    while True:
        line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt"))
        if int(line.split()[1], 16) >> (number - 1) & 1:
            return
