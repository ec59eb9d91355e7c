"""A hospital of a simulation: real gate, agent and training, each called in its turn; its secrets come from the seed.

A site makes its noise key when it is initialised and offers no way to set one. This file, which no site imports,
overwrites it, and gives the gate its ledger's nonces: that is how a simulation is repeatable, and why its privacy
protects nobody who can read the seed.
"""

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from structlog.contextvars import bound_contextvars

from compose.simulated_hub import SimulatedHub
from protocol.digest import canonical_json
from protocol.signing import PublicKey, SigningKey
from site_node.agent.agent import Agent
from site_node.agent.hub_client import HubClient
from site_node.cohort.index import IndexReport, index_folder
from site_node.cohort.table_report import examine_table, table_as_text
from site_node.durable import kept_as
from site_node.enrolment import create_site, enroll_site
from site_node.file_names import shown
from site_node.governance.approval import Decision, DecisionWord, decisions_since_counted, record_decision
from site_node.governance.gate import Gate
from site_node.governance.peers import write_peers
from site_node.governance.records import open_records, study_records
from site_node.orders import read_order
from site_node.readiness.job import tell_machine
from site_node.settings import SiteSettings
from site_node.training.job import run_order

SIMULATED_PERSON = "simulation"
HUB_URL = "http://in-memory.invalid"
PERMISSIVE_POLICY = """\
# A simulation allows whatever is simulated.
approval: automatic
networks: any
modalities: any
minimum_patients: 1
minimum_held_out_patients: 1
hold_out_trained: always
dp_required: false
maximum_honest_fraction: 1
maximum_epsilon: 1000
maximum_delta: 0.99
lifetime_epsilon: 100000
lifetime_delta: 0.99
"""


class SimulatedSite:
    """One hospital; `images` is a folder of DICOM, or the CSV of a tabular study. `work` does what the gate ordered."""

    def __init__(
        self,
        name: str,
        images: Path,
        folder: Path,
        hub: SimulatedHub,
        seed: int,
        threads: int,
        work: Callable[[SiteSettings, str], None] | None = None,
    ) -> None:
        self.name = name
        self._keeping = hub.keeping
        with kept_as(self._keeping):
            folders, table = ([], images) if images.is_file() else ([images], None)
            self._settings = create_site(
                folder, name, HUB_URL, folders, policy=PERMISSIVE_POLICY, threads=threads, table=table
            )
            self._settings.paths.noise_key.write_bytes(noise_key_of(seed, name))
            client = HubClient(hub.client(), name, SigningKey.load_or_create(self._settings.paths.transport_key))
            enroll_site(self._settings, client, hub.invite(name))
            self._gate = Gate(self._settings, nonce=nonces_of(seed, name))
            self._agent = Agent(self._settings, client, lambda task_id: (work or do_order)(self._settings, task_id))

    def index(self) -> str:
        """Index the images' headers, or read the table, and say what was found."""
        if self._settings.table is not None:
            return table_as_text(examine_table(self._settings.table))
        images, labels = self._settings.images, self._settings.labels
        return said_of(index_folder(images, self._settings.paths.index, labels=labels), images)

    @property
    def identity(self) -> PublicKey:
        """Return the key that other sites pin."""
        return SigningKey.load_or_create(self._settings.paths.identity_key).public

    def pin(self, peers: Mapping[str, PublicKey]) -> None:
        """Pin the other sites' keys, as their administrators would over the telephone."""
        write_peers(self._settings.paths, {name: key for name, key in peers.items() if name != self.name})

    def step(self) -> int:
        """Let gate and agent do what they have to do; return how much it was."""
        with bound_contextvars(site=self.name), kept_as(self._keeping):
            done = self._gate.sweep() + self._agent.step(0.0)
            return done or self._decide_as_a_person()

    def turn(self) -> int:
        """Fetch mail once, and let gate and agent go on until neither has anything left to do; return how much it was.

        Each `step` asks the hub for mail; a turn does so once.
        """
        with bound_contextvars(site=self.name), kept_as(self._keeping):
            done = self._agent.fetch_mail(0.0)
            while more := self._gate.sweep() + self._agent.carry():
                done += more
            return done or self._decide_as_a_person()

    def _decide_as_a_person(self) -> int:
        """Decide, as an administrator would, on what the policy leaves to a person; return on how many studies.

        Refused is what this hospital's patients do not fit; approved, what noises their number: no policy may.
        """
        with closing(open_records(self._settings.paths)) as records:
            waiting = [known for known in study_records(records, "awaiting") if known.reason or known.detail]
            undecided = [known for known in waiting if not decisions_since_counted(records, known.digest)]
            key = SigningKey.load_or_create(self._settings.paths.identity_key)
            for known in undecided:
                word: DecisionWord = "refused" if known.reason else "approved"
                record_decision(records, Decision(known.digest, word, SIMULATED_PERSON, time.time(), None), key)
        return len(undecided)


def do_order(settings: SiteSettings, task_id: str) -> None:
    """Do what the gate ordered, as the worker's child process does for it."""
    order = read_order(settings.paths, task_id)
    job = tell_machine if order is not None and order.kind == "readiness" else run_order
    job(settings, task_id)


def said_of(report: IndexReport, folders: Sequence[Path]) -> str:
    """Return what an index found, and why files were set aside, in a line."""
    found = f"{report.instances} images of {report.patients} patients"
    if not report.quarantined:
        return found
    reasons = Counter(entry.reason for entry in report.quarantined)
    why = "; ".join(f"{number} x {reason}" for reason, number in reasons.most_common())
    named = " ".join(shown(folder) for folder in folders)
    return f"{found}, {len(report.quarantined)} files set aside ({why}); see: wardround site index {named}"


def noise_key_of(seed: int, site: str) -> bytes:
    """Return the secret of a simulated site: a function of the seed and its name."""
    return hashlib.sha256(canonical_json({"purpose": "simulated noise key", "seed": seed, "site": site})).digest()


def nonces_of(seed: int, site: str) -> Callable[[], str]:
    """Return the source of a simulated site's ledger nonces: each another, the same for the same seed and name."""
    numbers = itertools.count()

    def next_nonce() -> str:
        named = {"purpose": "simulated ledger nonce", "seed": seed, "site": site, "number": next(numbers)}
        return hashlib.sha256(canonical_json(named)).hexdigest()[:32]

    return next_nonce
