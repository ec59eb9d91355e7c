"""What stays at the site between rounds: named float32 tensors of a study, which no message carries.

    control     SCAFFOLD's control variate: from the update as it was made for sending (`corrections.py`)
    own         FedBN's tensors that stay home, or Ditto's personal model (`personal.py`)
    residual    what a lossy codec left out of the last update (`site_node/update/`)

One weights file (safetensors) for each study, name and round, in SITE/worker/local_state:

    <study's digits>/<name>/00000007.safetensors      the state after round 7

A round starts from the newest state of an *earlier* round and its own result is stored under its own number, before the
update is handed over. So a training that was killed anywhere and runs again reads what it read the first time and
writes the same bytes again. Round numbers may have gaps: a site is not asked in every round. Of each name the newest
state and the one before it are kept, which is all that a repeated round or an evaluation of the newest version needs;
more of a name whose user says so (`personal.py`: in buffered rounds a site trains on before a version is judged).

Privacy. The files never leave, but what is made of them does. With `privacy.epsilon` set everything in them must be
post-processing of noised gradients; each user of this store says why that holds. Without it they are worth as much
protection as the images they were made of: the folder is the worker's only.

    >>> from dataclasses import replace
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     first = LocalState(Path(folder), "sha256:" + "0" * 64, 1)
    ...     first.keep("control", {"weight": np.ones(2, np.float32)})
    ...     again = first.before("control")
    ...     later = replace(first, round=3).before("control")
    >>> again is None, later["weight"].tolist()
    (True, [1.0, 1.0])
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from protocol.digest import hex_of
from protocol.errors import TensorError
from protocol.tensors import Weights, decode_weights, encode_weights
from site_node.durable import finished_files, remove, write_durably

SUFFIX = ".safetensors"
OWNER_ONLY = 0o600
KEPT_ROUNDS = 2
_log = structlog.get_logger()


@dataclass(frozen=True)
class LocalState:
    """The states of one study as a job of one round sees them. `folder` is the site's, of all studies.

    One that does not keep (`keeps`) only reads: of several processes that train together the first one keeps.
    Guarantee: `before` does not see what a job of the same round has kept, so that a job may be run again; `keep` is
        durable when it returns, and never replaces the state of a later round.
    """

    folder: Path
    study_digest: str
    round: int
    keeps: bool = True

    def before(self, name: str) -> Weights | None:
        """Return the state that a round trains from: the newest of an earlier round; None if there is none."""
        return self._newest(name, self.round - 1)

    def after(self, name: str) -> Weights | None:
        """Return the state that a round's version is judged with: the newest of this or an earlier round."""
        return self._newest(name, self.round)

    def has_forgotten(self, name: str, most: int) -> bool:
        """Tell whether this site had a state after this round and has it no more.

        Guarantee: never False where `keep` with so many rounds at `most` has removed it. One that began to train later
            and has since filled all `most` places cannot be told from one that trained before: that is True as well.
        """
        numbers = [number for number, _ in self._stored(name)]
        is_damaged = any(number <= self.round for number in numbers) and self.after(name) is None
        return is_damaged or (len(numbers) >= most and min(numbers) > self.round)

    def keep(self, name: str, tensors: Mapping[str, NDArray[np.float32]], most: int = KEPT_ROUNDS) -> None:
        """Store the state after this round and remove all but the newest `most`; the same again changes nothing.

        Raises: OSError if the disk is full; nothing is lost by it.
        """
        rounds = sorted(number for number, _ in self._stored(name))
        if not self.keeps or (rounds and rounds[-1] > self.round):
            return  # a late repetition of a round that others were built on
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / f"{self.round:08d}{SUFFIX}", encode_weights(tensors), OWNER_ONLY)
        kept = sorted({*rounds, self.round})[-most:]
        for number, path in self._stored(name):
            if number < kept[0]:
                remove(path)

    def _newest(self, name: str, latest: int) -> Weights | None:
        for number, path in sorted(self._stored(name), reverse=True):
            if number > latest:
                continue
            try:
                return decode_weights(path)
            except (TensorError, FileNotFoundError):
                _log.warning("local_state_damaged", name=name, round=number, remedy="Check the disk.")
        if self.round > 1:  # the first task of this study here, or a site restored from a backup, or moved
            _log.info("local_state_starts_anew", name=name, round=self.round)
        return None

    def _stored(self, name: str) -> Iterator[tuple[int, Path]]:
        for path in finished_files(self._folder(name), SUFFIX):
            if path.stem.isdigit():
                yield int(path.stem), path

    def _folder(self, name: str) -> Path:
        return self.folder / hex_of(self.study_digest) / name
