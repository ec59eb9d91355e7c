"""The demo's voice: a live table in a terminal, plain lines elsewhere, and no crash when the terminal is gone."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from compose.live_view import live_view, milestones
from compose.snapshot import Snapshot

PLAIN_WIDTH = 110


class Terminal:
    """Shows what happens. `lost` is called once if the terminal goes away under it."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._console = Console(highlight=False, soft_wrap=False)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, width=PLAIN_WIDTH, no_color=True)
        self._lost = lost
        self._gone = False
        self._live: Live | None = None
        self._said: set[str] = set()

    def say(self, words: RenderableType) -> None:
        """Print a line or anything that rich can draw."""
        self._attempt(lambda: self._console.print(words))

    def show(self, snapshot: Snapshot, note: str = "") -> None:
        """Show the study as it stands: redraw the table, or print the lines that are new."""
        if self._console.is_terminal:
            self._attempt(lambda: self._draw(live_view(snapshot, note)))
            return
        for key, line in milestones(snapshot):
            if key not in self._said:
                self._said.add(key)
                self.say(line)

    def close_live(self) -> None:
        """End the live table; what it showed last stays."""
        live, self._live = self._live, None
        if live is not None:
            self._attempt(live.stop)

    def __enter__(self) -> Self:
        """Return this terminal."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the live table."""
        self.close_live()

    def _draw(self, view: RenderableType) -> None:
        if self._live is None:
            # No thread of its own redraws: the demo has one thread, and a dead terminal must be noticed in it.
            self._live = Live(view, console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(view, refresh=True)

    def _attempt(self, act: Callable[[], None]) -> None:
        if self._gone:
            return
        try:
            act()
        except OSError:
            self._gone = True
            self._lost()
