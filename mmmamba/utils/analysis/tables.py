"""Tables of measurements, as files."""

import csv
from collections.abc import Sequence
from pathlib import Path


def write_csv(path: Path, rows: Sequence[dict]) -> None:
    """Write rows under a header, which is the keys of the first one.

    Args:
        path (Path): The file; its folder is made.
        rows (Sequence[dict]): One row at least.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
