"""Runs the Dockerfile without Docker, in Debian roots that mmdebstrap makes, and looks at what comes out.

    sudo python3 deploy/prove_image.py

needs root, mmdebstrap, a Debian mirror and a package registry, and takes some minutes. Packages come from where this
machine's pip gets them; torch too, through the Dockerfile's own TORCH_INDEX.

It shows that every RUN ends well with nothing there but what is copied and installed, that what comes out holds pinned
packages only, and that it works as the image's user on a read-only root. It doesn't show what is Docker's or a
registry's: the base image (a minimal root of the same Debian stands in for it, with Debian's Python 3.11 linked to
/usr/local/bin, where that image has its own), the wheels of VARIANT=cuda, the labels, the layers.
"""

import argparse
import ast
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "deploy/Dockerfile"
PINS = (ROOT / "constraints.txt", ROOT / "deploy/requirements.txt")
# What a python:*-slim image has beside Debian's base, and no more: no compiler, no headers.
PACKAGES = "python3,python3-pip,ca-certificates"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "make", "rustc", "cargo")
FLAGS = {"COPY": {"from", "chmod", "chown"}, "HEALTHCHECK": {"interval", "timeout", "start-period", "retries"}}
SHELL = ("ARG", "COPY", "ENV", "EXPOSE", "FROM", "LABEL", "RUN", "USER", "WORKDIR")
EXEC = ("CMD", "ENTRYPOINT", "HEALTHCHECK")
# `rbstream run` gives a silent broker 15 s; the rest is imports on a busy machine.
SECONDS = 120
NOBODY_LISTENS = "127.0.0.1:1"


class Unsupported(Exception):
    """The Dockerfile says something that this program would get wrong."""


@dataclass
class Instruction:
    """A word, its flags (`--from=build`), and what follows; in exec form also as a list."""

    word: str
    flags: dict[str, str]
    value: str
    line: int

    def argv(self) -> list[str]:
        """What CMD, ENTRYPOINT and HEALTHCHECK run."""
        return list(json.loads(self.value.removeprefix("CMD").strip()))


@dataclass
class Stage:
    """What stands between one FROM and the next."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, word: str) -> Instruction:
        """The instruction that counts where there are several."""
        return [each for each in self.instructions if each.word == word][-1]


def parse(text: str) -> list[Stage]:
    """The stages of a Dockerfile. Raises Unsupported, with the line, where it isn't understood."""
    stages: list[Stage] = []
    for number, line in _joined(text):
        word, _, rest = line.partition(" ")
        flags, value = _flags(rest.strip())
        if word not in (*SHELL, *EXEC) or not flags.keys() <= FLAGS.get(word, set()) or "<<" in value:
            raise Unsupported(f"line {number}: {line}")
        if (word in EXEC) != value.removeprefix("CMD").strip().startswith("["):
            raise Unsupported(f"line {number}: {word} is taken in {'exec' if word in EXEC else 'shell'} form only")
        if word == "FROM":
            base, *name = re.split(r"\s+AS\s+", value)
            stages.append(Stage(base, name[0] if name else ""))
        elif not stages:
            raise Unsupported(f"line {number}: {word} before the first FROM")
        else:
            stages[-1].instructions.append(Instruction(word, flags, value, number))
    return stages


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines and the numbers of their first, without comments."""
    if re.match(r"#\s*(syntax|escape|check)\s*=", text):
        raise Unsupported(f"line 1: {text.splitlines()[0]}")
    held, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        held, first = held + line.removesuffix("\\"), first or number
        if not line.endswith("\\"):
            yield first, held.strip()
            held, first = "", 0


def _flags(rest: str) -> tuple[dict[str, str], str]:
    flags: dict[str, str] = {}
    while found := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
        flags[found[1]] = found[2]
        rest = rest[found.end() :]
    return flags, rest


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$NAME` and `${NAME}` put in, as Docker does outside of RUN."""
    if "${" in re.sub(r"\$\{\w+\}", "", text):
        raise Unsupported(f"{text}: only $NAME and ${{NAME}} are understood")
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables.get(found[1], ""), text)


