"""`python -m labrats.executor INPUTS [SCRATCH]`: run one attempt in this process.

INPUTS contains `job.json`, `prompt` and `secrets/`. Without SCRATCH the attempt also writes results and patches to
INPUTS. With SCRATCH, a folder for temporary files, it prints everything to standard output. The files of secrets are
removed once they are read.

`prepare SOURCE INPUTS [CLAIMS]` and `clone SOURCE SCRATCH` are the steps that run before the executor in an attempt's
pod. `key-proxy SOURCE TOKEN` and `cache-keeper SOURCE TOKEN` run beside it. `egress-proxy KEY DRAIN [FORBIDDEN...]`
runs the egress proxy of a cluster. It verifies grants by the key in the file KEY, treats the networks FORBIDDEN as
private ones, and, at its end, serves open connections for up to DRAIN seconds.
"""

import sys
from pathlib import Path

from labrats.processes import drop_relative_search_paths

USAGE = (
    "usage: python -m labrats.executor INPUTS [SCRATCH] | prepare SOURCE INPUTS [CLAIMS] | clone SOURCE SCRATCH | "
    "key-proxy SOURCE TOKEN | cache-keeper SOURCE TOKEN | egress-proxy KEY DRAIN [FORBIDDEN...]"
)

drop_relative_search_paths()
match sys.argv[1:]:
    case ["prepare", source, inputs, *claims] if len(claims) < 2:
        from labrats.executor.prepare_step import prepare

        sys.exit(prepare(Path(source), Path(inputs), *map(Path, claims)))
    case ["clone", source, scratch]:
        from labrats.executor.clone_step import clone

        sys.exit(clone(Path(source), Path(scratch)))
    case ["key-proxy", source, token]:
        from labrats.executor.key_proxy.sidecar import run_proxy

        sys.exit(run_proxy(Path(source), Path(token)))
    case ["cache-keeper", source, token]:
        from labrats.executor.cache_keeper import run_keeper

        sys.exit(run_keeper(Path(source), Path(token)))
    case ["egress-proxy", key, drain, *forbidden]:
        from labrats.executor.egress.cluster_proxy import run_cluster_proxy

        sys.exit(run_cluster_proxy(Path(key), drain_seconds=float(drain), forbidden=forbidden))
    case [inputs, *scratch] if len(scratch) < 2:
        from labrats.executor.attempt import execute

        sys.exit(execute(Path(inputs), *map(Path, scratch)))
sys.exit(USAGE)
