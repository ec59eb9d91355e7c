"""The figures of `fake_hub.py`: three hospitals; one study runs, one has ended, one waits. Deterministic."""

import hashlib
import math
from typing import Any

from protocol.study import StudySpec, parse_study
from tests.fakes import fake_receipts

HOSPITALS = {"northgate": 167, "riverside": 100, "st-anna": 67}
BIAS = {"northgate": 0.012, "riverside": -0.006, "st-anna": -0.022}
WEIGHTS_BYTES = 1_184_320


def digest_of(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def wobble(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 0xFFFFFF - 0.5


def specification(name: str, title: str, rounds: int, epsilon: float | None, **terms: Any) -> StudySpec:
    return parse_study(
        {
            "name": name,
            "title": title,
            "description": "Frontal chest radiographs; a patient is positive if any image shows pneumonia.",
            "cohort": {"modality": ["DX", "CR"], "body_part": ["CHEST"]},
            "label": {"classes": ["no pneumonia", "pneumonia"]},
            "network": {"name": "densenet"},
            "training": {"local_steps": 12, "sampling_rate": 0.2, "learning_rate": 0.4},
            "rounds": rounds,
            "participants": {"training_patients": 334, "minimum_sites": 2, "deadline_seconds": 600},
            "privacy": {"epsilon": epsilon, "delta": 1e-4},
            **terms,
        }
    )


def studies(now: float) -> list[dict[str, Any]]:
    rates = {"adapt": "both", "quality_epsilon": 0.8}
    told = {"epsilon": 8.0, "delta": 1e-4, "receipt_epsilon": 0.2}
    running = specification("pneumonia-cxr", "Pneumonia on chest radiographs", 16, 8.0, site_rates=rates, privacy=told)
    pilot = specification("pneumonia-pilot", "Pneumonia, pilot without privacy", 8, None)
    noised = {"epsilon": 3.0, "delta": 1e-4, "count_epsilon": 0.3}
    waiting = specification("effusion-cxr", "Pleural effusion on chest radiographs", 20, 3.0, privacy=noised)
    return [
        _study(running, "running", now - 3900, round_number=9, noise=0.94),
        _study(pilot, "completed", now - 6.2 * 86400, round_number=8, noise=None),
        _study(waiting, "proposed", now - 540, round_number=None, noise=1.83),
    ]


def _study(spec: StudySpec, state: str, at: float, round_number: int | None, noise: float | None) -> dict[str, Any]:
    target = spec.privacy.epsilon
    spent = None if target is None or round_number is None else target * math.sqrt((round_number - 1) / spec.rounds)
    proposed = state == "proposed"
    return {
        "digest": spec.digest,
        "name": spec.name,
        "title": spec.title,
        "description": spec.description,
        "state": state,
        "reason": "",
        "kind": spec.kind,
        "study": spec.model_dump(mode="json", by_alias=True),
        "noise_multiplier": noise,
        "rounds_planned": spec.rounds,
        "round": round_number,
        "proposed_by": "ada",
        "proposed_at": at,
        "started_at": None if proposed else at + 300,
        "ended_at": at + 4000 if state == "completed" else None,
        "final_version": spec.rounds if state == "completed" else None,
        "privacy": {"unit": "patient", "epsilon_target": target, "epsilon": spent, "delta": spec.privacy.delta},
        "sites": [_study_site(name, proposed, spec) for name in [*HOSPITALS, "hillcrest"]],
    }


def _study_site(name: str, proposed: bool, spec: StudySpec) -> dict[str, Any]:
    state, reason = "approved", None
    if name == "hillcrest":
        state, reason = ("invited", None) if proposed else ("refused", "too-few-patients")
    elif proposed and name != "northgate":
        state = "invited"
    known = state == "approved"
    return {
        "site": name,
        "state": state,
        "reason": reason,
        "training_patients": HOSPITALS[name] if known else 0,
        "evaluates": known,
        "quality": _quality(name) if known and spec.site_rates.reads_quality else None,
        "readiness": _readiness() if proposed and name == "hillcrest" else None,
    }


def _readiness() -> dict[str, Any]:
    return {
        **{"number": 1, "policy": "allows", "tasks": "taken", "train_hours": 70, "received_at": 1_800_000_000.0},
        **{"labels": "no-column", "class_names": "every", "decoders": "all", "device": "cpu"},
        **{"disk": "suffices", "memory": "too-small", "minutes_a_round": 20, "stand_ins": 167},
        **{"epsilon": 3.0, "noise_multiplier": 1.1},
    }


def _quality(name: str) -> dict[str, Any]:
    patients = HOSPITALS[name]
    unreadable = 24 if name == "st-anna" else 2
    return {"positive": round(0.45 * patients), "unreadable": unreadable, "repeated": 0, "noise_epsilon": 0.8}


def rates(study: dict[str, Any], name: str, number: int, done: bool) -> dict[str, Any]:
    """Return a hospital's factor in a round and what its update said: the smallest one falls behind."""
    if study["study"]["site_rates"]["adapt"] == "none":
        return {"rate_factor": None, "rate_parts": None}
    end = {"northgate": 1.22, "riverside": 1.03, "st-anna": 0.57}[name]
    factor = 1 + (end - 1) * (1 - 0.5 ** (number - 1)) + 0.04 * wobble(f"rate{name}{number}")
    agreement = {"northgate": 0.34, "riverside": 0.22, "st-anna": -0.31}[name]
    parts = {"quality": 0.84 if name == "st-anna" else 0.99, "updates": end, "agreement": agreement, "trend": 0.08}
    return {"rate_factor": round(factor, 4) if number > 1 else None, "rate_parts": parts if done else None}


def sites(now: float) -> list[dict[str, Any]]:
    def site(name: str, state: str, seen: float | None, activity: str, fraction: float, task: str | None) -> Any:
        online = seen is not None and seen < 60
        return {
            "name": name,
            "state": state,
            "enrolled_at": None if state == "invited" else now - 40 * 86400,
            "last_seen_at": None if seen is None else now - seen,
            "online": online,
            "activity": activity,
            "fraction": fraction,
            "task": task,
        }

    return [
        site("northgate", "enrolled", 2, "waiting", 0.0, None),
        site("riverside", "enrolled", 4, "training", 0.62, "pneumonia-cxr.r9.riverside.train"),
        site("st-anna", "enrolled", 1300, "training", 0.18, "pneumonia-cxr.r9.st-anna.train"),
        site("hillcrest", "enrolled", 11, "idle", 0.0, None),
        site("lakeside", "invited", None, "idle", 0.0, None),
    ]


def metrics(key: str, centre: float, patients: int, *, splits: bool = True) -> dict[str, Any]:
    auc = min(0.97, centre + 0.02 * wobble(key))
    half = 1.15 * math.sqrt(auc * (1 - auc) / patients)
    positives: int | None = round(patients * 0.3)
    found: dict[str, Any] = {
        "auc": auc,
        "auc_low": max(0.0, auc - half),
        "auc_high": min(1.0, auc + half),
        "brier": 0.25 - 0.14 * (auc - 0.5) + 0.01 * wobble(key + "b"),
        "ece": 0.06 + 0.03 * wobble(key + "e"),
        "patients": patients,
        "positives": positives if positives is not None and positives >= 5 else None,
        "sensitivity": 0.35 + 0.5 * (auc - 0.5) + 0.05 * wobble(key + "s"),
        "specificity": 0.88 + 0.05 * wobble(key + "p"),
        "accuracy": 0.75 + 0.2 * (auc - 0.5) + 0.02 * wobble(key + "y"),
        "concordance": None,
    }
    if splits:
        found["noise_epsilon"] = None
        found["privacy"] = "held-out patients: no DP"
        found["counts"] = "each hospital's in clear"
        first = patients // 3
        found["by_split"] = {
            "validation": metrics(key + "v", auc - 0.006, first, splits=False),
            "test": metrics(key + "t", auc + 0.003, patients - first, splits=False),
        }
    return found


def centre_of(study: dict[str, Any], number: int) -> float:
    ceiling = 0.885 if study["privacy"]["epsilon_target"] is None else 0.832
    return ceiling - (ceiling - 0.53) * math.exp(-number / 3.2)


def epsilon_at(study: dict[str, Any], number: int) -> float | None:
    target = study["privacy"]["epsilon_target"]
    return None if target is None else float(target * math.sqrt(number / study["rounds_planned"]))


def rounds(study: dict[str, Any], now: float) -> list[dict[str, Any]]:
    if study["round"] is None:
        return []
    running = study["state"] == "running"
    start = study["started_at"]
    found = []
    for number in range(study["round"] + 1):
        live = running and number == study["round"]
        opened = now - 680 if live else start + number * 310
        seconds = None if live else 270.0 + 60 * wobble(f"seconds{number}")
        scored = number > 0 and not live
        found.append(
            {
                "number": number,
                "state": "training" if live else "complete",
                "version": None if live else number,
                "opened_at": opened,
                "deadline_at": opened + 600,
                "ended_at": None if seconds is None else opened + seconds,
                "seconds": seconds,
                "reason": "",
                "metrics": metrics(f"pooled{number}", centre_of(study, number), 93) if scored else None,
                "sites": [_round_site(study, name, number, live) for name in HOSPITALS]
                if number
                else [_first_round_site(name) for name in HOSPITALS],
                "warnings": fake_receipts.warnings(study, number),
            }
        )
    return found


def _first_round_site(name: str) -> dict[str, Any]:
    """One hospital builds version 0, all evaluate it."""
    builds = name == "northgate"
    return {
        "site": name,
        "train_state": "accepted" if builds else None,
        "evaluate_state": "accepted",
        "reason": None,
        "activity": None,
        "fraction": None,
        "patients": HOSPITALS[name],
        "epsilon": None,
        "update_bytes": round(WEIGHTS_BYTES * 0.92) if builds else None,
        "bytes_up": round(WEIGHTS_BYTES * 0.93) if builds else 900,
        "bytes_down": WEIGHTS_BYTES,
        "train_seconds": 2.0 if builds else None,
        "norm": None,
        "metrics": None,
    }


def _round_site(study: dict[str, Any], name: str, number: int, live: bool) -> dict[str, Any]:
    busy = {"northgate": "accepted", "riverside": "delivered", "st-anna": "delivered"}[name] if live else "accepted"
    done = busy == "accepted"
    missed = name == "st-anna" and number == 4
    scored = not live and not missed
    return {
        "site": name,
        "train_state": "refused" if missed else busy,
        "evaluate_state": None if live else "accepted",
        "reason": "out-of-memory" if missed else None,
        "activity": {"northgate": "waiting", "riverside": "training", "st-anna": "training"}[name] if live else None,
        "fraction": {"northgate": 0.0, "riverside": 0.62, "st-anna": 0.18}[name] if live else None,
        "patients": HOSPITALS[name],
        "epsilon": epsilon_at(study, number if done else number - 1),
        "update_bytes": round(WEIGHTS_BYTES * 0.92) if done and not missed else None,
        "bytes_up": round(WEIGHTS_BYTES * 0.93) if done and not missed else 0,
        "bytes_down": 2 * WEIGHTS_BYTES if not live else WEIGHTS_BYTES,
        "train_seconds": 60 + 40 * wobble(f"{name}{number}") + HOSPITALS[name] / 4 if done and not missed else None,
        "norm": 1.2 if done else None,
        "metrics": metrics(f"{name}{number}", centre_of(study, number) + BIAS[name], 31) if scored else None,
        "receipt": fake_receipts.receipt(study, name, number, HOSPITALS[name]) if done and not missed else None,
        **rates(study, name, number, done and not missed),
    }


def versions(study: dict[str, Any], now: float) -> list[dict[str, Any]]:
    if study["round"] is None:
        return []
    last = study["round"] - (1 if study["state"] == "running" else 0)
    return [_version(study, number, last) for number in range(last + 1)]


def _version(study: dict[str, Any], number: int, last: int) -> dict[str, Any]:
    key = study["name"]
    took_part = [n for n in HOSPITALS if not (n == "st-anna" and number == 4)] if number else []
    decided = study["state"] == "completed" and number == last
    return {
        "number": number,
        "digest": digest_of(f"{key}/v{number}"),
        "weights_bytes": WEIGHTS_BYTES,
        "manifest_digest": digest_of("manifest"),
        "parents": [digest_of(f"{key}/v{number - 1}")] if number else [],
        "round": number,
        "created_at": study["started_at"] + 310 * number + 200,
        "participants": [
            {
                **{"site": n, "weight": float(HOSPITALS[n]), "update_digest": digest_of(f"{key}/{n}/{number}")},
                "used": fake_receipts.receipt(study, n, number, HOSPITALS[n]),
            }
            for n in took_part
        ],
        "privacy": {"epsilon": epsilon_at(study, number), "delta": study["privacy"]["delta"]},
        "metrics": metrics(f"pooled{number}", centre_of(study, number), 93) if number else None,
        "decisions": [
            {
                "person": "claire",
                "decision": "accepted",
                "comment": "Ranks our own reading list sensibly. Good enough to go on with privacy switched on.",
                "decided_at": study["ended_at"] + 7200,
            }
        ]
        if decided
        else [],
        "lineage_envelope": {
            "payloadType": "application/vnd.wardround.lineage+json",
            "payload": "e30=",
            "signatures": [],
        },
    }


def validation(study: dict[str, Any], number: int) -> dict[str, Any]:
    centre = centre_of(study, number)
    pooled = metrics(f"pooled{number}", centre, 93) | _curves(f"pooled{number}", centre, 93)
    each = [
        {"site": n} | metrics(f"{n}{number}", centre + BIAS[n], 31) | _curves(f"{n}{number}", centre + BIAS[n], 31)
        for n in HOSPITALS
    ]
    return {"pooled": pooled, "sites": each}


def _curves(key: str, auc: float, patients: int) -> dict[str, Any]:
    power = auc / (1 - auc)
    steps = 30
    roc = [(0.0, 0.0)] + [(i / steps, min(1.0, (i / steps) ** (1 / power))) for i in range(1, steps + 1)]
    groups = 8 if patients > 60 else 4
    calibration = []
    for group in range(groups):
        score = 0.06 + 0.8 * group / groups
        seen = max(0.0, min(1.0, 0.9 * score + 0.02 + 0.16 * wobble(f"{key}c{group}")))
        inside = round(patients / groups * (1.9 - 1.8 * group / groups))
        calibration.append((score, seen, inside if inside >= 5 else None))
    return {"roc": roc, "calibration": calibration}


def check_of(study: StudySpec) -> dict[str, Any]:
    epsilon = study.privacy.epsilon
    by_round = [] if epsilon is None else [epsilon * math.sqrt((n + 1) / study.rounds) for n in range(study.rounds)]
    steps = study.rounds * study.local_steps
    noise = None if epsilon is None else 0.45 + 2.1 * study.training.sampling_rate * math.sqrt(steps) / epsilon
    return {
        "digest": study.digest,
        "noise_multiplier": noise,
        "epsilon_by_round": by_round,
        "study": study.model_dump(mode="json", by_alias=True),
    }


def proposal_of(spec: StudySpec, invited: list[str], person: str, now: float) -> dict[str, Any]:
    noise = check_of(spec)["noise_multiplier"]
    found = _study(spec, "proposed", now, None, noise)
    return found | {
        "proposed_by": person,
        "sites": [
            {"site": n, "state": "invited", "reason": None, "training_patients": 0, "evaluates": True} for n in invited
        ],
    }


def audit_head(size: int) -> dict[str, Any]:
    envelope = '{"payload":"e30=","payloadType":"application/vnd.wardround.audit-head+json","signatures":[]}'
    return {"size": size, "root": digest_of("root"), "chain": digest_of("head"), "envelope": envelope}


def audit(now: float) -> list[dict[str, Any]]:
    lines: list[tuple[str, str, str, dict[str, Any]]] = []
    for person, role in (("ada", "researcher"), ("claire", "clinician")):
        lines.append(("otto", "person.added", person, {"role": role}))
    for name in HOSPITALS:
        lines += [("otto", "site.invited", name, {}), (name, "site.enrolled", name, {})]
    for study in studies(now)[1::-1]:
        lines.append(("ada", "study.proposed", study["name"], {"digest": study["digest"]}))
        lines += [(n, "study.approved", study["name"], {"training_patients": HOSPITALS[n]}) for n in HOSPITALS]
        lines.append(("hub", "study.started", study["name"], {}))
        for version in versions(study, now):
            number = version["number"]
            lines += [
                (p["site"], "update.accepted", study["name"], {"round": number, "digest": p["update_digest"]})
                for p in version["participants"]
            ]
            lines.append(("hub", "version.registered", study["name"], {"number": number, "digest": version["digest"]}))
    start = now - 7 * 86400
    return [
        {
            "number": index + 1,
            "time": start + index * (7 * 86400 - 900) / len(lines),
            "actor": actor,
            "action": action,
            "subject": subject,
            "details": details,
            "hash": digest_of(f"entry{index}"),
            "chain": digest_of(f"chain{index}"),
        }
        for index, (actor, action, subject, details) in enumerate(lines)
    ]
