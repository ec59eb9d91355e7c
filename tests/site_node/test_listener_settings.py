"""The block `listener` of site.yaml: safe unless somebody says otherwise, and refused where it makes no sense."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from site_node.errors import SettingsError
from site_node.listener_settings import ListenerSettings
from site_node.settings import load_settings


def settings_of(**block: Any) -> ListenerSettings:
    return ListenerSettings.model_validate(block)


def test_by_default_it_listens_on_this_machine_alone_and_lets_nobody_in() -> None:
    settings = settings_of()
    assert str(settings.address) == "127.0.0.1"
    assert settings.caller("CT1", "127.0.0.1") is None
    assert not settings.anybody_calls_from("127.0.0.1")


@pytest.mark.parametrize(
    ("addresses", "address", "may"),
    [
        ([], "10.1.2.3", True),
        (["10.1.2.3"], "10.1.2.3", True),
        (["10.1.2.3"], "10.1.2.4", False),
        (["10.1.2.0/24"], "10.1.2.4", True),
        (["10.1.2.0/24"], "::ffff:10.1.2.4", True),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["fe80::/10"], "10.1.2.4", False),
    ],
)
def test_a_caller_is_known_by_title_and_address(addresses: list[str], address: str, may: bool) -> None:
    settings = settings_of(callers=[{"ae_title": "CT1", "addresses": addresses}])
    assert (settings.caller("CT1", address) is not None) == may == settings.anybody_calls_from(address)
    assert settings.caller("ct1", address) is None
    assert settings.caller("", address) is None


@pytest.mark.parametrize(
    "block",
    [
        {"ae_title": "A" * 17},
        {"callers": [{"ae_title": "A\\B"}]},
        {"callers": [{"ae_title": "CT1"}, {"ae_title": "CT1"}]},
        {"callers": [{"ae_title": "CT1", "addresses": ["somewhere"]}]},
        {"callers": [{"ae_title": "CT1", "commitment_port": 11113, "commitment_tls": True}]},
        {"address": "ct1.hospital.example"},
        {"tls": {"certificate": "a.crt", "key": "a.key"}},  # whose certificates are demanded?
        {"port": 70000},
        {"unknown": 1},
    ],
)
def test_what_makes_no_sense_is_refused(block: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_of(**block)


def site(folder: Path, **keys: Any) -> Path:
    text = {"name": "st-anna", "hub": "https://hub.example.org", **keys}
    (folder / "site.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return folder


def test_a_site_may_have_a_listener_and_no_folder_of_its_own(tmp_path: Path) -> None:
    tls = {"certificate": "l.crt", "key": "l.key", "ca": "ca.crt"}
    settings = load_settings(site(tmp_path, listener={"callers": [{"ae_title": "CT1"}], "tls": tls}))
    assert settings.listener is not None
    assert settings.listener.tls is not None
    assert settings.listener.tls.key == tmp_path / "l.key"


def test_received_images_are_indexed_with_the_others_without_a_word_in_site_yaml(tmp_path: Path) -> None:
    (tmp_path / "received").mkdir()
    settings = load_settings(site(tmp_path, images=["scans"], listener={}))
    assert settings.images == (tmp_path / "scans", tmp_path / "received")


def test_a_faulty_key_is_named_without_its_value(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"listener\.port") as caught:
        load_settings(site(tmp_path, images=["scans"], listener={"port": 123456789}))
    assert "123456789" not in str(caught.value)
