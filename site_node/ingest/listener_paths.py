"""Where the listener writes: what it received, for the worker to read, and what is its own."""

from dataclasses import dataclass
from pathlib import Path

from site_node.settings import SitePaths


@dataclass(frozen=True)
class ListenerPaths:
    """`images` is what the index reads. The rest is the ingest process's own, best on the same disk as `images`."""

    images: Path
    own: Path

    @classmethod
    def of(cls, site: SitePaths) -> "ListenerPaths":
        """Return a site's."""
        return cls(site.received / "sent", site.ingest / "listener")

    @property
    def incoming(self) -> Path:
        """Return the folder of objects that are not whole yet."""
        return self.own / "incoming"

    @property
    def quarantine(self) -> Path:
        """Return the folder of refused objects and their reasons."""
        return self.own / "quarantine"

    @property
    def commitments(self) -> Path:
        """Return the folder of results of storage commitment that wait to be carried."""
        return self.own / "commitments"

    @property
    def counts(self) -> Path:
        """Return the counters."""
        return self.own / "counts.json"

    @property
    def lock(self) -> Path:
        """Return the file that a running listener holds."""
        return self.own / "lock"

    def make(self) -> None:
        """Make the folders; without changing their rights, for they may be another group's (setgid)."""
        for folder in (self.images, self.own, self.incoming, self.quarantine, self.commitments):
            folder.mkdir(parents=True, exist_ok=True)
