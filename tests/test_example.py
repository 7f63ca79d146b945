"""The example site, run for real: locked requirements, gunicorn, Celery, memcached and Redis."""

import contextlib
import json
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.released import (
    BROKER,
    CACHE1,
    CACHE2,
    CACHED,
    DB,
    ENV,
    LB,
    LOCK,
    LONELY,
    QUEUED,
    RELEASE,
    WEB,
    Site,
    host,
    memcached,
    redis,
    running,
    wait_for,
)

pytest_plugins = ["tests.released"]


@pytest.fixture
def site(publish):
    """A release alone in the world, its database migrated."""
    site = publish(LONELY)
    site.manage("migrate", "-v0")
    return site


def test_the_lock_pins_every_requirement_by_hash_and_names_no_index():
    text = LOCK.read_text()
    pins = re.findall(r"^([a-z0-9-]+)==", text, re.M)
    assert {"django", "celery", "redis", "psycopg", "pymemcache", "gunicorn"} <= set(pins)
    hashed = re.findall(r"^\S+==.*(?:\\\n    --hash=sha256:[0-9a-f]{64} ?)+$", text, re.M)
    assert len(hashed) == len(pins)
    assert "://" not in text and "--index" not in text


def test_the_schema_of_solr_is_made_of_the_index_classes(publish, tmp_path):
    site, made = publish(LONELY), tmp_path / "schema.xml"
    with (site.root / ".env").open("a") as secrets:
        secrets.write("SEARCH_URL=http://127.0.0.1:1/solr/conference\n")
    site.manage("build_solr_schema", "--filename", str(made))
    assert made.read_text() == (ROOT / "templates/solr/conference/conf/schema.xml").read_text()


def test_a_build_needs_no_secret_and_no_server(built):
    manifest = json.loads((built / "static" / "staticfiles.json").read_text())
    assert (built / "static" / manifest["paths"]["directory/site.css"]).is_file()


def test_a_checkout_is_alone_whatever_servers_json_says(built, python):
    names = ("DEBUG", "CACHES", "CELERY_TASK_ALWAYS_EAGER", "DATABASES['default']['ENGINE']")
    locmem = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    sqlite = "django.db.backends.sqlite3"
    assert Site(built, python).settings(*names) == [True, locmem, True, sqlite]


def test_a_checkout_finds_the_inventory_one_folder_up(built, python, tmp_path):
    root = tmp_path / "example"
    shutil.copytree(built, root)
    for name in ("inventory.py", "servers.json"):
        (root / name).rename(tmp_path / name)
    (root / ".env").write_text(ENV)
    (tmp_path / "servers.json").write_text(json.dumps(QUEUED))
    assert Site(root, python).settings("CELERY_BROKER_URL", "DEBUG") == [BROKER, False]


def test_models_and_migrations_agree(site):
    site.manage("check", "--fail-level", "WARNING")
    site.manage("makemigrations", "--check", "--dry-run")


def test_production_settings_are_secure(publish):
    site = publish(LONELY)
    key = "".join(map(chr, range(48, 123)))
    environ = {"SECRET_KEY": key, "HTTPS": "1"}
    site.run("python", "manage.py", "check", "--deploy", "--fail-level", "WARNING", **environ)


def test_settings_come_from_the_roles(publish):
    fleet = [*CACHED, QUEUED[-1], host("db1", DB, "db"), host("lb1", LB, "nginx")]
    names = ("DEBUG", "SECRET_KEY", "CACHES['default']['LOCATION']", "CELERY_BROKER_URL")
    found = publish(fleet).settings(*names, "DATABASES['default']", "ALLOWED_HOSTS")
    assert found[:4] == [
        False,
        "not a secret",
        [f"{CACHE1}:11211", f"{CACHE2}:11211"],
        BROKER,
    ]
    wanted = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": DB,
        "PORT": 5432,
        "NAME": "conference",
        "USER": "conference",
        "PASSWORD": "pass=word",
    }
    assert found[4].items() >= wanted.items()
    names = {
        "localhost",
        "127.0.0.1",
        "lb1",
        LB,
        "lb1.example.org",
        "web1",
        WEB,
        "web1.example.org",
    }
    assert set(found[5]) == names


def test_the_database_without_a_server_outlives_the_release(site):
    assert (site.root.parent.parent / "shared" / "conference.sqlite3").is_file()


def test_a_line_that_is_no_secret_is_refused_without_printing_it(publish):
    site = publish(LONELY)
    (site.root / ".env").write_text("SECRET_KEY=x\nhunter2\n")
    message = site.manage("check", code=1)
    assert ".env: line 2: is not NAME=value" in message and "hunter2" not in message


