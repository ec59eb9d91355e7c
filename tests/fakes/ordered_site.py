"""A site's directory with work orders in it, as the worker sees it."""

from pathlib import Path

from protocol.digest import digest_of_bytes
from site_node.enrolment import create_site
from site_node.orders import WorkOrder, write_order
from site_node.settings import SiteSettings


def make_site(folder: Path, redis_url: str = "redis://127.0.0.1:1/0") -> SiteSettings:
    (folder / "images").mkdir()
    return create_site(folder / "site", "st-anna", "http://hub.test", [folder / "images"], redis_url=redis_url)


def give_order(
    settings: SiteSettings,
    task_id: str = "task-1",
    kind: str = "train",
    base_blob: str | None = None,
    study: str = "study",
    recount: int = 0,
) -> WorkOrder:
    order = WorkOrder.model_validate(
        {
            "kind": kind,
            "task_id": task_id,
            "task_digest": digest_of_bytes(task_id.encode()),
            "study": {},
            "study_digest": digest_of_bytes(study.encode()),
            "base_blob": base_blob,
            "recount": recount,
        }
    )
    write_order(settings.paths, order)
    return order


def starts(settings: SiteSettings) -> list[str]:
    """Return the marks of every child that began a job."""
    folder = settings.paths.worker / "starts"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
