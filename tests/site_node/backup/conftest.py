from pathlib import Path

import pytest

from tests.fakes.gated_site import GatedSite
from tests.site_node.backup.backed_up import KEY


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path / "hospital")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY.value)
    return path
