"""What a candidate must be before the gate signs it: the right model, whole, finite, of bounded size and norm.

The hub checks the same again; this check is the hospital's own, and the only one where the hub will see masks only.
The payload is read in chunks from the gate's own copy, so that a large model needs no memory here and the worker cannot
change it in between.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import zstandard

from protocol.compression.coding import CodingTerms, Decoder
from protocol.compression.terms import most_upload_bytes, norm_factor, upload_steps, upload_terms
from protocol.errors import CodecError, TensorError
from protocol.held_out_checks import counts_in, counts_problem, patients_in
from protocol.manifest import MAX_HEADER_BYTES, Manifest
from protocol.messages import RoundTask, TaskKind
from protocol.secure_aggregation.histograms import sums_histograms
from protocol.secure_aggregation.vector import VectorTerms
from protocol.site_level import bit_deviation, is_adaptive, is_possible_bit
from protocol.study import StudySpec
from site_node.candidate import Candidate
from site_node.errors import GateError, NotFiniteError
from site_node.governance.masking import is_masked
from site_node.governance.vector_file import check_integers, terms_of

CHUNK_BYTES = 1 << 20
MAX_RMS = 10.0
"""The largest root mean square over an update's values: far above what training moves a weight in a round."""
FRAME_BYTES = 1024
REMEDY = "Nothing left. See the worker's log."


@dataclass(frozen=True)
class PayloadTerms:
    """What the payload of a task may be; `manifest` is None only where the task makes the first version.

    `vector` is set where the payload is a vector of integers, to be masked; `coding` where the study's steps choose or
    shorten values. `longer` is how many times longer these steps may make an update.
    """

    steps: tuple[str, ...]
    manifest: Manifest | None
    maximum_bytes: int
    vector: VectorTerms | None = None
    says_uncut: bool = False
    coding: CodingTerms | None = None
    longer: float = 1.0
    noise_of_bit: float | None = None


def payload_terms(task: RoundTask, study: StudySpec, base: Manifest | None, maximum_bytes: int) -> PayloadTerms:
    """Return what the study's terms and the policy allow as payload of a task. Pure.

    Raises: GateError if the base version is not of the model that the task names.
    """
    codec = upload_steps(study)
    if task.base is not None and (base is None or base.digest != task.base.manifest_digest):
        raise GateError("The base version is not of the model that the task names.", REMEDY)
    if base is not None and is_masked(task, study):
        vector = terms_of(study, base.parameters)
        return PayloadTerms(vector.steps, base, min(maximum_bytes, vector.candidate_bytes), vector)
    if base is None:
        return PayloadTerms(("weights", "zstandard") if codec.zstandard else ("weights",), None, maximum_bytes)
    coding = upload_terms(study, base, task.round) if codec.is_coded else None
    largest = most_upload_bytes(coding) if coding is not None else _compressed_bound(base.payload_bytes)
    says_uncut = task.kind is TaskKind.TRAIN and is_adaptive(study.privacy)
    steps = ("difference", *codec.names)
    maximum_bytes = min(maximum_bytes, largest)
    bit = bit_deviation(study.privacy, task.noise_multiplier) if says_uncut else None
    return PayloadTerms(steps, base, maximum_bytes, None, says_uncut, coding, norm_factor(study), bit)


def check_description(candidate: Candidate, task_digest: str, terms: PayloadTerms) -> tuple[str, int]:
    """Check what an update's candidate says of itself and return its payload's digest and size. Pure.

    Raises: GateError if it answers another task, or breaks the terms.
    """
    if candidate.task_digest != task_digest:
        raise GateError("A candidate answers another task.", REMEDY)
    if candidate.payload_digest is None or candidate.payload_bytes is None:
        raise GateError("An update's candidate must state its payload's digest and size.", REMEDY)
    if tuple(candidate.steps) != terms.steps:
        raise GateError(f"An update of this study is made by the steps {', '.join(terms.steps)}.", REMEDY)
    if (candidate.uncut is not None) != terms.says_uncut:
        raise GateError("A candidate says whether its update was cut where the study does not, or the reverse.", REMEDY)
    if candidate.uncut is not None and not is_possible_bit(candidate.uncut, terms.noise_of_bit):
        raise GateError("A candidate's noised bit is no 0 or 1 with the study's noise.", REMEDY)
    if candidate.payload_bytes > terms.maximum_bytes:
        raise GateError(f"A payload of this task holds at most {terms.maximum_bytes} bytes.", REMEDY)
    if terms.manifest is not None and candidate.manifest_digest != terms.manifest.digest:
        raise GateError("A candidate is of another model than the task.", REMEDY)
    return candidate.payload_digest, candidate.payload_bytes