def test_a_served_release_shows_itself(site):
    with site.served() as get:
        status, page = get("/")
        assert status == 200 and RELEASE in page and "Harbour Python" in page
        assert re.search(r'href="/static/directory/site\.[0-9a-f]{12}\.css"', page)
        ok = {"status": "ok", "release": RELEASE, "database": "ok", "cache": "ok",
              "broker": "ok", "search": "ok"}
        assert get("/healthz") == (200, ok)
        status, facts = get("/__release__")
        assert status == 200 and facts["release"] == RELEASE
        assert set(facts) == {"release", "pid", "master", "started"}
        parent = Path(f"/proc/{facts['pid']}/stat").read_text().rpartition(")")[2].split()[1]
        assert facts["master"] == int(parent)


def test_a_process_keeps_to_the_release_it_started_from(site, publish):
    newer = publish(LONELY, "20261124090000")
    current = site.root.parent.parent / "current"
    current.symlink_to(f"releases/{RELEASE}")
    linked = Site(current, site.python)
    with linked.served() as get:
        assert get("/__release__")[1]["release"] == RELEASE
        current.unlink()
        current.symlink_to(f"releases/{newer.root.name}")
        assert get("/__release__")[1]["release"] == RELEASE
    with linked.served() as get:
        assert get("/__release__")[1]["release"] == newer.root.name


def test_health_names_the_database_that_is_down(publish):
    with publish([*LONELY, host("db1", DB, "db")]).served() as get:
        status, report = get("/healthz")
        assert status == 503 and report["status"] == "failing" and report["cache"] == "ok"
        assert DB in report["database"] and "refused" in report["database"]


def test_a_dead_cache_is_no_error_page_but_health_names_it(publish):
    site = publish(CACHED)
    site.manage("migrate", "-v0")
    with memcached(CACHE1), memcached(CACHE2) as second, site.served() as get:
        assert get("/")[0] == get("/healthz")[0] == 200
        second.terminate()
        second.wait()
        status, report = get("/healthz")
        assert status == 503 and report["database"] == "ok"
        assert report["cache"] == f"{CACHE2}:11211: [Errno 111] Connection refused"
        assert [get("/")[0] for _ in range(20)] == [200] * 20


def test_a_hanging_cache_costs_a_page_half_a_second_and_health_two(publish):
    site = publish(CACHED[:2])
    site.manage("migrate", "-v0")
    with memcached(CACHE1) as cache, site.served() as get:
        assert get("/")[0] == 200
        cache.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        assert get("/")[0] == 200
        page = time.monotonic()
        assert get("/healthz")[1]["cache"] == f"{CACHE1}:11211: timed out"
        assert page - begun < 2 and time.monotonic() - page < 3.5


def test_pages_are_kept_in_the_cache(publish):
    site = publish(CACHED[:2])
    site.manage("migrate", "-v0")
    with memcached(CACHE1), site.served() as get:
        assert "Small Servers" in get("/")[1]
        (site.root.parent.parent / "shared" / "conference.sqlite3").unlink()
        assert "Small Servers" in get("/")[1]


def test_without_a_broker_tasks_run_at_once(site):
    batch = site.manage("queue_records", "3")
    assert site.manage("count_records", batch) == "done 3 distinct 3"
    assert site.manage("count_records", "nosuchbatch") == "done 0 distinct 0"


def test_counting_shows_a_task_that_ran_twice(site):
    code = "from directory.tasks import record; [record('b', n) for n in (1, 2, 2)]"
    site.manage("shell", "-v0", "-c", code)
    assert site.manage("count_records", "b") == "done 3 distinct 2"


def test_a_dead_broker_is_said_in_one_line(publish):
    message = publish(QUEUED).manage("queue_records", "1", code=1)
    assert "cannot queue task 1" in message and "Traceback" not in message


def test_importing_all_task_code_needs_no_broker(publish):
    site = publish(QUEUED)
    assert "directory.tasks.record" in site.manage("check_tasks").split()
    (site.root / "directory" / "tasks.py").write_text("import nosuchmodule\n")
    assert "nosuchmodule" in site.manage("check_tasks", code=1)


def test_a_worker_tells_its_release_and_a_restart_loses_nothing(publish):
    site = publish(QUEUED)
    site.manage("migrate", "-v0")
    words = (
        "celery",
        "-A",
        "conference",
        "worker",
        "-n",
        "celery@queue1",
        "-c",
        "2",
        "-l",
        "ERROR",
    )
    worker = site.command(*words, "--without-mingle", "--without-gossip")
    with redis():
        batch = site.manage("queue_records", "30", "--seconds", "0.2")
        with running(worker) as process:
            wait_for(lambda: recorded(site) >= 2, "the first tasks")
            inspect = ("inspect", "--timeout", "5", "--json", "-d", "celery@queue1", "release")
            answer = json.loads(site.run("celery", "-A", "conference", *inspect))["celery@queue1"]
            assert (answer["release"], answer["pid"]) == (RELEASE, process.pid)
        assert 2 <= recorded(site) < 30
        with running(worker):
            wait_for(lambda: recorded(site) >= 30, "all tasks")
        assert site.manage("count_records", batch) == "done 30 distinct 30"


def recorded(site):
    path = site.root.parent.parent / "shared" / "conference.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("select count(*) from directory_record").fetchone()[0]
