"""What is said to supervisord and systemd, and a real supervisord that is told it."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import inventory
from fabfile import services, templates
from fabfile.env import Celery, Nginx, Services, Unit, env
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
        "{ supervisorctl restart 'celery:*' >&2 || { supervisorctl tail celery >&2; false; }; }"
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
    assert manager.log("celery") == "supervisorctl tail celery >&2"
    assert manager.status(["web", "celery"]) == "supervisorctl status 'web:*' 'celery:*'; :"
    assert manager.reread(["web.conf"]) == (
        "{ supervisorctl reread && supervisorctl update; } >&2"
    )


def test_the_exact_words_that_install_a_unit():
    env.services = Services(folder="conf.d")
    assert services.install({"a.conf": "it's $x\n"}) == """\
home=$PWD; umask 022; mkdir -p conf.d && cd conf.d || exit
printf %s 'it'"'"'s $x
' > .a.conf.new && { cmp -s .a.conf.new a.conf && rm .a.conf.new || \
{ sync .a.conf.new && mv .a.conf.new a.conf; }; } || exit
for f in *.conf; do
case ' a.conf ' in *" $f "*) continue;; esac
[ "$(head -n 1 -- "$f" 2>/dev/null)" = '; installed by `fab setup`' ] || continue
:; rm -- "$f" || exit
done
cd "$home" && { supervisorctl reread && supervisorctl update; } >&2"""


def test_the_exact_words_for_systemd():
    manager = Systemd()
    assert manager.restart("web") == (
        "{ systemctl restart web.service || { journalctl --no-pager -n 20 -u web.service >&2; "
        "false; }; }"
    )
    assert manager.stop("web") == "systemctl stop 'web.socke[t]' web.service"
    assert manager.log("web") == "journalctl --no-pager -n 20 -u web.service >&2"
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
    settings = {"command": command, "startsecs": 0, "redirect_stderr": "true",
                "stdout_logfile": f"%(here)s/../../{name}.log", **options}
    lines = [services.first_line(), f"[program:{name}]",
             *(f"{key}={value}" for key, value in settings.items())]
    return "\n".join(lines) + "\n"


def facts(path):
    """What differs once a file was written again."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def test_units_are_installed_replaced_and_taken_away(home):
    units = {"one.conf": program("one", "sleep 60"), "two.conf": program("two", "sleep 60")}
    folder = home / "supervisor/conf.d"
    assert sh(home, services.install(units)).returncode == 0
    assert (folder / "one.conf").read_text() == units["one.conf"]
    first, second = pid_of(home, "one"), facts(folder / "one.conf")
    changed = program("two", "sleep 61")
    done = sh(home, services.install({**units, "two.conf": changed}))
    assert done.returncode == 0, done.stderr
    assert (folder / "two.conf").read_text() == changed
    assert sh(home, services.install({"one.conf": units["one.conf"]})).returncode == 0
    assert os.listdir(folder) == ["one.conf"]
    assert facts(folder / "one.conf") == second
    assert pid_of(home, "one") == first
    assert "two" not in sh(home, "supervisorctl status").stdout


def pid_of(home, unit):
    status = sh(home, Supervisor().status([unit])).stdout
    return Supervisor().parse_status(status)[unit][0].pid


def test_files_of_others_are_left_alone(home):
    folder = home / "supervisor/conf.d"
    folder.mkdir(parents=True, exist_ok=True)
    others = {
        "theirs.conf": program("theirs", "sleep 60").partition("\n")[2],
        "quotes us.conf": f"; as\n{services.first_line()}\n",
        "one.conf.bak": program("one", "sleep 60"),
    }
    for name, text in others.items():
        (folder / name).write_text(text)
    try:
        done = sh(home, services.install({}))
        assert done.returncode == 0, done.stderr
        assert sorted(os.listdir(folder)) == sorted(others)
    finally:
        for name in others:
            (folder / name).unlink()


def test_what_cannot_be_written_is_a_failure_and_nothing_is_told(tmp_path):
    (tmp_path / "supervisor").write_text("a file where the folder should be")
    done = sh(tmp_path, services.install({"a.conf": "x"}))
    assert done.returncode != 0 and "supervisor" in done.stderr
    assert os.listdir(tmp_path) == ["supervisor"]


def test_any_text_arrives_as_it_is(home):
    text = (f"{services.first_line()}\n; it's \"quoted\" $HOME `id` ${{x:-y}} \\n %s %d % é 💥 \t\n"
            + program("odd", "sleep 60") + "; no newline at the end")
    assert sh(home, services.install({"odd.conf": text})).returncode == 0
    assert (home / "supervisor/conf.d/odd.conf").read_text() == text


