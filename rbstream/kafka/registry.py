"""Schemas by id: from a folder of files, or from a schema registry (Confluent's, or one that answers as it does)."""

import base64
import json
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Retry, Timeout, Url, parse_url

from rbstream.errors import Rejection, UsageError
from rbstream.packet.framing import CACHED_SCHEMAS, RegistryError, SchemaSource
from rbstream.settings import Limits, Source

# A registry answers in milliseconds. Four tries with these take a minute at most: well within Kafka's five between
# two polls, and the worker tries again on its own account.
CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
RETRIES, BACKOFF_FACTOR, BACKOFF_MAX_SECONDS = 3, 0.3, 3.0
# What passes by itself; 408 and 429 ask to come back.
RETRIED = (408, 429, 500, 502, 503, 504)
# The registry's own code for: no such schema.
UNKNOWN = 40403
# Bytes that a character of JSON may take in another JSON's string: \u0022.
ESCAPED_BYTES = 6
# Beside the schema an answer holds its name and version.
ANSWER_SLACK_BYTES = 1 << 16


def open_schemas(source: Source, limits: Limits) -> SchemaSource | None:
    """The source of schemas that the settings name, if they name one. Raises UsageError."""
    if source.schema_registry is not None and source.schemas is not None:
        raise UsageError("source.schema_registry and source.schemas: schemas come from one of them; leave one out")
    if source.schemas is not None:
        return SchemaFolder(source.schemas)
    return None if source.schema_registry is None else Registry(source.schema_registry, limits)


class SchemaFolder:
    """A folder with a file `<id>.avsc` for each schema, read once each. Raises UsageError where there is none."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"source.schemas: {folder} is no folder; it is to hold a file <id>.avsc for each schema")
        self._folder = folder
        self._read = lru_cache(CACHED_SCHEMAS)(self._read_file)  # keeps what is there, and no failures

    def schema(self, id_: int) -> bytes:
        return self._read(id_)

    def _read_file(self, id_: int) -> bytes:
        path = self._folder / f"{id_}.avsc"
        try:
            return path.read_bytes()
        except OSError as error:
            # A folder that is gone as well was unmounted, and says nothing about the schema.
            if isinstance(error, FileNotFoundError) and self._folder.is_dir():
                raise Rejection("container", "schema_id", f"schema id {id_}: there is no {path}") from None
            raise RegistryError(f"{path}: can't be read: {error.strerror or error}") from error


class Registry:
    """A schema registry at a URL, which may carry user and password. Each schema is asked for once.

    Raises UsageError where that is no such URL.
    """

    def __init__(self, url: str, limits: Limits, timeout: float = READ_SECONDS) -> None:
        parsed = _parsed(url)
        self._url = parsed._replace(auth=None).url
        self._largest = ESCAPED_BYTES * limits.schema_bytes + ANSWER_SLACK_BYTES
        self._pool = urllib3.PoolManager(
            headers=_headers(parsed),
            timeout=Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout),
            retries=Retry(
                RETRIES,
                backoff_factor=BACKOFF_FACTOR,
                backoff_max=BACKOFF_MAX_SECONDS,
                status_forcelist=RETRIED,
                raise_on_status=False,
                respect_retry_after_header=False,  # it may say an hour
            ),
        )
        self._get = lru_cache(CACHED_SCHEMAS)(self._fetch)  # keeps what is there, and no failures

    def schema(self, id_: int) -> bytes:
        return self._get(id_)

    def _fetch(self, id_: int) -> bytes:
        what = f"schema id {id_}"
        answer = self._ask(f"/schemas/ids/{id_}", what)
        if answer is None:
            raise Rejection("container", "schema_id", f"{what} is unknown to {self._url}")
        kind = answer.get("schemaType", "AVRO")
        if kind != "AVRO":
            raise Rejection("container", "schema_id", f"{what} is no Avro schema at {self._url} but {str(kind)[:40]}")
        text = answer.get("schema")
        if not isinstance(text, str):
            raise RegistryError(f"{self._url}: asked for {what}: an answer without a schema")
        if answer.get("references"):
            raise RegistryError(
                f"{self._url}: {what} uses types that other subjects define, which rbstream does not put together; "
                f"put it whole into a folder as {id_}.avsc and set source.schemas"
            )
        return text.encode("utf-8", "replace")

    def _ask(self, path: str, what: str) -> dict[str, Any] | None:
        """The answer to a request; None where the registry says that there is no such thing. Raises RegistryError."""
        try:
            response = self._pool.request("GET", self._url + path, preload_content=False)
            try:
                body = response.read(self._largest + 1, decode_content=True)
            finally:
                response.close()  # what was read whole has gone back to the pool before
        except HTTPError as error:
            raise RegistryError(f"{self._url}: asked for {what}: {_reason(error)}") from error
        if len(body) > self._largest:
            raise RegistryError(f"{self._url}: asked for {what}: an answer of more than {self._largest} bytes")
        answer = _json(body)
        # A 404 without it comes from something else: a proxy, another service, a wrong path in the URL.
        if response.status == 404 and isinstance(answer, dict) and answer.get("error_code") == UNKNOWN:
            return None
        if response.status != 200 or not isinstance(answer, dict):
            said = body[:200].decode("utf-8", "replace")
            raise RegistryError(f"{self._url}: asked for {what}: status {response.status}: {said!r}")
        return answer


def _parsed(url: str) -> Url:
    try:
        parsed = parse_url(url.rstrip("/"))
    except LocationParseError:
        parsed = Url()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        # And no word of what was given: it may hold a password.
        raise UsageError("source.schema_registry: expected a URL such as https://registry:8081")
    return parsed


def _headers(url: Url) -> dict[str, str]:
    headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json", "User-Agent": "rbstream"}
    if url.auth is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(url.auth).encode()).decode()
    return headers


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _reason(error: Exception) -> str:
    """The innermost reason: the outer ones name pools and paths."""
    while isinstance(reason := getattr(error, "reason", None), Exception):
        error = reason
    return f"{type(error).__name__}: {error}"
