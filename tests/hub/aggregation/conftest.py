"""What the tests of aggregation share."""

from pathlib import Path

import pytest

from hub.registry.blobs import BlobStore
from tests.hub.aggregation.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(BlobStore(tmp_path / "shelf"))
