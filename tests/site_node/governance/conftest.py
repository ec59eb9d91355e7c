from pathlib import Path

import pytest

from tests.fakes.gated_site import GatedSite
from tests.fakes.masked_peers import MaskedPeers


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path)


@pytest.fixture
def peers(site: GatedSite) -> MaskedPeers:
    return MaskedPeers(site)