def test_a_program_that_cannot_start_gives_its_last_words(home):
    bad = program("bad", "/bin/sh -c 'echo the reason; exit 3'", startsecs=1, startretries=1)
    sh(home, services.install({"bad.conf": bad}))
    done = sh(home, Supervisor().restart("bad"))
    assert done.returncode != 0
    assert "the reason" in done.stderr


def running(home, unit):
    """How many processes of a unit run."""
    found = Supervisor().parse_status(sh(home, Supervisor().status([unit])).stdout)[unit]
    return sum(process.state == "RUNNING" for process in found)


def test_two_processes_are_never_both_away(home):
    pair = program("pair", "sleep 60", startsecs=1, numprocs=2,
                   process_name="%(program_name)s_%(process_num)d")
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


def test_the_real_answers_of_supervisord(home):
    status = Supervisor().status(["pair", "one", "nobody"])
    units = {"one.conf": program("one", "sleep 60", autostart="false"),
             "pair.conf": program("pair", "sleep 60", numprocs=2,
                                  process_name="%(program_name)s_%(process_num)d")}
    sh(home, services.install(units))
    sh(home, Supervisor().restart("pair", 2))
    done = sh(home, status)
    found = Supervisor().parse_status(done.stdout)
    assert done.returncode == 0
    assert found["one"] == [Process("one", "STOPPED")]
    assert [(p.name, p.state, p.pid > 1) for p in found["pair"]] == [
        ("pair:pair_0", "RUNNING", True), ("pair:pair_1", "RUNNING", True)]
    assert all(process.state == "ERROR" for process in found.get("nobody", []))


def test_a_stop_ends_every_process_and_a_reload_starts_what_does_not_run(home):
    sh(home, services.install({"one.conf": program("one", "sleep 60")}))
    assert sh(home, Supervisor().restart("one")).returncode == 0
    assert sh(home, Supervisor().stop("one")).returncode == 0
    assert running(home, "one") == 0
    assert sh(home, Supervisor().reload("one")).returncode == 0
    assert running(home, "one") == 1


def test_a_reload_is_a_hangup_to_the_process_that_is_there(home):
    script = "/bin/sh -c \"trap 'echo again' HUP; while :; do sleep 0.1; done\""
    sh(home, services.install({"loop.conf": program("loop", script)}))
    first = pid_of(home, "loop")
    assert sh(home, Supervisor().reload("loop")).returncode == 0
    time.sleep(0.5)
    assert "again" in sh(home, Supervisor().log("loop")).stderr
    assert pid_of(home, "loop") == first


# The unit files of this repository

HOST = inventory.Host("i-1", "10.0.0.7", "10.0.0.7", "one", ("web", "celery"))


@pytest.fixture
def units():
    """manager → name → text, for a host that runs both units."""
    env.units = {"web": Unit(roles=("web",), processes=2), "celery": Unit(roles=("celery",))}
    env.nginx, env.celery = Nginx(), Celery(app="conference")

    def rendered(manager):
        env.services = Services(manager=manager)
        return services.units_for(HOST, "/srv/site", "/home/ann", "ann")

    yield rendered
    env.units = {}


def test_the_units_of_a_host(units):
    assert sorted(units("supervisor")) == ["celery.conf", "web.conf"]
    assert sorted(units("systemd")) == ["celery.service", "web.service", "web.socket"]
    for manager in ("supervisor", "systemd"):
        for text in units(manager).values():
            assert text.splitlines()[0] == services.first_line()
            assert "/srv/site/current" in text or "socket" in text.lower()


def test_what_the_units_say(units):
    web, celery = units("supervisor")["web.conf"], units("supervisor")["celery.conf"]
    assert "socket=tcp://10.0.0.7:8000\n" in web and "numprocs=2\n" in web
    assert "worker -n celery@one " in celery and "stopwaitsecs=90\n" in celery
    found = units("systemd")
    assert "ListenStream=10.0.0.7:8000\n" in found["web.socket"]
    assert "User=ann\n" in found["web.service"]
    assert "TimeoutStopSec=90\n" in found["celery.service"]


def test_a_unit_that_cannot_be_rendered_is_one_line(units, monkeypatch, tmp_path):
    (tmp_path / "supervisor").mkdir()
    (tmp_path / "supervisor/web.conf.j2").write_text("[program:web]\n{{ hots.name }}\n")
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    with pytest.raises(Usage) as stop:
        units("supervisor")
    assert str(stop.value) == "templates/supervisor/web.conf.j2: line 2: 'hots' is undefined"
