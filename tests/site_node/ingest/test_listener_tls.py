"""The listener over TLS beside dcmtk's `echoscu +tls` and `storescu +tls`: both sides show a certificate."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.certificates import Authority
from tests.fakes.dcmtk import Modality, Tls, program_of
from tests.fakes.dicom import make_dataset, save
from tests.fakes.running_listener import ListenerHere, listener_here

PIXELS = np.full((32, 24), 7, dtype=np.uint16)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[ListenerHere]:
    certificate, key = authority.sign("listener")
    tls = {"certificate": certificate, "key": key, "ca": authority.file}
    with listener_here(tmp_path_factory.mktemp("listener"), tls=tls, idle_seconds=3) as found:
        yield found


def shown_by(authority: Authority, name: str, trusting: Path) -> Tls:
    certificate, key = authority.sign(name)
    return Tls(key, certificate, trusting)


def test_a_modality_with_a_certificate_of_the_authority_is_served(
    listener: ListenerHere, authority: Authority, tmp_path: Path
) -> None:
    modality = Modality(listener.port, tls=shown_by(authority, "ct1", authority.file))
    file = save(make_dataset(PIXELS), tmp_path / "image.dcm")
    assert modality.echo()
    assert modality.send([file]).statuses == {file: 0}


def test_one_with_another_authoritys_certificate_is_not(
    listener: ListenerHere, authority: Authority, tmp_path: Path
) -> None:
    forged = Authority.make(tmp_path / "forged")
    assert not Modality(listener.port, tls=shown_by(forged, "ct1", authority.file)).echo()


def test_one_without_a_certificate_or_without_tls_is_not(listener: ListenerHere, authority: Authority) -> None:
    anonymous = [program_of("echoscu"), "+tla", "+cf", str(authority.file), "-aet", "CT1", "-aec", "WARDROUND"]
    done = subprocess.run([*anonymous, "127.0.0.1", str(listener.port)], check=False, capture_output=True, timeout=60)
    assert done.returncode != 0
    assert not Modality(listener.port).echo()


def test_a_handshake_that_never_comes_holds_up_nobody(listener: ListenerHere, authority: Authority) -> None:
    with socket.create_connection(("127.0.0.1", listener.port)):
        assert Modality(listener.port, tls=shown_by(authority, "ct3", authority.file)).echo()


def test_the_listed_titles_count_over_tls_too(listener: ListenerHere, authority: Authority) -> None:
    stranger = Modality(listener.port, "CT9", tls=shown_by(authority, "ct9", authority.file))
    assert not stranger.echo()
