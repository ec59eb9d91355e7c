"""The difference between two versions as a file: written by the hub, added by whoever holds the earlier version.

    length of the description, 4 bytes | description, canonical JSON | coded difference

The description names the study's steps, its digest and the later version's number: with the earlier version's own
header that is all a reader needs, so an agent can add it without the study. The later version *is* the earlier one plus
the decoded difference, in float32: the hub makes it with the same function, so that every site's result has the digest
that its task names, to the bit. A wrong, damaged or forged difference gives another digest and is not used.
Source: float32 addition is exact in its result on every machine (IEEE 754-2019, section 5.1).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
import zstandard
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from protocol.compression.coding import CodingTerms, Decoder, Values, encoded
from protocol.compression.steps import parse_steps
from protocol.digest import Digest, canonical_json, parse_json
from protocol.errors import CodecError, DigestError, TensorError
from protocol.manifest import BYTES_PER_VALUE, Manifest
from protocol.tensors import LENGTH_BYTES, LITTLE_ENDIAN, read_manifest

SIZE_BYTES = 4
MOST_DESCRIPTION_BYTES = 4096
PIECE_BYTES = 256 << 10
MAX_WINDOW_BYTES = 32 << 20
ZSTANDARD_LEVEL = 3


class Description(BaseModel):
    """What a difference says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["wardround.difference/1"] = Field(default="wardround.difference/1", alias="schema")
    steps: list[Annotated[str, StringConstraints(max_length=40)]] = Field(max_length=3)
    study_digest: Digest
    number: Annotated[int, Field(ge=0, le=1_000_000_000)]

    def terms(self, manifest: Manifest) -> CodingTerms:
        """Return what is needed to decode the difference of a model.

        Raises: CodecError if the steps are none.
        """
        return CodingTerms(
            parse_steps(self.steps), manifest, self.study_digest, self.number, feedback=True, use="download"
        )


def difference_bytes(difference: Iterable[Values], description: Description, manifest: Manifest) -> Iterator[bytes]:
    """Yield the file of a difference whose values come in parts of any size; memory is one block and one part."""
    text = canonical_json(description.model_dump(mode="json", by_alias=True))
    yield len(text).to_bytes(SIZE_BYTES, "little") + text
    terms = description.terms(manifest)
    coded = encoded(difference, terms)
    if not terms.steps.zstandard:
        yield from coded
        return
    compressor = zstandard.ZstdCompressor(level=ZSTANDARD_LEVEL).compressobj()
    for data in coded:
        yield compressor.compress(data)
    yield compressor.flush()


def later_version(base: Path, difference: Path) -> Iterator[bytes]:
    """Yield the weights file of the version that a difference leads to from an earlier one.

    Guarantee: the same bytes on every machine; memory is one block and one piece.
    Raises: CodecError if the file is no difference from that version, or leads to values that are not finite;
        TensorError if the base is no weights file.
    """
    manifest = read_manifest(base)
    with base.open("rb") as earlier, difference.open("rb") as file:
        yield _header(earlier)
        terms = _described(file, manifest)
        decoder = Decoder(terms)
        for data in _opened(file, zstandard_frame=terms.steps.zstandard):
            for block in decoder.feed(data):
                yield _sum(earlier, block)
        decoder.finish()


def _header(file: BinaryIO) -> bytes:
    length = file.read(LENGTH_BYTES)
    return length + file.read(int.from_bytes(length, "little"))


def _described(file: BinaryIO, manifest: Manifest) -> CodingTerms:
    size = int.from_bytes(file.read(SIZE_BYTES), "little")
    if not 0 < size <= MOST_DESCRIPTION_BYTES:
        raise CodecError("The file does not begin as a difference between versions.")
    try:
        return Description.model_validate(parse_json(file.read(size))).terms(manifest)
    except (DigestError, ValidationError):
        raise CodecError("The file does not say by which steps its difference was made.") from None


def _opened(file: BinaryIO, *, zstandard_frame: bool) -> Iterator[bytes]:
    if not zstandard_frame:
        yield from iter(lambda: file.read(PIECE_BYTES), b"")
        return
    reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(file, closefd=False)
    try:
        while data := reader.read(PIECE_BYTES):
            yield data
    except zstandard.ZstdError:
        raise CodecError("A difference is no zstandard data, or is damaged.") from None


def _sum(earlier: BinaryIO, block: Values) -> bytes:
    data = earlier.read(BYTES_PER_VALUE * block.size)
    if len(data) != BYTES_PER_VALUE * block.size:
        raise TensorError("The earlier version is cut off.")
    with np.errstate(over="ignore"):
        values = np.frombuffer(data, LITTLE_ENDIAN) + block
    if not bool(np.isfinite(values).all()):
        raise CodecError("A difference leads to values that are not finite.")
    return values.astype(LITTLE_ENDIAN, copy=False).tobytes()