class Context:
    """The files that the build sees: those of the repository that .dockerignore lets in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        lines = (line.strip() for line in (folder / ".dockerignore").read_text().splitlines())
        self._patterns = [
            (not line.startswith("!"), re.compile(_pattern(line.removeprefix("!"))))
            for line in lines
            if line and not line.startswith("#")
        ]

    def lets_in(self, path: str) -> bool:
        """The last pattern decides that matches the path or a folder above it."""
        names = path.split("/")
        above = ["/".join(names[:count]) for count in range(1, len(names) + 1)]
        ignored = False
        for ignores, pattern in self._patterns:
            if any(pattern.fullmatch(each) for each in above):
                ignored = ignores
        return not ignored

    def files(self, source: str) -> list[str]:
        """The files that a COPY of `source` takes. Raises FileNotFoundError where there is none."""
        place = self._folder / source
        found = sorted(place.rglob("*")) if place.is_dir() else [place]
        paths = [str(path.relative_to(self._folder)) for path in found if path.is_file()]
        if not (let_in := [path for path in paths if self.lets_in(path)]):
            raise FileNotFoundError(f"COPY {source}: there is no such file, or .dockerignore keeps it out")
        return let_in

    def copy(self, source: str, target: Path) -> None:
        """COPY: a file to `target`, a folder's content into it."""
        for path in self.files(source):
            inside = Path(path).relative_to(source) if path != source else Path()
            to = target / inside
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._folder / path, to)


def _pattern(pattern: str) -> str:
    """A pattern of .dockerignore as a regular expression for a whole path."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return "".join(words.get(part, re.escape(part)) for part in parts)


@dataclass(frozen=True)
class Image:
    """A root folder, and how to run in it."""

    root: Path
    environment: Mapping[str, str]
    folder: str = "/"
    user: str = "0:0"

    def command(
        self, argv: Sequence[str], environment: Mapping[str, str] | None = None,
        binds: Mapping[str, Path] | None = None, read_only: bool = False,
    ) -> list[str]:  # fmt: skip
        """The command line that runs `argv` here as process 1, on this machine's network.

        binds: what of this machine is seen there, and where. read_only: all but a fresh /tmp and /dev/shm.
        """
        script = [f"mount --bind {self._at('')} {self._at('')}", f"mount --bind /dev {self._at('/dev')}"]
        for place, source in (binds or {}).items():
            self._make(place, source.is_dir())
            script.append(f"mount --bind {shlex.quote(str(source))} {self._at(place)}")
            script.append(f"mount -o remount,bind,ro {self._at(place)}")
        if read_only:
            script.append(f"mount -o remount,bind,ro {self._at('')}")
            script.append(f"mount -t tmpfs -o mode=1777 tmpfs {self._at('/tmp')}")
        script.append(f"mount -t tmpfs -o mode=1777 tmpfs {self._at('/dev/shm')}")
        script.append(f"mount -t proc proc {self._at('/proc')}")
        variables = [f"{name}={value}" for name, value in {**self.environment, **(environment or {})}.items()]
        inside = ["chroot", f"--userspec={self.user}", "--groups=", str(self.root), "/usr/bin/env", "-i", "-C"]
        script.append("exec " + shlex.join([*inside, self.folder, *variables, *argv]))
        spaces = ["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        return ["unshare", *spaces, "/bin/sh", "-euc", "\n".join(script)]

    def _at(self, place: str) -> str:
        return shlex.quote(f"{self.root}{place}")

    def _make(self, place: str, folder: bool) -> None:
        here = self.root / place.removeprefix("/")
        (here if folder else here.parent).mkdir(parents=True, exist_ok=True)
        if not folder:
            here.touch()


class Builder:
    """Carries out a Dockerfile's stages, each in a root of its own under `work`.

    arguments: as `docker build --build-arg`. binds: what its RUNs see of this machine.
    """

    def __init__(self, work: Path, arguments: Mapping[str, str], binds: Mapping[str, Path]) -> None:
        self._work, self._arguments, self._binds = work, arguments, binds
        self._context = Context(ROOT)
        self._images: dict[str, Image] = {}

    def build(self, stages: Sequence[Stage]) -> Image:
        """The last stage's image."""
        for number, stage in enumerate(stages):
            below = self._images.get(stage.base) or _debian(self._work, stage.base)
            root = self._work / f"stage{number}"
            subprocess.run(["cp", "-a", below.root, root], check=True)
            image, arguments = replace(below, root=root), dict[str, str]()
            for each in stage.instructions:
                say(f"{stage.name or 'final'}: {each.word} {each.value[:100]}")
                image = self._carry_out(each, image, arguments)
            self._images[stage.name] = image
        return image

    def _carry_out(self, each: Instruction, image: Image, arguments: dict[str, str]) -> Image:
        """One instruction: changes the root, and says how to run in it from now on; `arguments` are those of ARG."""
        known = {**arguments, **image.environment}
        if each.word == "ARG":
            name, _, default = each.value.partition("=")
            arguments[name] = self._arguments.get(name, expanded(default, known))
        elif each.word == "ENV":
            pairs = (part.partition("=") for part in shlex.split(each.value))
            values = {name: expanded(value, known) for name, _, value in pairs}
            return replace(image, environment={**image.environment, **values})
        elif each.word == "WORKDIR":
            folder = os.path.join(image.folder, expanded(each.value, known))
            (image.root / folder.removeprefix("/")).mkdir(parents=True, exist_ok=True)
            return replace(image, folder=folder)
        elif each.word == "USER":
            return replace(image, user=expanded(each.value, known))
        elif each.word == "COPY":
            self._copy(each, image)
        elif each.word == "RUN":
            environment = {**arguments, **image.environment}
            subprocess.run(image.command(["/bin/sh", "-c", each.value], environment, self._binds), check=True)
        return image

    def _copy(self, each: Instruction, image: Image) -> None:
        *sources, to = each.value.split()
        target = image.root / os.path.join(image.folder, to).removeprefix("/")
        if other := each.flags.get("from"):
            (source,) = sources
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", self._images[other].root / source.removeprefix("/"), target], check=True)
            return
        for source in sources:
            file = (ROOT / source).is_file()
            self._context.copy(source, target / Path(source).name if file and to.endswith("/") else target)


