"""A version as three files, for whoever builds a model of it elsewhere: study, lineage and weights."""

import json
from pathlib import Path

from hub.errors import RequestError
from hub.registry.versions import version_view
from hub.rounds import views as round_views
from hub.services import Services
from hub.storage import stores


def save_version(services: Services, digest: str, number: int, out: Path) -> None:
    """Write a version into a new folder; the signed lineage is in version.json.

    Raises: NotFoundError if there is no such version, RequestError if the folder exists.
    """
    if out.exists():
        raise RequestError(f"{out} exists already.", "Name a new folder.")
    with services.reading() as session:
        study, row = stores.study(session, digest), stores.version(session, digest, number)
        metrics = round_views.version_metrics(session, digest, number)
        view = version_view(row, stores.decisions(session, digest, number), metrics)
        specification = bytes(study.specification)
    weights = services.blobs.read(row.weights_digest)
    out.mkdir(parents=True)
    (out / "study.json").write_bytes(specification)
    (out / "version.json").write_text(json.dumps(view, indent=2) + "\n", encoding="utf-8")
    (out / "weights.safetensors").write_bytes(weights)
