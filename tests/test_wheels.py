"""Virtualenvs on hosts that reach no package index: which wheels are fetched, sent and kept."""

import json
import sys
import tarfile
import zipfile
from dataclasses import replace

import fabric
import pytest
from packaging.tags import platform_tags

import inventory
from fabfile import artifact, wheels
from fabfile.application import application
from fabfile.env import env
from fabfile.errors import Failed, Refused
from fabfile.fleet import Fleet, Session
from fabfile.lock import locked
from fabfile.reply import Reply
from fabfile.sandbox import sandbox_down, sandbox_up
from fabfile.stage import stage
from tests.conftest import inventory_of
from tests.test_release_sh import ONE, THREE, TWO, Host

VENV = {"REQUIREMENTS": "requirements.lock", "PYTHON": sys.executable, "WHEELS": "push"}
PYTHON = {"abi": "cp311", "implementation_name": "cpython", "libc": "glibc 2.18",
          "platform": "linux-x86_64", "python_full_version": "3.11.2", "python_version": "3.11"}
METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n"
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel(folder, name, version="1.0"):
    """A package of ours in a folder: the Path of its wheel."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = '{version}'\n" + "#" * 10_000)
        for file, text in {"METADATA": METADATA.format(name, version), "WHEEL": WHEEL,
                           "RECORD": ""}.items():
            archive.writestr(f"{name}-{version}.dist-info/{file}", text)
    return path


def lock_of(*paths, also=""):
    """A lock file that names these, as bytes."""
    lines = ["{}=={} \\\n    --hash=sha256:{}\n".format(*path.name.split("-")[:2],
                                                    wheels.sha256_of(path)) for path in paths]
    return ("# a lock file\n" + "".join(lines) + also).encode()


# ---- what is fetched


def test_the_lines_of_a_lock_file_that_are_for_a_python():
    lock = ("# made by a tool\n--index-url https://index.example\n"
            "a==1 ; python_full_version < '3.11.3' \\\n    --hash=sha256:aa \\\n"
            "    --hash=sha256:ab\n    # via b\n"
            "b[x]==2.0 ; implementation_name == 'pypy' \\\n    --hash=sha256:bb\n"
            "c==3 --hash=sha256:cc  # why\r\n\n")
    assert list(wheels.requirements(lock, json.dumps(PYTHON))) == [
        "--index-url https://index.example",
        "a==1 --hash=sha256:aa --hash=sha256:ab",
        "c==3 --hash=sha256:cc",
    ]


def test_what_fits_a_python():
    assert wheels.fitting({**PYTHON, "libc": "glibc 2.6"}) == [
        "--implementation", "cp", "--python-version", "3.11.2", "--abi", "cp311",
        "--platform", "manylinux_2_6_x86_64", "--platform", "manylinux_2_5_x86_64",
        "--platform", "manylinux2014_x86_64", "--platform", "manylinux2010_x86_64",
        "--platform", "manylinux1_x86_64", "--platform", "linux_x86_64"]
    assert wheels.platforms({"libc": "", "platform": "linux-aarch64"}) == ["linux_aarch64"]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is all this machine's pip has for an index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def names(path):
    with tarfile.open(path) as archive:
        return sorted(set(archive.getnames()) - {"lock"})


def test_each_host_gets_what_it_lacks_for_its_python_from_a_cache_that_is_checked(index, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    new, old = (json.dumps({**PYTHON, "python_full_version": v}) for v in ("3.12.1", "3.11.2"))
    both, late = wheel(index, "both"), wheel(index, "late")
    lock = lock_of(both, late).replace(b"late==1.0", b"late==1.0 ; python_full_version > '3.12'")
    found = {"a": Reply(f"python {new}"), "b": Reply(f"python {new}"),
             "c": Reply(f"python {new}\nwheel {wheels.sha256_of(both)}"),
             "d": Reply(f"python {old}"),
             "e": Reply(f"python {old}\nwheel {wheels.sha256_of(both)}"),
             "f": Reply("venv 0123456789abcdef complete")}
    streams = wheels.lacking(found, lock, cache, tmp_path)
    assert {host: names(path) for host, path in streams.items()} == {
        "a": [both.name, late.name], "b": [both.name, late.name], "c": [late.name],
        "d": [both.name]}
    assert streams["a"] == streams["b"]
    notes = list(cache.glob("*.json"))
    assert all(wheels.noted(note) for note in notes) and len(notes) == 2
    (cache / wheels.sha256_of(both) / both.name).write_bytes(b"damaged")
    assert [wheels.noted(note) for note in notes] == [None, None], "it is fetched again"


def test_a_package_that_is_there_as_source_only_is_named(index, tmp_path):
    with tarfile.open(index / "boxed-1.0.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("boxed-1.0/PKG-INFO"))
    lock = lock_of(index / "boxed-1.0.tar.gz").replace(b"1.0.tar.gz", b"1.0")
    with pytest.raises(Refused) as stop:
        wheels.fetched(lock, json.dumps(PYTHON), tmp_path)
    assert str(stop.value).startswith("boxed==1.0: no wheel for Python 3.11.2 on linux-x86_64 ")
    assert wheels.REMEDY in str(stop.value) and "\n" not in str(stop.value)


# ---- release.sh


@pytest.fixture
def host(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    made = Host(home)
    made.do("setup")
    made.lock()
    return made


@pytest.fixture
def pair(tmp_path):
    return [wheel(tmp_path / "made", name) for name in ("greeting", "parting")]


def stream(folder, lock, *paths):
    return wheels.pack(folder, lock, {wheels.sha256_of(path): path for path in paths}).read_bytes()


def kept(host):
    return sorted(path.name for path in (host.root / "wheels").glob("*.whl"))


def left(host):
    return sorted(path.name for path in (host.root / "wheels").iterdir())


def test_a_host_says_what_its_python_takes_and_which_wheels_it_has(host, tmp_path, pair):
    lock = lock_of(*pair)
    answer = host.do("wheels", data=stream(tmp_path, lock), **VENV)
    assert answer.all("wheel") == []
    python = json.loads(answer.facts["python"])
    assert set(wheels.platforms(python)) == set(platform_tags())
    assert python["python_full_version"] == sys.version.split()[0]
    for sent in (pair[:1], pair[1:], pair):
        answer = host.do("wheels", data=stream(tmp_path, lock, *sent), **VENV)
    assert sorted(answer.all("wheel")) == sorted(map(wheels.sha256_of, pair))
    assert left(host) == [path.name for path in pair]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def test_what_is_damaged_on_its_way_is_caught_and_nothing_is_kept(host, tmp_path, pair):
    data = stream(tmp_path, lock_of(*pair), *pair)
    at = data.index(pair[1].read_bytes()) + 5000
    answer = host.ask("wheels", data=flipped(data, at), **VENV)
    assert (answer.code, answer.stderr) == (1, f"damaged on its way: {pair[1].name}\n")
    assert left(host) == []
    answer = host.ask("wheels", data=data[:15_000], **VENV)
    assert answer.code == 1
    assert answer.stderr.endswith("cannot be unpacked: cut short, damaged, or no room\n")
    assert left(host) == []


def test_a_wheel_that_changed_on_the_disk_is_not_counted_on(host, tmp_path, pair):
    data = stream(tmp_path, lock_of(*pair), *pair)
    host.do("wheels", data=data, **VENV)
    path = host.root / "wheels" / pair[0].name
    path.write_bytes(flipped(path.read_bytes(), 99))
    answer = host.do("wheels", data=stream(tmp_path, lock_of(*pair)), **VENV)
    assert answer.all("wheel") == [wheels.sha256_of(pair[1])]


@pytest.mark.parametrize("program", ["sync", "mv"])
def test_killed_before_all_is_kept_it_is_done_again(host, tmp_path, pair, program):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / program).write_text(f'#!/bin/sh\ncase $* in *.whl*) kill -9 0 ;; esac\n'
                                  f'exec /usr/bin/{program} "$@"\n')
    (folder / program).chmod(0o755)
    path, host.path = host.path, f"{folder}:{host.path}"
    data = stream(tmp_path, lock_of(*pair), *pair)
    assert host.ask("wheels", data=data, **VENV).code == -9
    assert kept(host) == []
    host.path = path
    host.do("wheels", data=data, **VENV)
    assert left(host) == [path.name for path in pair]


def test_clean_takes_wheels_that_no_lock_file_names(host, tmp_path, pair):
    host.do("wheels", data=stream(tmp_path, lock_of(*pair), *pair), **VENV)
    for date, named in ((ONE, pair[1:]), (TWO, pair[:1]), (THREE, pair[:1])):
        host.deploy(date, {"requirements.lock": lock_of(*named), "n": date.encode()})
    assert host.do("clean", KEEP=2, **VENV).all("wheel") == [f"{pair[1].name} removed"]
    assert left(host) == [pair[0].name]


# ---- a fleet


QUESTION = 10_240  # bytes of a tar with a small lock file, and the steps in which it grows
NOWHERE = {"HTTPS_PROXY": "http://127.0.72.9:9", "HTTP_PROXY": "http://127.0.72.9:9",
           "UV_HTTP_RETRIES": "0"}


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    """Two hosts that reach no index and have an empty cache, while this machine has one."""
    path = inventory_of([("push1", ["bare"]), ("push2", ["bare"])], "127.0.72",
                        tmp_path / "servers.json")
    settings = {"fleet": {"ssh_config": [".sandbox/ssh_config"]},
                "deploy": {"application": "a", "deploy_to": "a", "roles": ["bare"],
                           "requirements": "requirements.lock"}}
    env.load(settings, inventory=inventory.load(path))
    with monkeypatch.context() as away:
        for name, value in {**NOWHERE, "UV_CACHE_DIR": str(tmp_path / "none")}.items():
            away.setenv(name, value)
        sandbox_up.body(Fleet(env.inventory.hosts, Session(fabric.Config())))
    env.load(settings | {"units": {"web": {"roles": ["bare"]}}}, inventory=env.inventory)
    session = Session(fabric.Config())
    yield Fleet(env.inventory.hosts, session)
    session.close()
    sandbox_down.body(Fleet(env.inventory.hosts, Session(fabric.Config())))


@pytest.fixture
def release(fleet, tmp_path, monkeypatch):
    """A function that stages a release with this lock file: the hosts' replies, or Failed."""
    releases = application(fleet, "a deploy")
    releases.call("setup")

    def release(date, lock, how="push", do=stage):
        env.deploy_date = date
        monkeypatch.setattr(env, "deploy", replace(env.deploy, wheels=how))
        built = artifact.from_files({"requirements.lock": lock}, cache=tmp_path / "cache")
        return do(releases, built, releases.preflight())

    with locked(releases):
        yield release