def _debian(work: Path, name: str) -> Image:
    """What stands in for a python:*-slim image. Raises Unsupported for another."""
    if not (found := re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-(\w+)(@sha256:[0-9a-f]{64})?", name)):
        raise Unsupported(f"FROM {name}: only python:X.Y.Z-slim-DEBIAN has a stand-in here")
    image = Image(work / f"debian-{found[2]}", {"PATH": PATH})
    say(f"mmdebstrap {found[2]}, in place of {name}")
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", found[2], image.root], check=True
    )
    for link in ("python", "python3"):
        (image.root / "usr/local/bin" / link).symlink_to("/usr/bin/python3")
    has = subprocess.run(image.command(["python", "--version"]), check=True, capture_output=True, text=True).stdout
    if not has.startswith(f"Python {found[1]}."):
        raise Unsupported(f"FROM {name}: {found[2]} has {has.strip()}")
    return image


def pip_as_here(work: Path) -> dict[str, Path]:
    """Makes RUNs get their packages from where this machine's pip does: what they have to see of it."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    config, binds = work / "pip.conf", {"/etc/resolv.conf": Path("/etc/resolv.conf"), "/etc/hosts": Path("/etc/hosts")}
    settings: dict[str, list[str]] = {}
    for line in listed.splitlines():  # the environment's come last, and win
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value)).split()
    for value in (each for values in settings.values() for each in values):
        # An index that is a folder has links to files beside it.
        place = Path(value.removeprefix("file://")).parent if value.startswith("file://") else Path(value)
        if place.is_absolute() and place.exists():
            binds[str(place)] = place
    lines = [f"{name} = " + "\n    ".join(values) for name, values in settings.items()]
    config.write_text("\n".join(["[global]", *lines, ""]))
    return {**binds, "/etc/pip.conf": config}


def torch_index(work: Path) -> Path:
    """An index, as of PEP 503, with the torch that this machine's pip gets."""
    folder = work / "torch-index/torch"
    get = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*get, "--dest", folder, f"torch=={pins()['torch']}"], check=True)
    (wheel,) = folder.glob("*.whl")
    (folder / "index.html").write_text(f'<!doctype html><a href="{wheel.name}">{wheel.name}</a>')
    return folder.parent


