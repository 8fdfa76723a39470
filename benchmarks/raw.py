"""The raw loop: the least that any engine must do for a job."""

import os
import time
from contextlib import closing
from pathlib import Path

import apsw

ROW_BYTES = 1000


def raw_jobs_per_second(database: Path, jobs: int) -> float:
    """Return the rate at which jobs complete if each only commits a row to stable storage and runs /bin/true."""
    with closing(apsw.Connection(str(database))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.execute("CREATE TABLE jobs (body BLOB)")
        began = time.perf_counter()
        for _ in range(jobs):
            connection.execute("INSERT INTO jobs VALUES (?)", (os.urandom(ROW_BYTES),))
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
        return jobs / (time.perf_counter() - began)
