"""What the sites said of a study's last version, from the database of a simulation's hub."""

import sqlite3
from contextlib import closing
from pathlib import Path

from protocol.messages import EvaluationReport, expect


def last_reports(database: Path) -> list[EvaluationReport]:
    """Return the sites' reports on the last version, as the hub keeps them: what it shows hides small sites."""
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT report FROM evaluations WHERE version = (SELECT max(version) FROM evaluations) ORDER BY site"
        return [expect(row[0], EvaluationReport) for row in connection.execute(query)]