def pins() -> dict[str, str]:
    """Versions by name, as constraints.txt and requirements.txt have them."""
    lines = (line.partition("==") for path in PINS for line in path.read_text().splitlines() if "==" in line[:60])
    return {_normal(name): version for name, _, version in lines if not name.startswith("#")}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Proof:
    """Looks at a built image; ends the program where something doesn't hold."""

    def __init__(self, image: Image, stage: Stage, revision: str) -> None:
        self._image, self._stage, self._revision = image, stage, revision
        self._start = [*stage.last("ENTRYPOINT").argv(), *stage.last("CMD").argv()]

    def all(self) -> None:
        """Everything, in order of what it costs."""
        self._holds(re.fullmatch(r"[1-9]\d*:[1-9]\d*", self._image.user), f"the user is {self._image.user}, in numbers")
        self._no_tools()
        self._pinned()
        done = self._run("rbstream", "--version")
        self._holds(done.stdout.split()[2:] == [self._revision], f"it knows its revision: {done.stdout.strip()}")
        done = self._run("touch", "/etc/rbstream/x")
        self._holds("Read-only file system" in done.stderr, "its root can't be written")
        self._files()
        self._health()
        self._stops()

    def _no_tools(self) -> None:
        found = self._run("sh", "-c", f"for name in {' '.join(COMPILERS)}; do command -v $name; done").stdout
        self._holds(not found, f"no compiler is there: none of {', '.join(COMPILERS)} {found}")
        left = [path for path in ("root/.cache", "opt/rbstream/bin/pip", "src") if (self._image.root / path).exists()]
        self._holds(
            not left, f"nothing of the build is left: no cache, no pip beside rbstream, no sources {left or ''}"
        )

    def _pinned(self) -> None:
        code = "import json; from importlib.metadata import distributions as all; print(json.dumps({d.name: [d.version, d.read_text('WHEEL')] for d in all()}))"  # noqa: E501
        found = json.loads(self._run("python", "-c", code).stdout)
        _, wheel = found.pop("rbstream")
        known = pins()
        stray = {
            name: version for name, (version, _) in found.items() if known.get(_normal(name)) != version.split("+")[0]
        }
        self._holds(not stray, f"all {len(found)} packages are pinned {stray or ''}")
        maker = f"hatchling {known['hatchling']}"
        self._holds(maker in wheel, f"so is what made the wheel: {maker}")
        say(f"torch {found['torch'][0]}; {_mebibytes(self._image.root / 'opt/rbstream')} MiB in /opt/rbstream")

    def _files(self) -> None:
        """All that is left in /tmp was asked for: no cache, nothing half-written."""
        night, outputs = "/tmp/night.avro", {"filtered.avro", "scores.csv", "report.html"}
        done = self._run(
            "sh",
            "-c",
            f"""
            set -e
            rbstream simulate {night} --alerts 200 --seed 1
            rbstream replay {night} --jobs 2 --device cpu -o /tmp/filtered.avro --scores /tmp/scores.csv \
                --report /tmp/report.html
            echo; ls -A /tmp
        """,
        )
        say(done.stdout + done.stderr)
        wanted = {"night.avro", "night.truth.csv", *outputs}
        self._holds(done.returncode == 0, "rbstream simulate and rbstream replay work")
        self._holds(set(done.stdout.rpartition("\n\n")[2].split()) == wanted, "and leave what was asked for, only")

    def _health(self) -> None:
        """The image's start without Kafka: healthy while it looks for it, status 1 and a word about it then."""
        port = _free_port()
        done = self._check(port)
        self._holds(done.returncode == 1, f"where nothing listens, HEALTHCHECK has status 1: {_last(done.stderr)}")
        worker = self._begin(port)
        self._holds(self._comes_up(worker, port), f"HEALTHCHECK has status 0 while {' '.join(self._start)} runs")
        said = worker.communicate(timeout=SECONDS)[1]
        named = NOBODY_LISTENS in said
        self._holds(worker.returncode == 1 and named, f"which ends with status 1 for want of Kafka: {_last(said)}")

    def _stops(self) -> None:
        """Process 1 gets only the signals that it handles: one that doesn't would go on."""
        argv = [self._start[0], "simulate", "/tmp/night.avro", "--alerts", "1000000"]
        started = subprocess.Popen(self._image.command(argv, read_only=True), stdout=subprocess.DEVNULL)
        first = self._first(started)
        while not any(Path(f"/proc/{first}/root/tmp").iterdir()):
            time.sleep(0.1)
        os.kill(first, signal.SIGTERM)
        status = started.wait(timeout=SECONDS)
        self._holds(status == 128 + signal.SIGTERM, f"as process 1 it stops on SIGTERM, with status {status}")

    def _first(self, started: subprocess.Popen[bytes]) -> int:
        """The number out here of what is process 1 in there, once it is the image's own."""
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
        while started.poll() is None:
            for child in children.read_text().split():
                if os.readlink(f"/proc/{child}/root") == str(self._image.root):
                    return int(child)
            time.sleep(0.1)
        raise RuntimeError(f"{self._start[0]} ended with {started.returncode} before it could be told to")

    def _begin(self, port: int) -> subprocess.Popen[str]:
        settings = {
            "RBSTREAM_METRICS__PORT": str(port),
            "RBSTREAM_SOURCE__BOOTSTRAP_SERVERS": NOBODY_LISTENS,
            "RBSTREAM_SOURCE__TOPICS": "alerts",
            "RBSTREAM_SINK__TOPIC": "filtered",
            "RBSTREAM_SINK__DEAD_LETTERS": "dead_letters",
        }
        line = self._image.command(self._start, settings, read_only=True)
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def _comes_up(self, worker: subprocess.Popen[str], port: int) -> bool:
        while worker.poll() is None:
            if self._check(port).returncode == 0:
                return True
            time.sleep(0.5)
        return False

    def _check(self, port: int) -> subprocess.CompletedProcess[str]:
        return self._run(*self._stage.last("HEALTHCHECK").argv(), RBSTREAM_METRICS__PORT=str(port))

    def _run(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        line = self._image.command(argv, environment, read_only=True)
        return subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, check=False)

    def _holds(self, condition: object, what: str) -> None:
        say(f"{'holds' if condition else 'DOES NOT HOLD'}: {what}")
        if not condition:
            sys.exit(1)


def _last(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""


def _mebibytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) >> 20


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def say(text: str) -> None:
    """Print it now, among what the commands print."""
    print(text, flush=True)


def main() -> None:
    """Build and look; status 1 where something doesn't hold."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--torch-index", metavar="URL", help="default: an index of this machine's own torch")
    options = parser.parse_args()
    stages = parse(DOCKERFILE.read_text())
    revision = "5a" * 20
    with tempfile.TemporaryDirectory(prefix="prove-image-") as folder:
        work = Path(folder)
        binds = pip_as_here(work)
        index = options.torch_index
        if index is None:
            binds["/torch-index"] = torch_index(work)
            index = "file:///torch-index"
        arguments = {"VARIANT": options.variant, "REVISION": revision, "TORCH_INDEX": index}
        image = Builder(work, arguments, binds).build(stages)
        Proof(image, stages[-1], revision).all()
    say("proved")


if __name__ == "__main__":
    main()
