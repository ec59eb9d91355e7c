"""Storage commitment: what is promised, to whom it is told, and that a promise is kept over a restart."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from site_node.ingest.commitment import (
    CLASS_CONFLICT,
    INVALID_ARGUMENT,
    MOST_TRIES,
    NO_SUCH_ACTION,
    NO_SUCH_INSTANCE,
    RETRY_SECONDS,
    Commitments,
    Transaction,
)
from site_node.ingest.received_images import ReceivedImages
from tests.fakes.certificates import Authority
from tests.fakes.dicom import make_dataset, save
from tests.fakes.orthanc import free_port, orthanc
from tests.fakes.raw_modality import DX, data_of, raw_modality
from tests.fakes.running_listener import ListenerHere, listener_here
from tests.fakes.waiting import until

PIXELS = np.full((32, 24), 7, dtype=np.uint16)
CT = "1.2.840.10008.5.1.4.1.1.2"
SECONDS = 30


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[ListenerHere]:
    with listener_here(tmp_path / "listener") as found:
        yield found


def good(folder: Path, name: str = "good") -> tuple[bytes, str]:
    dataset = make_dataset(PIXELS, "P1", name)
    return data_of(save(dataset, folder / f"{name}.dcm")), str(dataset.SOPInstanceUID)


def told(information: Dataset) -> tuple[list[str], list[tuple[str, int]]]:
    committed = [str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()]
    failed = information.get("FailedSOPSequence") or ()
    return committed, [(str(item.ReferencedSOPInstanceUID), item.FailureReason) for item in failed]


def test_what_is_stored_is_committed_on_the_same_association(listener: ListenerHere, tmp_path: Path) -> None:
    data, instance = good(tmp_path)
    with raw_modality(listener.port) as modality:
        assert modality.send(data, instance) == 0
        assert modality.ask_commitment("1.2.3.4", [(DX, instance)]) == 0
        until(lambda: len(modality.reports) == 1)
        assert modality.send(*good(tmp_path, "after")) == 0  # the association goes on
    [(event_type, information)] = modality.reports
    assert event_type == 1
    assert information.TransactionUID == "1.2.3.4"
    assert told(information) == ([instance], [])
    until(lambda: listener.counts()["commitments"] == 1)


def test_what_is_not_stored_is_not_committed_and_the_reason_is_told(listener: ListenerHere, tmp_path: Path) -> None:
    data, instance = good(tmp_path)
    broken = good(tmp_path, "broken")
    with raw_modality(listener.port) as modality:
        modality.send(data, instance)
        modality.send(broken[0][:-50], broken[1])
        assert modality.ask_commitment("1.2.3.5", [(DX, instance), (DX, broken[1]), (CT, instance)]) == 0
        until(lambda: len(modality.reports) == 1)
    [(event_type, information)] = modality.reports
    assert event_type == 2
    assert told(information) == ([instance], [(broken[1], NO_SUCH_INSTANCE), (instance, CLASS_CONFLICT)])


def test_a_request_that_is_none_is_refused(listener: ListenerHere) -> None:
    with raw_modality(listener.port) as modality:
        assert modality.ask_commitment("1.2.3.6", [(DX, "1.2.3")], action=9) == NO_SUCH_ACTION
        assert modality.ask_commitment("1.2.3.6", []) == INVALID_ARGUMENT
        assert modality.reports == []


def test_a_caller_that_leaves_at_once_is_not_waited_for(listener: ListenerHere, tmp_path: Path) -> None:
    with raw_modality(listener.port) as modality:
        modality.ask_commitment("1.2.3.7", [(DX, "1.2.3")])
    until(lambda: sum(listener.counts()[name] for name in ("commitments", "commitments_undelivered")) == 1)
    until(lambda: listener.listener.server.connections == 0)


@contextmanager
def hearing(port: int, tls: ssl.SSLContext | None = None) -> Iterator[list[Dataset]]:
    """Be a modality that listens for results at its own port."""
    heard: list[Dataset] = []

    def hear(event: Any) -> tuple[int, None]:
        heard.append(event.event_information)
        return 0, None

    entity = AE("CT1")
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, hear)]
    server = entity.start_server(("127.0.0.1", port), block=False, ssl_context=tls, evt_handlers=handlers)
    try:
        yield heard
    finally:
        server.shutdown()


def test_a_caller_with_a_port_of_its_own_hears_it_there_also_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    callers = [{"ae_title": "CT1", "commitment_port": port}]
    data, instance = good(tmp_path)
    with listener_here(tmp_path / "listener", callers=callers) as listener, raw_modality(listener.port) as modality:
        modality.send(data, instance)
        assert modality.ask_commitment("1.2.3.8", [(DX, instance)]) == 0  # nobody listens there yet
    with hearing(port) as heard, listener_here(tmp_path / "listener", callers=callers) as listener:
        until(lambda: len(heard) == 1)
        until(lambda: listener.counts()["commitments"] == 1)
        assert list(listener.paths.commitments.iterdir()) == []
    assert told(heard[0]) == ([instance], [])


def test_a_result_may_be_carried_over_tls(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "certificates")
    certificate, key = authority.sign("listener")
    tls = {"certificate": certificate, "key": key, "ca": authority.file}
    heard_with = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    heard_with.load_cert_chain(*authority.sign("ct1"))
    heard_with.load_verify_locations(authority.file)
    heard_with.verify_mode = ssl.CERT_REQUIRED
    port = free_port()
    callers = [{"ae_title": "CT1", "commitment_port": port, "commitment_tls": True}]
    calling = ssl.create_default_context(cafile=str(authority.file))
    calling.load_cert_chain(*authority.sign("ct1-calling"))
    with (
        hearing(port, heard_with) as heard,
        listener_here(tmp_path / "listener", callers=callers, tls=tls) as listener,
        raw_modality(listener.port, tls_args=(calling, "localhost")) as modality,
    ):
        assert modality.ask_commitment("1.2.3.9", [(DX, "1.2.3")]) == 0
        until(lambda: len(heard) == 1)
    assert told(heard[0]) == ([], [("1.2.3", NO_SUCH_INSTANCE)])


def test_orthanc_sends_its_images_and_has_them_committed(tmp_path: Path) -> None:
    own = free_port()
    images = [save(make_dataset(PIXELS + i, "P1", str(i)), tmp_path / f"{i}.dcm") for i in range(3)]
    with orthanc(own) as pacs:
        callers = [{"ae_title": "PACS", "commitment_port": pacs.port}]
        with listener_here(tmp_path / "listener", callers=callers, port=own) as listener, pacs.rest() as http:
            pacs.store(images)
            instances = http.get("/instances").json()
            request = {"Resources": instances, "StorageCommitment": True}
            sent = http.post("/modalities/wardround/store", json=request)
            assert sent.status_code == 200
            assert len(listener.stored()) == 3
            report = f"/storage-commitment/{sent.json()['StorageCommitmentTransactionUID']}"
            until(lambda: http.get(report).json()["Status"] != "Pending")
            assert http.get(report).json()["Status"] == "Success"
            assert len(http.get(report).json()["Success"]) == 3


def test_a_result_is_tried_every_minute_for_a_day_and_then_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "commitments"
    folder.mkdir()
    counted: list[str] = []
    tries: list[Transaction] = []

    def carry(transaction: Transaction, *_: object) -> bool:
        tries.append(transaction)
        return False

    owed = Commitments(folder, ReceivedImages(tmp_path), carry, counted.append)
    assert owed.owe(Transaction("1.2.3", ((DX, "1.2.4"),), "CT1", "127.0.0.1", tries=MOST_TRIES - 3))
    for minute in range(5):
        owed.carry_due(now=minute * RETRY_SECONDS)
        owed.carry_due(now=minute * RETRY_SECONDS + 1)
    assert [transaction.tries for transaction in tries] == list(range(MOST_TRIES - 3, MOST_TRIES))
    assert counted == ["commitments_undelivered"]
    assert list(folder.iterdir()) == []