def check_payload(path: Path, candidate: Candidate, terms: PayloadTerms, maximum_bytes: int) -> None:
    """Check names, shapes, length, finiteness and norm of a payload; of a vector of integers, length and bound.

    Raises: GateError for another model or length; NotFiniteError for values that are not finite or far too large.
    """
    if terms.vector is not None:
        check_integers(path, terms.vector)
        return
    with _opened(path, "zstandard" in terms.steps) as reader:
        if terms.coding is not None:
            _check_norm(_sum_of_coded_squares(reader, terms.coding), terms.coding.manifest, terms.longer)
            return
        manifest = _read_manifest(reader)
        if manifest.digest != candidate.manifest_digest or (terms.manifest or manifest) != manifest:
            raise GateError("A payload is of another model than its candidate says.", REMEDY)
        if manifest.payload_bytes > maximum_bytes:
            raise GateError(f"The policy lets at most {maximum_bytes} bytes leave.", "See maximum_update_megabytes.")
        squares = _sum_of_squares(reader, 4 * manifest.parameters)
    _check_norm(squares, manifest, terms.longer)


def _check_norm(squares: float, manifest: Manifest, longer: float) -> None:
    if not math.isfinite(squares) or squares > (longer * MAX_RMS) ** 2 * max(1, manifest.parameters):
        raise NotFiniteError("An update holds values that are not finite or far too large.", REMEDY)


def check_evaluation(candidate: Candidate, task_digest: str, study: StudySpec, held_out_patients: int) -> None:
    """Check an evaluation's held-out counts: of the study's kind, splits and bins, of no more patients than approved.

    Raises: GateError if they are something else.
    """
    if candidate.task_digest != task_digest:
        raise GateError("A candidate answers another task.", REMEDY)
    problem = counts_problem(study, candidate)
    if problem is not None:
        raise GateError(f"An evaluation's counts {problem}.", REMEDY)
    if sums_histograms(study) and set(counts_in(study, candidate)) != set(study.evaluation.splits):
        raise GateError("An evaluation under masks holds every split that the study names.", REMEDY)
    if study.evaluation.noise_epsilon is None and patients_in(study, candidate) > held_out_patients:
        raise GateError("An evaluation counts more patients than the approved cohort holds out.", REMEDY)


def _compressed_bound(size: int) -> int:
    # zstd's own worst case (ZSTD_compressBound): what cannot be compressed grows by less than 1/256.
    return size + (size >> 8) + FRAME_BYTES


@contextmanager
def _opened(path: Path, compressed: bool) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if not compressed:
            yield file
            return
        with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=False) as reader:
            yield reader
    # The frame's content is now known to be of the model's length; nothing may hide behind the frame.
    with path.open("rb") as file:
        if not _ends_with_frame(file):
            raise GateError("A payload goes on after its end.", REMEDY)


def _ends_with_frame(file: BinaryIO) -> bool:
    frame = zstandard.ZstdDecompressor().decompressobj()
    while not frame.eof and (chunk := file.read(CHUNK_BYTES)):
        frame.decompress(chunk)
    return frame.eof and not frame.unused_data and not file.read(1)


def _read_manifest(reader: BinaryIO) -> Manifest:
    try:
        length = _exactly(reader, 8)
        size = int.from_bytes(length, "little")
        if size > MAX_HEADER_BYTES:
            raise GateError("A payload does not begin with a header of permitted size.", REMEDY)
        return Manifest.from_header(length + _exactly(reader, size))
    except TensorError as error:
        raise GateError("A payload does not begin with the header of a model.", REMEDY) from error


def _sum_of_squares(reader: BinaryIO, size: int) -> float:
    total, left = 0.0, size
    while left:
        values = np.frombuffer(_exactly(reader, min(CHUNK_BYTES, left)), "<f4")
        # In float32 a piece's sum is good to a millionth; what overflows it is far above the bound.
        with np.errstate(over="ignore", invalid="ignore"):
            total += float(np.dot(values, values))
        left -= 4 * values.size
    if _some(reader, 1):
        raise GateError("A payload is longer than its model.", REMEDY)
    return total


def _sum_of_coded_squares(reader: BinaryIO, terms: CodingTerms) -> float:
    decoder, total = Decoder(terms), 0.0
    try:
        while data := _some(reader, CHUNK_BYTES):
            total += sum(float(np.square(values, dtype=np.float64).sum()) for values in decoder.feed(data))
        decoder.finish()
    except CodecError as error:
        raise GateError(f"A payload is not coded as its study says. {error}", REMEDY) from error
    return total


def _exactly(reader: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := _some(reader, size - len(data))):
        data += more
    if len(data) < size:
        raise GateError("A payload is cut off.", REMEDY)
    return data


def _some(reader: BinaryIO, size: int) -> bytes:
    try:
        return reader.read(size)
    except zstandard.ZstdError as error:
        raise GateError("A payload is not zstandard data.", REMEDY) from error
