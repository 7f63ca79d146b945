"""The table of contents: every task that `fab` knows, and the flags that come with them."""

import sys
from pathlib import Path

HERE = str(Path(__file__).resolve().parent)
# Invoke puts this folder itself on sys.path, where celery.py and others would shadow real packages.
sys.path[:] = [str(Path(HERE).parent), *(path for path in sys.path if path != HERE)]
# Invoke keeps Python from writing .pyc files: all of this would be compiled at each start.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from . import cli  # noqa: E402
from .adopt import adopt  # noqa: E402, F401
from .cache import cache_stats, clear_cache  # noqa: E402, F401
from .celery import celery_snapshot, celery_status, restart_celery  # noqa: E402, F401
from .deploy import deploy, rollback, rollforward  # noqa: E402, F401
from .hosts import check, put_shared, setup, trust_hosts  # noqa: E402, F401
from .nginx import check_nginx, deploy_nginx, prove_nginx, render_nginx  # noqa: E402, F401
from .promote import promote_solr  # noqa: E402, F401
from .rehearse import rehearse  # noqa: E402, F401
from .reports import audit, releases, unlock  # noqa: E402, F401
from .running import running  # noqa: E402, F401
from .sandbox import sandbox_down, sandbox_status, sandbox_up  # noqa: E402, F401
from .solr import deploy_solr, rollback_solr  # noqa: E402, F401
from .solr_reports import solr_status  # noqa: E402, F401

cli.install()
