"""What comes over DICOMweb: bodies cut at any place, and a PACS that answers as it should not."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_node.errors import PacsAwayError, PacsError, PacsRefusedError
from site_node.ingest.answers import FoundInstance
from site_node.ingest.dicomweb import DicomwebPacs
from site_node.ingest.multipart import parts_of
from site_node.pacs_settings import PacsSettings
from tests.fakes.certificates import Authority

KIND = 'multipart/related; type="application/dicom"; boundary="b-1"'
INSTANCE = FoundInstance("1.2.3", "1.2.840.10008.5.1.4.1.1.2")


def body(*parts: bytes) -> bytes:
    return b"".join(b"--b-1\r\nContent-Type: application/dicom\r\n\r\n" + p + b"\r\n" for p in parts) + b"--b-1--\r\n"


@given(st.lists(st.binary(max_size=40).filter(lambda b: b"b-1" not in b), max_size=4), st.integers(1, 30))
def test_parts_are_the_same_however_the_body_is_cut(parts: list[bytes], size: int) -> None:
    whole = body(*parts)
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert list(parts_of(KIND, chunks, 1 << 20)) == parts


@given(st.integers(1, 60))
def test_a_body_that_broke_off_gives_no_half_part(cut: int) -> None:
    whole = body(b"first", b"second")
    kept = whole[: -min(cut, len(whole) - 1)]
    got: list[bytes] = []
    if kept.endswith((b"--b-1--", b"--b-1--\r")):
        assert list(parts_of(KIND, [kept], 1000)) == [b"first", b"second"]
        return
    with pytest.raises(PacsError, match="broke off"):
        got.extend(parts_of(KIND, [kept], 1000))
    assert set(got) <= {b"first", b"second"}


def test_a_body_larger_than_is_accepted_is_not_read_on() -> None:
    def endless() -> Iterator[bytes]:
        yield b"--b-1\r\n\r\n"
        while True:
            yield b"x" * 1000

    with pytest.raises(PacsError, match="larger"):
        list(parts_of(KIND, endless(), 10_000))
    with pytest.raises(PacsError, match="larger"):
        list(parts_of("application/dicom", endless(), 10_000))


def test_an_error_page_is_no_instance() -> None:
    with pytest.raises(PacsError, match="something else than DICOM"):
        list(parts_of("text/html", [b"<html>"], 1000))


@contextmanager
def answering(
    answer: Any, server_tls: ssl.SSLContext | None = None, **block: Any
) -> Iterator[tuple[DicomwebPacs, list[str]]]:
    """Run a web server that answers each request with `answer(path)`: status, headers, body."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, content = answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if server_tls is not None:
            server.socket = server_tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"{'https' if server_tls else 'http'}://127.0.0.1:{server.server_port}/web"
        pacs = DicomwebPacs(PacsSettings.model_validate({"url": url, "timeout_seconds": 2} | block))
        try:
            yield pacs, asked
        finally:
            pacs.close()
            server.shutdown()


@pytest.mark.parametrize(
    ("status", "kind", "told", "lasting"),
    [
        (401, PacsRefusedError, "credentials", False),
        (403, PacsRefusedError, "allow us", False),
        (400, PacsError, "status 400", True),
        (503, PacsError, "status 503", False),
    ],
)
def test_a_refused_query_says_what_to_do(status: int, kind: type[PacsError], told: str, lasting: bool) -> None:
    with answering(lambda path: (status, {}, b"patient MUELLER")) as (pacs, _):
        with pytest.raises(kind, match=told) as raised:
            pacs.find("STUDY", {"AccessionNumber": "ACC1"})
        assert raised.value.lasting == lasting
        assert "MUELLER" not in str(raised.value)
        assert "ACC1" not in str(raised.value)


def test_an_instance_that_is_gone_is_missing_and_a_forbidden_one_fails_its_imaging_study_alone() -> None:
    with answering(lambda path: (404, {}, b"")) as (pacs, _):
        assert pacs.fetch("1", "2", [INSTANCE], whole=True, receive=lambda _: None) is not None
    with answering(lambda path: (403, {}, b"")) as (pacs, _):
        with pytest.raises(PacsError) as raised:
            pacs.fetch("1", "2", [INSTANCE], whole=True, receive=lambda _: None)
        assert raised.value.lasting
        assert not isinstance(raised.value, PacsRefusedError)


def test_a_connection_closed_in_mid_body_leaves_nothing() -> None:
    received: list[object] = []
    half = body(b"x" * 1000)[:500]
    headers = {"Content-Type": KIND, "Connection": "close"}
    with answering(lambda path: (200, headers, half)) as (pacs, _), pytest.raises(PacsError, match="broke off"):
        pacs.fetch("1", "2", [INSTANCE], whole=True, receive=received.append)
    assert received == []


def test_a_pacs_that_knows_no_pages_is_not_asked_for_ever() -> None:
    page = [{"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(500)]
    kind = {"Content-Type": "application/dicom+json"}
    with answering(lambda path: (200, kind, json.dumps(page).encode())) as (pacs, asked):
        assert len(pacs.find("STUDY", {})) == 500
        assert len(asked) == 2


def test_a_redirect_and_a_web_page_are_no_answer() -> None:
    answers = [
        ((302, {"Location": "http://elsewhere.example"}, b""), "elsewhere"),
        ((200, {"Content-Type": "text/html"}, b"<html>sign in</html>"), "no DICOMweb"),
    ]
    for answer, told in answers:
        with answering(lambda path, answer=answer: answer) as (pacs, _), pytest.raises(PacsError, match=told):
            pacs.echo()


def test_https_trusts_the_bundle_that_is_named_and_no_other(tmp_path: Path) -> None:
    authority, stranger = Authority.make(tmp_path / "ca"), Authority.make(tmp_path / "other")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.sign("pacs"))
    answer = (200, {"Content-Type": "application/json"}, b"[]")
    with answering(lambda path: answer, tls, tls={"ca": str(authority.file)}) as (pacs, _):
        assert pacs.echo() == "QIDO-RS answered"
    with answering(lambda path: answer, tls, tls={"ca": str(stranger.file)}) as (pacs, asked):
        with pytest.raises(PacsRefusedError, match="TLS"):
            pacs.echo()
        assert asked == []


def test_the_environments_proxy_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with answering(lambda path: (200, {"Content-Type": "application/json"}, b"[]")) as (pacs, _):
        assert pacs.echo() == "QIDO-RS answered"
    token = tmp_path / "token"
    token.write_text("secret\n", encoding="utf-8")
    through = DicomwebPacs(PacsSettings(url="http://pacs.example", proxy="http://127.0.0.1:9", token_file=token))
    with pytest.raises(PacsAwayError):
        through.echo()
    through.close()
