"""The block `pacs` in site.yaml: what a site with nothing but a PACS looks like, and what is said of a wrong one."""

from pathlib import Path

import pytest
import yaml

from site_node.enrolment import create_site
from site_node.errors import SettingsError
from site_node.settings import SiteSettings, load_settings


def site_with(folder: Path, **keys: object) -> SiteSettings:
    (folder / "images").mkdir()
    made = create_site(folder / "site", "st-anna", "https://hub.example.org", [folder / "images"])
    document = {"name": "st-anna", "hub": "https://hub.example.org"} | keys
    made.paths.configuration.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_settings(made.paths.root)


def test_a_site_may_have_nothing_but_a_pacs_and_reads_what_came_from_it(tmp_path: Path) -> None:
    block = {"url": "https://pacs.example/dicom-web", "token_file": "pacs.token", "tls": {"ca": "ca.crt"}}
    settings = site_with(tmp_path, pacs=block)
    assert settings.images == (settings.paths.received,)
    assert settings.pacs is not None
    assert settings.pacs.token_file == settings.paths.root / "pacs.token"
    assert settings.pacs.tls is not None
    assert settings.pacs.tls.ca == settings.paths.root / "ca.crt"
    assert settings.pacs.proxy is None


def test_a_wrong_block_is_named_and_its_values_are_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"pacs\.url") as raised:
        site_with(tmp_path, pacs={"url": "https://user:secret@pacs.example"})
    assert "secret" not in str(raised.value)
