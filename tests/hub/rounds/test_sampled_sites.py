"""Where a study samples its sites, a round asks those of the public draw, and the log says whom."""

from hub.storage import audit_stores
from protocol.digest import parse_json
from protocol.messages import TaskKind
from protocol.site_sampling import drawn_sites
from tests.hub.rounds.bench import Bench, filled, study_of

NAMES = ["anna", "bela", "clara"]


def test_each_round_asks_the_sites_of_its_draw_and_all_judge(bench: Bench) -> None:
    bench.begin(study_of(rounds=6, participants={"sampled": 0.5, "minimum_sites": 2}))
    seen = set()
    for number in range(1, 7):
        tasks = bench.tasks(TaskKind.TRAIN)
        assert [task.site for task in tasks] == drawn_sites(bench.study.digest, number, NAMES, 2)
        seen.add(tuple(task.site for task in tasks))
        for task in tasks:
            bench.update(task, filled(1.0))
        bench.close()
        assert [task.site for task in bench.tasks(TaskKind.EVALUATE)] == NAMES
        bench.report_all()
    assert bench.view()["state"] == "completed"
    assert len(seen) > 1


def test_the_draw_is_in_the_audit_log(bench: Bench) -> None:
    bench.begin(study_of(participants={"sampled": 0.5}))
    with bench.services.reading() as session:
        entries = [parse_json(row.entry) for row in audit_stores.entries(session, 0, 1000)]
    (opened,) = [entry for entry in entries if entry["action"] == "round.training"]
    assert opened["details"]["drawn"] == drawn_sites(bench.study.digest, 1, NAMES, 2)


def test_never_fewer_than_the_minimum_are_asked(bench: Bench) -> None:
    bench.begin(study_of(participants={"sampled": 0.01, "minimum_sites": 2}))
    assert len(bench.tasks(TaskKind.TRAIN)) == 2
