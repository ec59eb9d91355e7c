"""`wardround demo`: a whole federation on this machine, each part a real process.

An embedded Redis for the hub and one for each hospital, the hub's API and Celery worker, for each hospital gate, agent
and Celery worker, and the web pages. Nothing here is a short cut: hospitals are enrolled by invitation, the study is
proposed over HTTP, the hospitals' policies approve it, and the rounds are the code that hospitals run.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import structlog
import typer

import compose.demo
from compose.demo_study import LOOK_SECONDS, DemoStudy, addresses, demo_hospitals, list_processes
from compose.errors import ComposeError
from compose.federation import Federation, FederationStarter
from compose.interruption import Interrupted, Interruption, caught_signals
from compose.layout import DemoLayout
from compose.live_view import privacy_sentence, results_table
from compose.overrides import read_study
from compose.processes import Supervisor
from compose.programs import Programs, threads_for_each
from compose.snapshot import Snapshot
from compose.terminal import Terminal
from protocol.errors import SpecificationError
from protocol.study import StudySpec

DEMO_FOLDER = Path(compose.demo.__file__).parent
SIGNAL_STATUS = 128
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class DemoOptions:
    """What was asked for on the command line."""

    layout: DemoLayout
    study: StudySpec
    named: bool
    stay: bool
    fresh: bool


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Holds everything the run writes.")] = Path(".wardround/demo"),
    leave: Annotated[bool, typer.Option("--exit", help="End after the study instead of keeping the pages up.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove what an earlier demo left in the folder.")] = False,
    study: Annotated[Path | None, typer.Option("--study", help="Another study than the demo's (YAML).")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the study, e.g. privacy.epsilon=3.")
    ] = None,
) -> None:
    """Run a whole federation on this machine: a hub, three hospitals with real radiographs, and the web pages."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        spec = read_study(study or DEMO_FOLDER / "study.yaml", settings or [])
        layout = DemoLayout(folder.resolve())
        options = DemoOptions(layout, spec, study is not None or bool(settings), not leave, fresh)
        raise typer.Exit(run_demo(options))
    except (ComposeError, SpecificationError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def run_demo(options: DemoOptions) -> int:
    """Run the demo to its end and return the exit status: 0 only if the study completed.

    Raises: ComposeError. However it ends, no process is left.
    """
    with caught_signals() as interruption, options.layout.locked():
        options.layout.prepare(fresh=options.fresh)
        with Terminal(lost=lambda: interruption.ask(1)) as terminal:
            return _supervised(options, interruption, terminal)


def _supervised(options: DemoOptions, interruption: Interruption, terminal: Terminal) -> int:
    outcome: list[Snapshot] = []
    supervisor = Supervisor(interruption)
    try:
        federation = _started(options, supervisor, terminal)
        _study(options, supervisor, federation, terminal, outcome)
        if options.stay:
            terminal.say("Everything stays up. Ctrl-C ends it.")
            while True:
                list_processes(options.layout, supervisor)
                supervisor.pause(LOOK_SECONDS)
    except Interrupted as wish:
        if not outcome:
            terminal.close_live()
            terminal.say(f"Ended before the study was. The same command goes on from here ({options.layout.root}).")
            return SIGNAL_STATUS + wish.number
    finally:
        terminal.close_live()
        supervisor.stop()
        options.layout.processes.unlink(missing_ok=True)
    return 0 if outcome[0].state == "completed" else 1


def _started(options: DemoOptions, supervisor: Supervisor, terminal: Terminal) -> Federation:
    hospitals = demo_hospitals(DEMO_FOLDER)
    programs = Programs(options.layout, threads_for_each(len(hospitals)))
    federation = FederationStarter(options.layout, supervisor, programs, hospitals, terminal.say).start()
    for line in addresses(federation):
        terminal.say(line)
    return federation


def _study(
    options: DemoOptions, supervisor: Supervisor, federation: Federation, terminal: Terminal, outcome: list[Snapshot]
) -> None:
    study = DemoStudy(options.layout, supervisor, federation, terminal)
    try:
        list_processes(options.layout, supervisor)
        digest = study.choose(options.study, named=options.named)
        ended = study.follow(digest)
        study.report(digest)
        outcome.append(ended)
        _say_results(options, federation, terminal, ended)
    finally:
        study.close()


def _say_results(options: DemoOptions, federation: Federation, terminal: Terminal, ended: Snapshot) -> None:
    if ended.state == "completed":
        terminal.say(results_table(ended))
        terminal.say(privacy_sentence(ended))
    else:
        terminal.say(
            f"The study {ended.state}: {ended.reason or 'no reason was given'}. Logs: {options.layout.root / 'logs'}"
        )
    terminal.say(f"Report      {options.layout.report}")
    if options.stay:
        terminal.say(f"Web pages   {federation.ui_url} (passwords: {options.layout.people})")
