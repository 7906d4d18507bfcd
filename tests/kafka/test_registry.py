"""Schemas by id, from folders and from a registry that is a real HTTP server, well or ill."""

import base64
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rbstream.errors import Rejection, UsageError
from rbstream.kafka import registry as registry_module
from rbstream.kafka.registry import Registry, SchemaFolder, open_schemas
from rbstream.packet.framing import RegistryError
from rbstream.settings import Limits, Source

LIMITS = Limits()
SCHEMA = '{"type": "record", "name": "ztf.alert", "fields": [{"name": "candid", "type": "long"}]}'
Answer = tuple[int, bytes]


def found(**fields: Any) -> Answer:
    return 200, json.dumps({"schema": SCHEMA} | fields).encode()


def failed(status: int, code: int) -> Answer:
    return status, json.dumps({"error_code": code, "message": "so it is"}).encode()


class Server:
    """A registry on 127.0.0.1. answers: by path, in turn, the last one again and again; requests: what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.silent = threading.Event()  # until it is set, paths of a "silent" answer get none
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers["Authorization"]))
                answers = outer.answers.get(self.path, [failed(404, 404)])
                status, body = answers.pop(0) if len(answers) > 1 else answers[0]
                if status == SILENCE:
                    outer.silent.wait()
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + (CUT_SHORT in body)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = CUT_SHORT in body

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.silent.set()
        self._server.shutdown()
        self._server.server_close()


SILENCE, CUT_SHORT = 0, b"<cut short>"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(registry_module, "BACKOFF_FACTOR", 0.001)
    server = Server()
    yield server
    server.close()


def ask(server: Server, *answers: Answer, id_: int = 5) -> bytes:
    server.answers[f"/schemas/ids/{id_}"] = list(answers)
    return Registry(server.url, LIMITS, timeout=0.2).schema(id_)


def test_a_registrys_schema_is_handed_on_as_it_is_written(server: Server) -> None:
    assert ask(server, found()) == SCHEMA.encode()
    assert ask(server, found(schemaType="AVRO", references=[])) == SCHEMA.encode()


def test_each_schema_is_asked_for_once(server: Server) -> None:
    registry = Registry(server.url, LIMITS)
    server.answers = {"/schemas/ids/1": [found()], "/schemas/ids/2": [found()]}
    for id_ in (1, 2, 1, 2, 1):
        assert registry.schema(id_) == SCHEMA.encode()
    assert registry.schema(1) is registry.schema(1)
    assert [path for path, _ in server.requests] == ["/schemas/ids/1", "/schemas/ids/2"]


def test_an_id_that_is_not_known_is_a_rejection_and_asked_for_again(server: Server) -> None:
    registry = Registry(server.url, LIMITS)
    server.answers["/schemas/ids/4"] = [failed(404, 40403), found()]
    with pytest.raises(Rejection, match="schema id 4 is unknown") as caught:
        registry.schema(4)
    assert (caught.value.stage, caught.value.reason) == ("container", "schema_id")
    assert registry.schema(4) == SCHEMA.encode()


@pytest.mark.parametrize("kind", ["JSON", "PROTOBUF", ["odd"]])
def test_an_id_of_another_kind_of_schema_is_a_rejection(server: Server, kind: Any) -> None:
    with pytest.raises(Rejection, match="is no Avro schema") as caught:
        ask(server, found(schemaType=kind))
    assert caught.value.reason == "schema_id"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_by_itself_is_tried_again(server: Server, status: int) -> None:
    assert ask(server, (status, b"wait"), (status, b"wait"), (status, b"wait"), found()) == SCHEMA.encode()
    assert len(server.requests) == 4


def test_an_answer_that_does_not_come_is_waited_for_so_long_and_tried_again(server: Server) -> None:
    assert ask(server, (SILENCE, b""), found()) == SCHEMA.encode()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((SILENCE, b""), "Read timed out"),
        ((500, b"oh"), "status 500: 'oh'"),
        ((503, b"\xff\xfe"), "status 503"),
        (failed(401, 40101), "status 401"),
        (failed(404, 404), "status 404"),
        ((404, b"<html>no such page"), "status 404"),
        ((200, b"<html>welcome"), "status 200: '<html>welcome'"),
        ((200, b""), "status 200: ''"),
        ((200, b"[" * 100_000), "status 200"),
        ((200, b'["schema"]'), "status 200"),
        ((200, b"{}"), "without a schema"),
        (found(schema=None), "without a schema"),
        (found(schema={"type": "record"}), "without a schema"),
        ((200, CUT_SHORT), "IncompleteRead"),
        ((200, bytes(7 * LIMITS.schema_bytes)), "an answer of more than"),
    ],
)
def test_any_other_answer_is_the_registrys_fault_and_no_packets(server: Server, answer: Answer, words: str) -> None:
    with pytest.raises(RegistryError) as caught:
        ask(server, answer)
    assert words in str(caught.value)
    assert f"{server.url}: asked for schema id 5" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_registry_that_is_not_there_is_named(server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RegistryError, match=f"{url}: asked for schema id 1: .*refused"):
            Registry(url, LIMITS).schema(1)


def test_a_fault_is_not_kept(server: Server) -> None:
    registry = Registry(server.url, LIMITS)
    server.answers["/schemas/ids/1"] = [(400, b"no"), found()]
    with pytest.raises(RegistryError):
        registry.schema(1)
    assert registry.schema(1) == SCHEMA.encode()


def test_user_and_password_are_sent_and_never_shown(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    registry = Registry(f"http://me:p%40ss%C5%BE@{server.host}/", LIMITS)
    server.answers["/schemas/ids/1"] = [(403, b"no"), failed(404, 40403), found()]
    with pytest.raises(RegistryError) as fault:
        registry.schema(1)
    with pytest.raises(Rejection) as rejection:
        registry.schema(1)
    assert registry.schema(1) == SCHEMA.encode()
    said = f"{fault.value} {rejection.value} {caplog.text} {registry!r}"
    assert "p%40ss" not in said
    assert "p@ss" not in said
    assert server.requests[0][1] == "Basic " + base64.b64encode("me:p@ssž".encode()).decode()


@pytest.mark.parametrize("url", ["", "registry:8081", "ftp://me:secret@host", "http://", "http://[bad", "http://a b:x"])
def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError, match="expected a URL") as caught:
        Registry(url, LIMITS)
    assert "secret" not in str(caught.value)


def test_a_schema_whose_types_are_elsewhere_is_refused_with_what_to_do(server: Server) -> None:
    with pytest.raises(RegistryError, match=r"schema id 5 uses types that other subjects define.*5\.avsc"):
        ask(server, found(references=[{"name": "ztf.candidate", "subject": "candidate", "version": 3}]))


def test_a_folder_is_read_once_for_each_schema(tmp_path: Path) -> None:
    (tmp_path / "3.avsc").write_text(SCHEMA)
    folder = SchemaFolder(tmp_path)
    assert folder.schema(3) == SCHEMA.encode()
    (tmp_path / "3.avsc").unlink()
    assert folder.schema(3) == SCHEMA.encode()


def test_a_schema_that_is_added_to_a_folder_is_found(tmp_path: Path) -> None:
    folder = SchemaFolder(tmp_path)
    with pytest.raises(Rejection, match=r"4\.avsc") as caught:
        folder.schema(4)
    assert (caught.value.stage, caught.value.reason) == ("container", "schema_id")
    (tmp_path / "4.avsc").write_text(SCHEMA)
    assert folder.schema(4) == SCHEMA.encode()


def unreadable(folder: Path) -> None:
    (folder / "5.avsc").mkdir()


def gone(folder: Path) -> None:
    folder.rmdir()


@pytest.mark.parametrize("spoil", [unreadable, gone])
def test_a_folder_that_fails_is_no_fault_of_the_packet(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / "schemas"
    path.mkdir()
    folder = SchemaFolder(path)
    spoil(path)
    with pytest.raises(RegistryError, match=r"5\.avsc: can't be read"):
        folder.schema(5)


def test_the_settings_name_one_source_of_schemas_or_none(tmp_path: Path) -> None:
    assert open_schemas(Source(), LIMITS) is None
    assert isinstance(open_schemas(Source(schemas=tmp_path), LIMITS), SchemaFolder)
    assert isinstance(open_schemas(Source(schema_registry="http://registry:8081"), LIMITS), Registry)
    with pytest.raises(UsageError, match="is no folder"):
        open_schemas(Source(schemas=tmp_path / "none"), LIMITS)
    with pytest.raises(UsageError, match="one of them"):
        open_schemas(Source(schemas=tmp_path, schema_registry="http://registry:8081"), LIMITS)
