import pytest

from protocol.digest import canonical_json, digest_of_bytes
from protocol.errors import MessageError
from protocol.message import Message
from protocol.messages import (
    HUB_TO_SITE,
    SITE_TO_HUB,
    Activity,
    Enrolment,
    Progress,
    Reason,
    TaskRefusal,
    expect,
    parse_message,
)

REFUSAL = TaskRefusal(site="north", task_id="t", study_digest="sha256:" + "0" * 64, reason=Reason.POLICY)


def test_a_message_survives_its_bytes() -> None:
    data = REFUSAL.canonical_bytes()
    assert parse_message(data) == REFUSAL
    assert REFUSAL.digest == digest_of_bytes(data)


def test_every_kind_names_its_version() -> None:
    kinds: tuple[type[Message], ...] = (*HUB_TO_SITE, *SITE_TO_HUB, Enrolment)
    for kind in kinds:
        assert str(kind.model_fields["schema_"].default).startswith("wardround.")
        assert str(kind.model_fields["schema_"].default).endswith("/1")


@pytest.mark.parametrize("schema", ["wardround.progress/2", "x", None, 3])
def test_an_unknown_kind_or_version_is_refused(schema: object) -> None:
    with pytest.raises(MessageError, match="unknown kind"):
        parse_message(canonical_json({"schema": schema}))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"x" * (5 << 20)])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        parse_message(data)


def test_the_error_names_fields_and_never_their_values() -> None:
    document = REFUSAL.model_dump(mode="json", by_alias=True) | {"reason": "patient Doe", "extra": "secret"}
    with pytest.raises(MessageError) as caught:
        parse_message(canonical_json(document))
    assert "reason" in str(caught.value)
    assert "extra" in str(caught.value)
    assert "Doe" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_another_kind_than_expected_is_refused() -> None:
    with pytest.raises(MessageError, match="Expected a Progress"):
        expect(REFUSAL.canonical_bytes(), Progress)


def test_what_leaves_a_hospital_has_no_free_text() -> None:
    for activity in ("training; patient Doe", "Idle"):
        with pytest.raises(MessageError):
            parse_message(canonical_json({"schema": "wardround.progress/1", "site": "a", "activity": activity}))
    assert Progress(site="a", activity=Activity.TRAINING).fraction == 0.0
