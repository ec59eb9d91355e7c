import torch
from hypothesis import given
from hypothesis import strategies as st

from site_node.privacy.patient_batch import PatientBatch
from tests.site_node.privacy.examples import UNEVEN
from tests.site_node.training.examples import make_batch

COUNTS = st.lists(st.integers(1, 9), max_size=12)


def numbered(counts: list[int]) -> PatientBatch:
    """Images that carry their patient's number times 100 plus their own; targets are the patient's number."""
    values = [100 * patient + image for patient, count in enumerate(counts) for image in range(count)]
    images = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
    return PatientBatch(images, images.flatten() // 100, torch.tensor(counts, dtype=torch.int64))


def patients_in(batch: PatientBatch) -> list[list[float]]:
    images = iter(batch.images.flatten().tolist())
    return [[next(images) for _ in range(count)] for count in batch.counts.tolist()]


def test_chunks_never_cut_a_patient() -> None:
    chunks = list(make_batch(UNEVEN).chunks(3))
    assert [chunk.counts.tolist() for chunk in chunks] == [[1], [3], [1, 2], [5], [1, 1]]
    assert all(len(chunk.images) == int(chunk.counts.sum()) for chunk in chunks)


@given(counts=COUNTS)
def test_ordering_by_count_keeps_each_patient_together_with_the_images_and_targets(counts: list[int]) -> None:
    batch, ordered = numbered(counts), numbered(counts).by_count()
    assert ordered.counts.tolist() == sorted(counts)
    assert patients_in(ordered) == sorted(patients_in(batch), key=len)
    assert torch.equal(ordered.targets, ordered.images.flatten() // 100)


@given(counts=COUNTS, at_once=st.integers(1, 5))
def test_runs_and_their_parts_cover_every_image_once_in_order(counts: list[int], at_once: int) -> None:
    batch = numbered(counts)
    seen = [part.images_of(batch.images).flatten(2) for run in batch.runs for part in run.parts(at_once)]
    assert all(len(images) <= at_once for images in seen)
    assert [value for images in seen for value in images.flatten().tolist()] == batch.images.flatten().tolist()
    assert [len(patient) for images in seen for patient in images] == counts


def test_a_sum_over_each_patients_images() -> None:
    batch = make_batch([2, 1, 3])
    values = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0], [32.0]])
    assert batch.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert batch.sum_of_each(values).tolist() == [[3.0], [4.0], [56.0]]
