"""What is said to supervisord and systemd, and a real supervisord that is told it."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from fabfile import services
from fabfile.env import Services, env
from fabfile.errors import Usage
from fabfile.services import Process, Supervisor, Systemd
from tests.conftest import BIN


@pytest.fixture(autouse=True)
def settings():
    env.services = Services()
    yield
    env.services = Services()


def test_the_exact_words_for_supervisord():
    manager = Supervisor()
    assert manager.restart("celery") == (
        "{ supervisorctl restart celery >&2 || { supervisorctl tail celery >&2; false; }; }"
    )
    assert manager.restart("web", 2) == (
        "{ supervisorctl restart web:web_0 >&2 || { supervisorctl tail web:web_0 >&2; false; }; }"
        " && "
        "{ supervisorctl restart web:web_1 >&2 || { supervisorctl tail web:web_1 >&2; false; }; }"
    )
    assert manager.reload("nginx") == (
        "{ supervisorctl signal HUP nginx || supervisorctl start nginx; } >&2"
    )
    assert manager.stop("web") == "supervisorctl stop 'web:*' >&2"


def test_the_exact_words_for_systemd():
    manager = Systemd()
    assert manager.restart("web") == (
        "{ systemctl restart web.service || { journalctl --no-pager -n 20 -u web >&2; false; }; }"
    )
    assert manager.reload("nginx") == "systemctl reload-or-restart nginx.service"
    assert manager.status(["web", "celery"]) == (
        "systemctl show --property=Id,ActiveState,MainPID web.service celery.service"
    )
    assert manager.reread(["web.socket", "web.service"]) == (
        "systemctl daemon-reload && systemctl enable --quiet web.socket && "
        "systemctl enable --quiet web.service && systemctl start web.socket"
    )


def test_a_units_name_is_quoted():
    assert "'a b;c'" in Supervisor().restart("a b;c")
    assert "'a b;c.service'" in Systemd().restart("a b;c")


def test_sudo_wraps_the_whole_command():
    env.services = Services(sudo=True)
    assert services.privileged("a && b") == "sudo -n sh -c 'a && b'"


def test_an_unknown_manager_is_refused_with_the_nearest():
    env.services = Services(manager="systemctl")
    with pytest.raises(Usage, match="did you mean systemd"):
        services.manager()


def test_what_supervisord_answers():
    text = """web:web_0                        RUNNING   pid 32717, uptime 0:00:05
web:web_1                        FATAL     Exited too quickly (process log may have details)
celery                           STOPPED   Nov 24 09:31 AM
"""
    assert Supervisor().parse_status(text) == {
        "web": [Process("web:web_0", "RUNNING", 32717), Process("web:web_1", "FATAL")],
        "celery": [Process("celery", "STOPPED")],
    }


def test_what_systemd_answers():
    text = "MainPID=12\nId=web.service\nActiveState=active\n\nMainPID=0\nId=celery.service\n" \
           "ActiveState=failed\n"
    assert Systemd().parse_status(text) == {
        "web": [Process("web.service", "active", 12)],
        "celery": [Process("celery.service", "failed")],
    }


@pytest.fixture(scope="module")
def home():
    """A home with a real supervisord; its socket's path has to be short."""
    with tempfile.TemporaryDirectory(prefix="sv") as folder:
        home = Path(folder)
        (home / "supervisord.conf").write_text(f"""
[supervisord]
nodaemon=true
logfile={home}/log
pidfile={home}/pid
[unix_http_server]
file={home}/s
[supervisorctl]
serverurl=unix://{home}/s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[include]
files=supervisor/conf.d/*.conf
""")
        daemon = subprocess.Popen([BIN / "supervisord", "-c", home / "supervisord.conf"],
                                  stdout=subprocess.DEVNULL)
        while not (home / "s").exists():
            time.sleep(0.05)
        yield home
        daemon.terminate()
        daemon.wait(20)


def sh(home, command):
    """The command as a login on the host would run it."""
    return subprocess.run(["sh", "-c", command], cwd=home, text=True, capture_output=True,
                          env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}, timeout=60)


def program(name, command, **options):
    lines = [f"[program:{name}]", f"command={command}", "stopsignal=TERM", "redirect_stderr=true",
             f"stdout_logfile=%(here)s/../../{name}.log",
             *(f"{key}={value}" for key, value in options.items())]
    return "\n".join(lines) + f"\n; {services.MARK}\n"


def test_units_are_installed_replaced_and_taken_away(home):
    units = {"one.conf": program("one", "sleep 60"), "two.conf": program("two", "sleep 60")}
    folder = home / "supervisor/conf.d"
    assert sh(home, services.install(units)).returncode == 0
    assert (folder / "one.conf").read_text() == units["one.conf"]
    assert "two" in sh(home, "supervisorctl status").stdout
    first = (folder / "one.conf").stat()
    (folder / "theirs.conf").write_text(program("theirs", "sleep 60").replace(services.MARK, ""))
    done = sh(home, services.install({"one.conf": units["one.conf"]}))
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(folder)) == ["one.conf", "theirs.conf"]
    assert (folder / "one.conf").stat().st_mtime_ns == first.st_mtime_ns
    assert "two" not in sh(home, "supervisorctl status").stdout


def test_any_text_arrives_as_it_is(home):
    text = "; it's \"quoted\" $HOME `id` \\n % \n" + program("odd", "sleep 60")
    assert sh(home, services.install({"odd.conf": text})).returncode == 0
    assert (home / "supervisor/conf.d/odd.conf").read_text() == text


def test_a_program_that_cannot_start_gives_its_last_words(home):
    bad = program("bad", "/bin/sh -c 'echo the reason; exit 3'", startretries=1)
    sh(home, services.install({"bad.conf": bad}))
    done = sh(home, Supervisor().restart("bad"))
    assert done.returncode != 0
    assert "the reason" in done.stderr


def running(home, unit):
    """How many processes of a unit run."""
    found = Supervisor().parse_status(sh(home, Supervisor().status([unit])).stdout)[unit]
    return sum(process.state == "RUNNING" for process in found)


def test_two_processes_are_never_both_away(home):
    pair = program("pair", "sleep 60", numprocs=2, process_name="%(program_name)s_%(process_num)d")
    sh(home, services.install({"pair.conf": pair}))
    while running(home, "pair") < 2:
        time.sleep(0.1)
    restart = subprocess.Popen(["sh", "-c", Supervisor().restart("pair", 2)], cwd=home,
                               env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
                               stderr=subprocess.DEVNULL)
    seen = []
    while restart.poll() is None:
        seen.append(running(home, "pair"))
    assert restart.returncode == 0
    assert min(seen) == 1
