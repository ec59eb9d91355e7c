from pathlib import Path

import pytest

from tests.fakes.gated_site import GatedSite


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path)
