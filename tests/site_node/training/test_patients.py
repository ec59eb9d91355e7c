from pathlib import Path

import numpy as np
import pytest
import torch

from protocol.study_parts import Split
from site_node.cohort.cohort import Cohort, ImageRef, Patient
from site_node.training.patients import draw_batch, prepare_cohort
from site_node.training.pixel_cache import PixelCache
from site_node.training.sealed_images import SealedImages
from tests.site_node.training.examples import COHORT, make_noise, make_patients, make_study

CPU = torch.device("cpu")


def make_cohort(digest: str = COHORT) -> Cohort:
    plan: list[tuple[str, int, Split]] = [
        ("a", 2, "train"),
        ("b", 1, "validation"),
        ("c", 3, "train"),
        ("d", 1, "test"),
    ]
    patients = []
    for number, (key, images, split) in enumerate(plan):
        references = tuple(ImageRef(Path(f"{key}{i}"), f"1.2.{number}.{i}", number % 2) for i in range(images))
        patients.append(Patient(key, references, number % 2, split))
    return Cohort(tuple(patients), digest)


class Reader:
    """Decodes made-up pictures and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, reference: ImageRef) -> np.ndarray:
        self.asked += 1
        picture = np.zeros((16, 16), np.float32)
        picture.flat[ord(reference.path.name[0]) % 16 + 16 * int(reference.path.name[1])] = 1
        return picture


def test_a_cohort_is_cut_into_splits_with_each_patients_images_together() -> None:
    prepared = prepare_cohort(make_study(), make_cohort(), ["train", "test"], None, read=Reader())
    assert set(prepared) == {"train", "test"}
    train = prepared["train"]
    assert train.patients == 2
    assert train.first_image.tolist() == [0, 2, 5]
    assert train.labels.tolist() == [0, 0]
    assert train.images_of(1).tolist() == [2, 3, 4]
    alone = prepare_cohort(make_study(), make_cohort(), ["test"], None, read=Reader())["test"]
    assert torch.equal(alone.pixels_of(np.array([0])), prepared["test"].pixels_of(np.array([0])))
    assert prepared["test"].rows.tolist() == [6]


def test_a_split_without_patients_is_left_out() -> None:
    only = Cohort(tuple(p for p in make_cohort().patients if p.split == "train"), COHORT)
    assert set(prepare_cohort(make_study(), only, ["train", "validation"], None, read=Reader())) == {"train"}


def test_images_are_decoded_once_for_a_cohort_and_preprocessing(tmp_path: Path) -> None:
    read = Reader()
    cache = PixelCache(tmp_path / "cache", tmp_path / "key")
    first = prepare_cohort(make_study(), make_cohort(), ["train"], cache, read=read)["train"]
    again = prepare_cohort(make_study(), make_cohort(), ["train", "test"], cache, read=read)["train"]
    assert read.asked == 7
    assert np.array_equal(first.images, again.images)
    assert isinstance(again.images, SealedImages)  # a large cohort is never whole in memory
    prepare_cohort(make_study(), make_cohort("sha256:" + "3" * 64), ["train"], cache, read=read)
    prepare_cohort(make_study(size=(8, 8)), make_cohort(), ["train"], cache, read=read)
    assert read.asked == 21
    assert len(list(cache.folder.iterdir())) == 3


def test_a_batch_holds_at_most_so_many_images_of_a_patient() -> None:
    study, patients = make_study(sampling_rate=1.0, images_per_patient=3), make_patients([5, 1, 3])
    batch = draw_batch(study, patients, make_noise(), CPU)
    assert batch.counts.tolist() == [3, 1, 3]
    assert batch.targets.tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert batch.images.dtype == torch.float32


def test_all_of_a_patients_images_are_seen_in_time() -> None:
    study, patients, noise = make_study(sampling_rate=1.0, images_per_patient=1), make_patients([4]), make_noise()
    seen = {draw_batch(study, patients, noise, CPU).images.numpy().tobytes() for _ in range(60)}
    assert len(seen) == 4


def test_a_draw_may_be_empty() -> None:
    batch = draw_batch(make_study(sampling_rate=1e-9, augmentation="light"), make_patients([1, 2]), make_noise(), CPU)
    assert batch.patients == 0
    assert batch.images.shape == (0, 1, 16, 16)


def test_the_same_noise_source_draws_the_same_batches() -> None:
    study, patients = make_study(augmentation="medium"), make_patients([1, 2, 3, 4] * 5)
    one, other = (draw_batch(study, patients, make_noise(), CPU) for _ in range(2))
    assert torch.equal(one.images, other.images)
    another = draw_batch(study, patients, make_noise(task="sha256:other"), CPU)
    assert one.images.shape != another.images.shape or not torch.equal(one.images, another.images)


@pytest.mark.parametrize("label", [None, 1])
def test_an_image_without_a_label_takes_its_patients(label: int | None) -> None:
    image = ImageRef(Path("a0"), "1.2", label)
    cohort = Cohort((Patient("a", (image,), 1, "train"),), COHORT)
    prepared = prepare_cohort(make_study(), cohort, ["train"], None, read=Reader())["train"]
    assert prepared.targets.tolist() == [1.0]
