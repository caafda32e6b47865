"""The results: one line of JSON for each run, written as it ends."""

import json
from typing import NamedTuple


class Task(NamedTuple):
    """One run."""

    problem: str
    solver: str
    dtype: str


class Records:
    """The file of results; of several lines for one task the last holds."""

    def __init__(self, path):
        self.path = path
        self.records = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    self._take(json.loads(line))
                except ValueError:
                    continue  # a line that was being written when the run was interrupted

    def __contains__(self, task):
        return task in self.records

    def __iter__(self):
        return iter(self.records.values())

    def __getitem__(self, task):
        return self.records[task]

    def add(self, record):
        """Keeps ``record``, in the file as well."""
        self._take(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def forget(self, tasks):
        """Drops the results of ``tasks``, from the file as well, which it tidies."""
        for task in tasks:
            self.records.pop(task, None)
        draft = self.path.with_suffix(".draft")
        draft.write_text("".join(json.dumps(record) + "\n" for record in self))
        draft.replace(self.path)

    def _take(self, record):
        self.records[Task(*(record[field] for field in Task._fields))] = record
