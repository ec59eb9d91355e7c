"""The sites' routes over HTTP: long poll, uploads that go on, downloads by range, traffic."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from compose.in_memory import BASE_URL, InMemoryTransport
from hub.api.app import assemble
from hub.auth.coordinator import add_person
from hub.rounds import uploads
from hub.rounds.transfers import Transfers
from hub.services import Services, open_services
from protocol.messages import Activity, Progress, Receipt, RoundTask, TaskKind, expect
from protocol.signing import open_envelope
from protocol.tensors import encode_weights
from tests.hub.conftest import PASSWORD
from tests.hub.rounds.bench import ZERO, Bench, filled, study_of

Headers = dict[str, str]


@pytest.fixture
def client(services: Services) -> Iterator[httpx.Client]:
    with httpx.Client(transport=InMemoryTransport(assemble(services)), base_url=BASE_URL) as opened:
        yield opened


@pytest.fixture
def anna(bench: Bench, client: httpx.Client) -> Headers:
    return bench.hospital("anna").sign_in(client)


@pytest.fixture
def task(bench: Bench) -> RoundTask:
    bench.begin(study_of())
    return bench.tasks(TaskKind.TRAIN)[0]


def announce(client: httpx.Client, bench: Bench, anna: Headers, task: RoundTask, payload: bytes) -> dict[str, object]:
    envelope = bench.hospital("anna").signed(bench.notice(task, payload))
    answer = client.post("/v1/uploads", content=envelope, headers=anna)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def receipt_of(bench: Bench, envelope: str) -> Receipt:
    return expect(open_envelope(envelope.encode(), bench.services.key.public), Receipt)


def test_the_mailbox_gives_what_comes_after_a_number(client: httpx.Client, anna: Headers, task: RoundTask) -> None:
    items = client.get("/v1/mailbox", headers=anna).json()["items"]
    assert len(items) == 4  # proposal, initialise, evaluate, train
    later = client.get("/v1/mailbox", params={"after": items[1]["number"]}, headers=anna).json()["items"]
    assert later == items[2:]
    assert client.get("/v1/mailbox", params={"after": items[3]["number"]}, headers=anna).json() == {"items": []}


def test_the_long_poll_ends_when_mail_comes(bench: Bench, client: httpx.Client, anna: Headers) -> None:
    def later() -> None:
        time.sleep(0.5)
        bench.start(study_of())

    thread = threading.Thread(target=later)
    started = time.monotonic()
    thread.start()
    answer = client.get("/v1/mailbox", params={"wait": 20}, headers=anna, timeout=30)
    thread.join()
    assert answer.json()["items"]
    assert 0.3 < time.monotonic() - started < 10


def test_the_long_poll_ends_with_its_time(client: httpx.Client, anna: Headers) -> None:
    assert client.get("/v1/mailbox", params={"wait": 0.2}, headers=anna).json() == {"items": []}


def test_a_message_gets_a_signed_receipt(bench: Bench, client: httpx.Client, anna: Headers, task: RoundTask) -> None:
    progress = Progress(site="anna", activity=Activity.TRAINING, task_id=task.task_id, fraction=0.25)
    answer = client.post("/v1/messages", content=bench.hospital("anna").signed(progress), headers=anna)
    receipt = receipt_of(bench, answer.text)
    assert (receipt.accepted, receipt.message_digest) == (True, progress.digest)
    assert bench.round()["sites"][0]["activity"] == "training"
    assert bench.round()["sites"][0]["fraction"] == 0.25


def test_a_message_of_another_gate_is_turned_away(bench: Bench, client: httpx.Client, anna: Headers) -> None:
    progress = Progress(site="anna", activity=Activity.IDLE)
    answer = client.post("/v1/messages", content=bench.hospital("bela").signed(progress), headers=anna)
    assert 400 <= answer.status_code < 500
    assert answer.json()["remedy"]


def test_an_upload_in_pieces(bench: Bench, client: httpx.Client, anna: Headers, task: RoundTask) -> None:
    payload = encode_weights(filled(1.0))
    state = announce(client, bench, anna, task, payload)
    path = f"/v1/uploads/{state['upload_id']}"
    first = client.patch(path, content=payload[:60], headers={**anna, "Upload-Offset": "0"}).json()
    assert (first["offset"], first["receipt"]) == (60, None)
    assert client.get(path, headers=anna).json() == first
    wrong = client.patch(path, content=payload[60:], headers={**anna, "Upload-Offset": "10"})
    assert wrong.status_code == 409
    assert set(wrong.json()) == {"error", "message", "remedy"}
    last = client.patch(path, content=payload[60:], headers={**anna, "Upload-Offset": "60"}).json()
    assert receipt_of(bench, last["receipt"]).accepted
    assert client.patch(path, content=b"", headers={**anna, "Upload-Offset": "0"}).json() == last
    assert bench.round()["sites"][0]["bytes_up"] >= len(payload)


def test_two_processes_never_append_the_same_bytes(
    bench: Bench, client: httpx.Client, anna: Headers, task: RoundTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = encode_weights(filled(1.0))
    upload_id = str(announce(client, bench, anna, task, payload)["upload_id"])
    path, mine, other = f"/v1/uploads/{upload_id}", Transfers(), Transfers()
    second = open_services(bench.services.settings, lambda _name, _arguments: None, bench.services.clock)
    with httpx.Client(transport=InMemoryTransport(assemble(second)), base_url=BASE_URL) as another:
        monkeypatch.setattr("hub.rounds.uploads.TRANSFERS", mine)
        with uploads.claimed(bench.services, "anna", upload_id) as transfer:
            assert transfer is not None
            uploads.append(bench.services, upload_id, transfer, 0, payload[:60])
            monkeypatch.setattr("hub.rounds.uploads.TRANSFERS", other)
            held = another.patch(path, content=payload[60:], headers={**anna, "Upload-Offset": "60"})
            assert (held.status_code, held.json()["remedy"]) == (409, "Ask for the offset and go on.")
            assert another.get(path, headers=anna).json()["offset"] == 60
        stale = another.patch(path, content=payload[:60], headers={**anna, "Upload-Offset": "0"})
        assert stale.status_code == 409
        done = another.patch(path, content=payload[60:], headers={**anna, "Upload-Offset": "60"}).json()
        assert receipt_of(bench, done["receipt"]).accepted
        monkeypatch.setattr("hub.rounds.uploads.TRANSFERS", mine)
        assert client.patch(path, content=payload, headers={**anna, "Upload-Offset": "0"}).json() == done
    assert list(bench.services.settings.uploads.iterdir()) == []
    second.database.close()


def test_a_sender_that_falls_silent_gives_the_transfer_back(
    bench: Bench,
    services: Services,
    anna: Headers,
    task: RoundTask,
    client: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hub.api.uploads.LONGEST_SILENCE_SECONDS", 0.1)
    path = f"/v1/uploads/{announce(client, bench, anna, task, encode_weights(filled(1.0)))['upload_id']}"

    async def send() -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(30)

        transport = httpx.ASGITransport(app=assemble(services))
        async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as session:
            return await session.patch(path, content=body(), headers={**anna, "Upload-Offset": "0"})

    assert asyncio.run(send()).status_code == 409
    assert client.patch(path, content=b"", headers={**anna, "Upload-Offset": "0"}).status_code == 200


def test_bytes_beyond_the_announced_are_refused(
    bench: Bench, client: httpx.Client, anna: Headers, task: RoundTask
) -> None:
    payload = encode_weights(filled(1.0))
    state = announce(client, bench, anna, task, payload)
    path = f"/v1/uploads/{state['upload_id']}"
    answer = client.patch(path, content=payload + bytes(100), headers={**anna, "Upload-Offset": "0"})
    assert "announced" in receipt_of(bench, answer.json()["receipt"]).reason


@pytest.mark.parametrize("offset", ["", "-1", "one", "9" * 30])
def test_an_offset_that_is_none(
    bench: Bench, client: httpx.Client, anna: Headers, task: RoundTask, offset: str
) -> None:
    state = announce(client, bench, anna, task, encode_weights(filled(1.0)))
    answer = client.patch(f"/v1/uploads/{state['upload_id']}", headers={**anna, "Upload-Offset": offset})
    assert answer.status_code == 400


def test_a_version_is_downloaded_from_any_byte(
    bench: Bench, client: httpx.Client, anna: Headers, task: RoundTask
) -> None:
    assert task.base is not None
    path = f"/v1/blobs/{task.base.weights_digest.removeprefix('sha256:')}"
    whole = client.get(path, headers=anna)
    assert whole.content == encode_weights(ZERO)
    rest = client.get(path, headers={**anna, "Range": "bytes=40-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, whole.content[40:])
    assert rest.headers["content-range"] == f"bytes 40-{len(whole.content) - 1}/{len(whole.content)}"
    same = client.get(path, headers={**anna, "If-None-Match": whole.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert client.get(path, headers={**anna, "Range": "bytes=9999-"}).status_code == 416
    assert bench.round()["sites"][0]["bytes_down"] == 2 * len(whole.content) - 40


def test_nobody_downloads_another_hospitals_update(
    bench: Bench, services: Services, client: httpx.Client, anna: Headers, task: RoundTask
) -> None:
    bela = bench.tasks(TaskKind.TRAIN)[1]
    payload = encode_weights(filled(0.5))
    bench.send(bela, bench.notice(bela, payload), payload)
    add_person(services, "reader", "researcher", PASSWORD, "operator:console")
    token = client.post("/v1/token/person", json={"name": "reader", "password": PASSWORD}).json()["access_token"]
    digest = bench.notice(bela, payload).payload_digest
    assert services.blobs.contains(digest)
    for headers in (anna, {"Authorization": f"Bearer {token}"}):
        answer = client.get(f"/v1/blobs/{digest.removeprefix('sha256:')}", headers=headers)
        assert answer.status_code == 404


def test_many_sites_may_wait_at_once(bench: Bench, services: Services, client: httpx.Client) -> None:
    headers = [hospital.sign_in(client) for hospital in bench.hospitals]
    transport = httpx.ASGITransport(app=assemble(services))

    async def poll() -> list[int]:
        async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as session:
            waiting = [session.get("/v1/mailbox", params={"wait": 0.5}, headers=one) for one in headers * 20]
            return [answer.status_code for answer in await asyncio.gather(*waiting)]

    started = time.monotonic()
    assert asyncio.run(poll()) == [200] * 60
    assert time.monotonic() - started < 10
