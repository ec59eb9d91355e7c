"""`wardround simulate`: a study's rounds in one process, on folders of DICOM.

It is the code that hospitals run: the hub's API, called in memory; each site's gate, agent and training, called one
after the other. Only the carrier differs (a call instead of HTTPS and Redis), the stores (a file changes hands by a
second name, unsynced: `protocol/keeping.py`), and the noise: the sites' secrets are made from the seed
(`simulated_site.py`), so that a run can be repeated to the bit; the report says so.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from compose.errors import ComposeError, SimulationError
from compose.live_view import milestones, privacy_sentence, results_table
from compose.overrides import read_study
from compose.plain_logs import log_plainly
from compose.report import build_report, write_report
from compose.simulated_hub import SimulatedHub
from compose.simulated_site import SimulatedSite
from compose.snapshot import Snapshot, snapshot_of
from hub.errors import HubError
from hub.memory import keep_freed_memory
from protocol.errors import ProtocolError
from protocol.study import StudySpec
from protocol.study_parts import NAME_PATTERN
from site_node.errors import SiteError
from site_node.training.networks import build_network
from site_node.training.personal import kept_tensors

REPORT = "report.json"
PAUSE_SECONDS = 0.05
STUCK_SECONDS = 30.0
DEFAULT_THREADS = min(4, os.cpu_count() or 1)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Simulation:
    """What to simulate, and where it will lie."""

    study: StudySpec
    sites: Mapping[str, Path]
    out: Path
    seed: int
    threads: int
    weights: Path | None = None


@app.command()
def simulate(
    study: Annotated[Path, typer.Argument(help="The study's YAML file; see docs/study_specification.md.")],
    site: Annotated[
        list[str],
        typer.Option(help="A hospital: NAME=DIR, a folder of DICOM with a labels.csv, or NAME=CSV. Once for each."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the run: hub, sites and report.json.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampling and noise: same seed, same versions.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the study, e.g. privacy.epsilon=3.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads of training.")] = DEFAULT_THREADS,
    weights: Annotated[
        Path | None, typer.Option(help="File of the weights that start.weights names, from `bundle import`.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove what an earlier run left in OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON; progress to stderr.")] = False,
) -> None:
    """Run a study's rounds in one process and write OUT/report.json. Exit status 0 only if the study completed."""
    keep_freed_memory()
    log_plainly()
    console = Console(stderr=as_json, highlight=False)
    try:
        specification = read_study(study, settings or [])
        build_network(specification)  # a network that no site knows is refused before any folder is touched
        kept_tensors(specification)  # and so are tensors to keep that it does not have
        sites = _sites(site)
        _check_enough(specification, sites)
        simulation = Simulation(specification, sites, _empty(out, fresh), seed, threads, weights)
        report = run_simulation(simulation, console)
    except (ComposeError, HubError, ProtocolError, SiteError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        sys.stdout.write((simulation.out / REPORT).read_text(encoding="utf-8"))
    if report["study"]["state"] != "completed":
        raise typer.Exit(1)


def run_simulation(simulation: Simulation, console: Console) -> dict[str, Any]:
    """Enrol the sites, propose the study, let everybody work until it has ended, and return the report.

    Of a study that could not even be proposed nothing is left in `out`.
    Raises: SimulationError if nobody has anything left to do and the study has not ended.
    """
    with ExitStack() as unproposed, SimulatedHub(simulation.out / "hub") as hub:
        unproposed.callback(_remove_run, simulation.out)
        folders = {name: simulation.out / "sites" / name for name in simulation.sites}
        sites = [
            SimulatedSite(name, images, folders[name], hub, simulation.seed, simulation.threads)
            for name, images in simulation.sites.items()
        ]
        for site in sites:
            site.pin({other.name: other.identity for other in sites})
            console.print(f"{site.name}: {site.index()}")
        if simulation.weights is not None:
            hub.give_weights(simulation.weights)
        hub.propose(simulation.study)
        unproposed.pop_all()  # from here on what a run leaves tells how far it came
        ended = Driver(hub, sites, simulation.study.digest, console).until_ended()
        if ended.state == "completed":
            console.print(results_table(ended))
            console.print(privacy_sentence(ended) + f" The noise was seeded (seed {simulation.seed}).")
        report = build_report(hub.researcher.client, ended.digest, folders, noise="seeded")
    write_report(simulation.out / REPORT, report)
    return report


class Driver:
    """Lets the hub and the sites take turns, and says what happened."""

    def __init__(self, hub: SimulatedHub, sites: Sequence[SimulatedSite], digest: str, console: Console) -> None:
        self._hub = hub
        self._sites = sites
        self._digest = digest
        self._console = console
        self._said: set[str] = set()

    def until_ended(self) -> Snapshot:
        """Go on until the study has ended.

        Raises: SimulationError if nobody has anything left to do before that.
        """
        idle_since: float | None = None
        while not (snapshot := self._look()).ended:
            done = sum(site.turn() for site in self._sites) + self._hub.step()
            if done:
                idle_since = None
                continue
            idle_since = idle_since or time.monotonic()
            if time.monotonic() - idle_since > STUCK_SECONDS:
                raise SimulationError(
                    f"The study stands still: {snapshot.reason or snapshot.state}. See the lines above."
                )
            time.sleep(PAUSE_SECONDS)
        return snapshot

    def _look(self) -> Snapshot:
        get = self._hub.researcher.get
        study = get(f"/v1/studies/{self._digest}")
        snapshot = snapshot_of(study, get(f"/v1/studies/{self._digest}/rounds"), get("/v1/sites"))
        for key, line in milestones(snapshot):
            if key not in self._said:
                self._said.add(key)
                self._console.print(line)
        return snapshot


def _sites(options: Sequence[str]) -> dict[str, Path]:
    sites: dict[str, Path] = {}
    for option in options:
        name, equals, folder = option.partition("=")
        if not equals or not name or name in sites:
            raise SimulationError(f"--site {option!r}: expected NAME=DIR, each name once.")
        if re.fullmatch(NAME_PATTERN, name) is None:
            raise SimulationError(
                f"--site {option!r}: {name!r} is no hospital's name. Use 1 to 63 lower-case letters, digits and "
                "hyphens, a letter or digit first."
            )
        if not Path(folder).is_dir() and not (Path(folder).suffix == ".csv" and Path(folder).is_file()):
            raise SimulationError(f"--site {option!r}: there is no folder {folder}. Name a folder of DICOM files.")
        sites[name] = Path(folder).resolve()
    return sites


def _check_enough(study: StudySpec, sites: Mapping[str, Path]) -> None:
    minimum = study.participants.minimum_sites
    if len(sites) < minimum:
        raise SimulationError(
            f"The study needs at least {minimum} sites (participants.minimum_sites), and --site names {len(sites)}. "
            "Name more, or lower it: --set participants.minimum_sites=1."
        )


def _empty(out: Path, fresh: bool) -> Path:
    if _ours(out) and not fresh:
        raise SimulationError(f"{out} holds an earlier run. Name another folder with --out, or remove it with --fresh.")
    _remove_run(out)
    out.mkdir(parents=True, exist_ok=True)
    return out.resolve()


def _ours(out: Path) -> list[Path]:
    return [entry for entry in (out / "hub", out / "sites", out / REPORT) if entry.exists()]


def _remove_run(out: Path) -> None:
    for entry in _ours(out):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