@pytest.fixture
def sent(fleet):
    """How many bytes of wheels went to each host, as they go."""
    counts = []
    fleet.listener = lambda event: event.kind == "sent" and event.step == "wheels" and (
        counts.append(event.data[0]))
    return counts


def push(releases, built, before):
    """A stage that stops before the hosts build anything."""
    wheels.push(releases, built)


def test_hosts_that_reach_no_index_get_what_they_lack(fleet, index, sent, release):
    made = [wheel(index, name) for name in ("greeting", "parting")]
    lock = lock_of(*made, also="nowhere==1 ; sys_platform == 'plan9' --hash=sha256:00\n")
    with pytest.raises(Failed, match="the virtualenv could not be built"):
        release(ONE, lock, "fetch")
    assert sent == []
    replies = release(ONE, lock)
    assert all(reply.get("venv").endswith("built") for reply in replies.values())
    assert sum(sent) == 2 * 4 * QUESTION
    fleet.run(f"a/releases/{ONE}/.venv/bin/python -c 'import greeting, parting'").check()
    sent.clear()
    replies = release(TWO, lock)
    assert all(reply.get("venv").endswith("reused") for reply in replies.values())
    assert sum(sent) == 2 * QUESTION
    sent.clear()
    release(THREE, lock_of(made[0], wheel(index, "parting", "2.0")), do=push)
    assert sum(sent) == 2 * 3 * QUESTION, "it is one wheel of two that is new"
