"""The real release.sh in a temporary home: each verb, the fence, races, and kills at every step."""

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from fabfile import artifact
from tests.conftest import eventually

SCRIPT = Path(__file__).parent.parent / "fabfile" / "release.sh"
SHA256 = sha256(SCRIPT.read_bytes()).hexdigest()
ONE, TWO, THREE, FOUR, FIVE = (f"2026112408300{n}" for n in range(1, 6))
BIG = {"big": os.urandom(1_000_000)}  # more than gzip reads before it writes
NASTY = "ann \"the\" o'neil\n\\t $(touch pwned) `touch pwned` é\x1b[31m"
SHOWN = "ann \"the\" o'neil \\t $(touch pwned) `touch pwned` é [31m"


class Answer:
    def __init__(self, code, stdout, stderr):
        self.code, self.stdout, self.stderr = code, stdout, stderr
        self.lines = [tuple(line.split(" ", 1)) for line in stdout.splitlines()]
        self.facts = dict(line for line in self.lines if len(line) == 2)

    def all(self, key):
        return [line[1] for line in self.lines if line[0] == key]


class Host:
    """A home folder in which release.sh runs as it does over SSH."""

    def __init__(self, home, path=None):
        self.home = home
        self.root = home / "my app"
        self.token = None
        self.path = path or os.environ["PATH"]
        self.cache = home.parent / "cache"

    def start(self, verb, *, stdin=subprocess.DEVNULL, home=None, **values):
        values = {"DEPLOY_TO": "my app", "OWNER": "ann@laptop", "TOKEN": self.token,
                  "RUN": "here:1:2", "SCRIPT_SHA256": SHA256, **values}
        env = {"HOME": str(self.home), "PATH": self.path}
        env |= {name: str(value) for name, value in values.items() if value is not None}
        return subprocess.Popen(["sh", SCRIPT, verb], env=env, cwd=self.home, stdin=stdin,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True)

    def ask(self, verb, *, data=None, **values):
        stdin = subprocess.PIPE if data is not None else subprocess.DEVNULL
        process = self.start(verb, stdin=stdin, **values)
        stdout, stderr = process.communicate(data, timeout=60)
        return Answer(process.returncode, stdout.decode(), stderr.decode())

    def do(self, verb, **values):
        """A verb that must succeed."""
        answer = self.ask(verb, **values)
        assert answer.code == 0, f"{verb}: {answer.code}\n{answer.stdout}{answer.stderr}"
        return answer

    def lock(self, **values):
        answer = self.do("lock", **values)
        self.token = answer.facts["token"]
        return answer

    def artifact(self, files=None):
        return artifact.from_files(files or {"a file": b"one\n", "sub/b": b""}, cache=self.cache)

    def stage(self, date, files=None, *, data=None, ask=None, **values):
        made = self.artifact(files)
        facts = {"DATE": date, "MANIFEST_SHA256": made.manifest_sha256, "REVISION": "abc"}
        data = made.packed().read_bytes() if data is None else data
        return (ask or self.do)("stage", data=data, **facts | values)

    def deploy(self, date, files=None):
        self.stage(date, files)
        self.do("publish", DATE=date)
        self.do("commit", DATE=date)

    @property
    def current(self):
        link = self.root / "current"
        return link.readlink().name if link.is_symlink() else "-"

    @property
    def line(self):
        return self.do("list").facts.get("line", "").split()

    def audit(self, last=100):
        return [json.loads(line) for line in self.do("audit", LAST=last).stdout.splitlines()]


@pytest.fixture
def host(tmp_path):
    """A host that is set up, and whose lock we hold."""
    home = tmp_path / "home"
    home.mkdir()
    made = Host(home)
    made.do("setup", SHARED_FOLDERS="media\nvar/data dir")
    made.lock()
    return made


# ---- the script itself


def test_the_shells_agree_and_shellcheck_is_silent():
    for command in (["dash", "-n"], ["bash", "--posix", "-n"], ["shellcheck"]):
        if shutil.which(command[0]):
            subprocess.run([*command, SCRIPT], check=True)


def test_every_verb_is_documented():
    page = (SCRIPT.parent.parent / "docs/release.md").read_text()
    verbs = re.findall(r"^do_(\w+)\(", SCRIPT.read_text(), re.MULTILINE)
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(verbs)


def test_another_script_is_told_from_this_one(host):
    answer = host.ask("preflight", SCRIPT_SHA256="0" * 64)
    assert (answer.code, answer.stdout, answer.stderr) == (20, "", "script differs\n")


@pytest.mark.parametrize(
    ("verb", "values", "text"),
    [("frobnicate", {}, "release.sh knows no verb 'frobnicate'"),
     ("stage", {"DATE": "../../etc"}, "DATE is 14 digits, not '../../etc'"),
     ("publish", {"DATE": "2026"}, "DATE is 14 digits, not '2026'"),
     ("lock", {"LEASE": "a[$(id)]"},
      "TOKEN, LEASE, KEEP, MIN_TOKEN, TAKE, LAST and WAIT are whole numbers"),
     ("setup", {"SHARED_FOLDERS": "ok\n../out"}, "'../out' is not a plain path below its folder"),
     ("setup", {"SHARED_FILES": "/etc/x"}, "'/etc/x' is not a plain path below its folder")],
)
def test_values_that_make_no_sense(host, verb, values, text):
    answer = host.ask(verb, **values)
    assert (answer.code, answer.stderr) == (2, text + "\n")


def test_nothing_works_before_setup(tmp_path):
    host = Host(tmp_path)
    answer = host.do("preflight")
    assert answer.facts["setup"] == "no"
    assert answer.facts["current"] == "-"
    assert int(answer.facts["free_kb"]) > 0
    assert [*tmp_path.iterdir()] == [], "preflight changed something"
    for verb in ("lock", "list", "audit", "revert"):
        answer = host.ask(verb)
        assert (answer.code, answer.stdout) == (6, "setup no\n")


def test_setup_twice_is_as_once(host):
    def seen():
        return sorted((str(path), oct(path.stat().st_mode)) for path in host.root.rglob("*"))

    before = seen()
    host.do("setup", SHARED_FOLDERS="media\nvar/data dir")
    assert seen() == before
    assert (host.root / "shared/var/data dir").is_dir()
    assert (host.root / "state").stat().st_mode & 0o777 == 0o700
    (host.root / "shared").chmod(0o775)
    host.do("setup")
    assert (host.root / "shared").stat().st_mode & 0o777 == 0o775, "a team's own mode is lost"


def test_deploy_to_may_be_absolute_and_odd(tmp_path):
    root = tmp_path / "-odd $HOME 'dir\""
    host = Host(tmp_path)
    host.do("setup", DEPLOY_TO=root)
    assert (root / "releases").is_dir()
    host.do("setup", DEPLOY_TO="-relative")
    assert (tmp_path / "-relative/state").is_dir()


# ---- looking


def test_preflight_tells_everything_and_changes_nothing(host):
    for date in (ONE, TWO, THREE):
        host.deploy(date)
    host.do("publish", DATE=TWO)
    host.do("commit", DATE=TWO)

    def seen():
        return sorted((str(p), p.lstat().st_mtime_ns) for p in host.root.rglob("*"))

    before = seen()
    answer = host.do("preflight", SHARED_FILES=".env", SHARED_FOLDERS="media\nnone")
    assert seen() == before
    left = int(answer.facts.pop("lock_until"))
    assert 50 < left <= 60
    assert abs(int(answer.facts.pop("lock_since")) - time.time()) < 30
    assert int(answer.facts.pop("free_kb")) > 0
    assert answer.facts.pop("free_inodes")
    assert answer.facts.pop("manifest") == host.artifact().manifest_sha256
    assert answer.all("release") == [ONE, TWO, THREE]
    assert answer.all("missing") == ["none", ".env"]
    assert answer.facts == {
        "setup": "yes", "current": TWO, "previous": ONE, "next": THREE, "token": "1",
        "lock_token": "1", "lock_owner": "ann@laptop", "lock_purpose": "-", "lock_run": "here:1:2",
        "unfinished": "-", "missing": ".env", "release": THREE,
    }


def test_list(host):
    host.deploy(ONE)
    host.deploy(TWO)
    host.stage(THREE)
    host.stage(FOUR, OWNER=NASTY, REVISION="")
    host.do("publish", DATE=THREE)
    answer = host.do("list")
    staged = [int(value.split()[3]) for value in answer.all("release")]
    assert all(abs(moment - time.time()) < 30 for moment in staged)
    assert answer.stdout == (
        f"current {THREE}\n"
        f"line {ONE} {TWO}\n"
        f"release {ONE} live abc {staged[0]} ann@laptop\n"
        f"release {TWO} live abc {staged[1]} ann@laptop\n"
        f"release {THREE} pending abc {staged[2]} ann@laptop\n"
        f"release {FOUR} staged - {staged[3]} {SHOWN}\n"
    )


def test_what_others_left_is_foreign(host):
    host.stage(ONE)
    for make in (lambda path: path.mkdir(), lambda path: path.symlink_to("releases/12"),
                 lambda path: path.symlink_to(f"{host.root}/releases/{ONE}"),
                 lambda path: path.symlink_to("/nowhere")):
        make(host.root / "current")
        assert host.do("preflight").facts["foreign"] == f"{host.root}/current"
        answer = host.ask("publish", DATE=ONE)
        assert (answer.code, answer.facts["foreign"]) == (6, f"{host.root}/current")
        assert not (host.root / "state/pending").exists()
        (host.root / "current").rename(host.home / f"aside {time.monotonic_ns()}")
    host.do("publish", DATE=ONE)


def test_a_link_into_nothing_is_no_release(host):
    host.deploy(ONE)
    host.deploy(TWO)
    shutil.rmtree(host.root / "releases" / TWO)
    answer = host.do("preflight")
    assert (answer.facts["current"], answer.facts["next"]) == ("-", "-")
    assert "foreign" not in answer.facts
    host.deploy(THREE)
    assert host.line == [ONE, THREE]


# ---- the lock


def test_a_held_lock_says_who(host):
    answer = host.ask("lock", OWNER="bob@desk", TOKEN=None)
    assert answer.code == 4
    assert answer.facts["lock_owner"] == "ann@laptop"
    assert "token" not in answer.facts
    assert [entry["verb"] for entry in host.audit()] == ["setup", "lock"]


@pytest.mark.parametrize("free", [{"LEASE": 0}, {"TAKE": 1}])
def test_an_expired_or_dead_lock_is_taken_with_a_higher_token(host, free):
    host.do("renew", LEASE=free.get("LEASE", 60))
    assert ("lock_owner" in host.do("preflight").facts) == ("TAKE" in free)
    answer = host.do("lock", OWNER="bob@desk", TAKE=free.get("TAKE"))
    assert answer.facts["token"] == "2"
    assert host.ask("renew").code == 9


def test_take_names_the_holder_it_means(host):
    host.lock(TAKE=1)
    assert host.ask("lock", TAKE=1).code == 4


def test_tokens_only_grow(host):
    host.do("unlock")
    assert host.lock(MIN_TOKEN=41).facts["token"] == "41"
    host.do("unlock")
    assert host.lock(MIN_TOKEN=7).facts["token"] == "42"
    assert host.do("preflight").facts["token"] == "42"


def test_every_verb_renews(host):
    host.do("renew", LEASE=5)
    host.do("revert", LEASE=500)
    assert int(host.do("preflight").facts["lock_until"]) > 400


def test_a_lease_that_has_just_begun_is_not_written_again(host):
    lock = host.root / "state/lock"
    written = lock.stat().st_ino
    host.do("revert")
    assert lock.stat().st_ino == written
    lock.write_text(re.sub(r"until (\d+)", lambda found: f"until {int(found[1]) - 7}",
                           lock.read_text()))
    host.do("revert")
    assert int(host.do("preflight").facts["lock_until"]) > 54


def test_unlock_is_for_its_holder(host):
    assert host.ask("unlock", TOKEN=7).code == 9
    assert host.do("unlock").stdout == "unlocked 1\n"
    assert host.do("unlock").stdout == "unlocked -\n"


def test_unlock_by_force_fences_the_holder_off(host):
    answer = host.do("unlock", FORCE="yes", TOKEN=None, OWNER="bob@desk")
    assert (answer.facts["unlocked"], answer.facts["lock_owner"]) == ("1", "ann@laptop")
    assert host.ask("renew").code == 9
    assert host.lock().facts["token"] == "3"


@pytest.mark.parametrize("token", [None, 1, 3])
@pytest.mark.parametrize(
    "verb", ["renew", "wheels", "stage", "command", "publish", "commit", "revert", "clean"])
def test_another_token_changes_nothing(host, verb, token):
    host.deploy(ONE)
    host.stage(TWO)
    host.lock(TAKE=1, OWNER="bob@desk")
    answer = host.ask(verb, TOKEN=token, DATE=TWO, COMMAND="touch done", KEEP=0,
                      data=b"", MANIFEST_SHA256="0")
    assert (answer.code, answer.facts["holder"]) == (9, "bob@desk")
    assert answer.stderr == f"token {token or '-'} does not hold the lock here: bob@desk does\n"
    assert host.current == ONE
    assert not (host.root / "state/pending").exists()


@pytest.mark.parametrize("token", [None, 1])
def test_a_free_lock_is_nobodys(host, token):
    host.do("unlock")
    answer = host.ask("revert", TOKEN=token)
    assert (answer.code, answer.stdout) == (9, "holder -\n")


def test_of_two_runs_one_wins_fifty_times(host):
    token = 1
    for _ in range(50):
        host.do("unlock")
        runs = [host.start("lock", OWNER=owner, TOKEN=None) for owner in ("ann", "bob")]
        answers = [(run.communicate()[0].decode(), run.returncode) for run in runs]
        assert sorted(code for _, code in answers) == [0, 4], answers
        winner, loser = sorted(answers, key=lambda answer: answer[1])
        token += 1
        assert winner[0] == f"token {token}\n"
        owner = ("ann", "bob")[answers.index(winner)]
        assert f"lock_owner {owner}\n" in loser[0]
        host.token = token


def test_a_stage_that_lost_its_lock_meanwhile_is_thrown_away(host):
    process = host.start("stage", stdin=subprocess.PIPE, DATE=ONE,
                         MANIFEST_SHA256=host.artifact().manifest_sha256)
    part = host.root / f"releases/{ONE}.part"
    while not part.exists():
        time.sleep(0.01)
    host.do("lock", TAKE=1, OWNER="bob@desk")
    stdout, _ = process.communicate(host.artifact().packed().read_bytes())
    assert (process.returncode, stdout.startswith(b"holder bob@desk")) == (9, True)
    assert [*(host.root / "releases").iterdir()] == []


# ---- staging


def test_stage(host):
    (host.root / "shared/.env").write_text("SECRET=1")
    answer = host.stage(ONE, {"a file": b"one\n", "var/x": b"x", "media/.keep": b""},
                        SHARED_FOLDERS="media\nvar/data dir", SHARED_FILES=".env")
    assert answer.stdout == f"staged {ONE}\n"
    release = host.root / "releases" / ONE
    assert (release / "a file").read_text() == "one\n"
    assert (release / ".env").read_text() == "SECRET=1"
    links = {str(p.relative_to(release)): str(p.readlink()) for p in release.rglob("*")
             if p.is_symlink()}
    assert links == {".env": "../../shared/.env", "media": "../../shared/media",
                     "var/data dir": "../../../shared/var/data dir"}
    assert (release / "var/data dir").resolve() == host.root / "shared/var/data dir"
    assert (host.root / f"state/releases/{ONE}").read_text().splitlines()[0] == "revision abc"
    assert host.current == "-"


def test_stage_again(host):
    host.stage(ONE)
    inode = (host.root / "releases" / ONE).stat().st_ino
    assert host.stage(ONE).stdout == "staged already\n"
    assert (host.root / "releases" / ONE).stat().st_ino == inode
    answer = host.stage(ONE, {"other": b""}, ask=host.ask)
    assert (answer.code, answer.stderr) == (
        6, f"release {ONE} is here, of another artifact\n")


def test_what_is_missing_is_named_before_anything_is_staged(host):
    answer = host.stage(ONE, ask=host.ask, SHARED_FILES=".env\nkey file", SHARED_FOLDERS="media\nx")
    assert answer.code == 6
    assert answer.all("missing") == ["x", ".env", "key file"]
    assert [*(host.root / "releases").iterdir()] == []
    assert sorted(p.name for p in (host.root / "shared").iterdir()) == ["media", "var"]


def test_each_file_is_verified_on_a_host_without_openssl_too(host, tmp_path):
    (tmp_path / "bin").mkdir()
    for folder in reversed(host.path.split(":")):
        for program in Path(folder).glob("*"):
            (tmp_path / "bin" / program.name).unlink(missing_ok=True)
            (tmp_path / "bin" / program.name).symlink_to(program)
    (tmp_path / "bin/openssl").unlink(missing_ok=True)
    host.path = str(tmp_path / "bin")
    host.stage(TWO)
    damage = packed(lambda members: members.update({"a file": (members["a file"][0], b"two\n")}))
    answer = host.stage(ONE, data=damage(host.artifact()), ask=host.ask)
    assert answer.stderr.splitlines()[-1] == "not as the manifest says: damaged a file"


def test_a_stream_cut_anywhere_or_damaged_is_refused(host):
    data = host.artifact({"a": os.urandom(5000), "b": os.urandom(5000)}).packed().read_bytes()
    files = {"a": b"", "b": b""}
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]
    for damaged in (b"", data[:10], data[:middle], data[:-1], flipped, b"noise" * 99):
        answer = host.stage(ONE, files, data=damaged, ask=host.ask)
        assert answer.code == 1, answer.stderr
        assert [*(host.root / "releases").iterdir()] == []


def packed(change):
    """An artifact's bytes after `change(members)`, members being {name: (TarInfo, bytes)}."""

    def remake(made):
        with tarfile.open(made.path) as archive:
            members = {m.name: (m, archive.extractfile(m).read() if m.isreg() else b"")
                       for m in archive}
        change(members)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for member, content in members.values():
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return gzip.compress(out.getvalue())

    return remake


def extra(name, **facts):
    member = tarfile.TarInfo(name)
    for fact, value in facts.items():
        setattr(member, fact, value)
    return lambda members: members.update({name: (member, b"")})


@pytest.mark.parametrize(
    ("change", "text"),
    [(lambda m: m.update({"a file": (m["a file"][0], b"two\n")}),
      "not as the manifest says: damaged a file"),
     (lambda m: m.pop("a file"), "not as the manifest says: missing a file"),
     (lambda m: setattr(m["a file"][0], "mode", 0o755),
      "not as the manifest says: of another mode a file"),
     (extra("more"), "not as the manifest says: extra more"),
     (extra("folder", type=tarfile.DIRTYPE, mode=0o755), "not as the manifest says: extra folder"),
     (extra("link", type=tarfile.SYMTYPE, linkname="x"), "not as the manifest says: extra link"),
     (lambda m: m.update({".manifest": (m[".manifest"][0], b"")}),
      "the artifact's manifest is not the one that was announced")],
)
def test_each_path_is_verified(host, change, text):
    answer = host.stage(ONE, data=packed(change)(host.artifact()), ask=host.ask)
    assert answer.code == 1
    assert answer.stderr.splitlines()[-1] == text
    assert [*(host.root / "releases").iterdir()] == []


def test_any_artifact_that_is_built_can_be_staged(host, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    names = ["-rf", " lead", "*star", "é", 'q"uote', "$(x)", "-", "...", "trail ", "x: OK", "dir/-"]
    for name in names:
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(name)
    (site / "dir/link").symlink_to("../é")
    (site / "run").write_text("")
    (site / "run").chmod(0o755)
    git = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-C", site]
    for words in (["init", "-q", "-b", "main"], ["add", "--all"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    made = artifact.build(repository=site, revision="main", cache=tmp_path)
    host.do("stage", DATE=ONE, data=made.packed().read_bytes(),
            MANIFEST_SHA256=made.manifest_sha256)
    release = host.root / "releases" / ONE
    assert all((release / name).read_text() == name for name in names)
    assert (release / "run").stat().st_mode & 0o777 == 0o755


def test_folders_below_a_setgid_parent(host):
    (host.root / "releases").chmod(0o2775)
    host.stage(ONE)
    assert (host.root / "releases" / ONE / "sub").stat().st_mode & 0o777 == 0o755


def test_a_killed_stage_is_cleared_away(host):
    part = host.root / f"releases/{ONE}.part"
    for _ in range(2):
        process = host.start("stage", stdin=subprocess.PIPE, DATE=ONE, MANIFEST_SHA256="0")
        process.stdin.write(host.artifact(BIG).packed().read_bytes()[:800_000])
        process.stdin.flush()
        while not (part / ".manifest").exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert part.exists()
    assert host.do("preflight").all("release") == []
    host.stage(ONE)
    assert not part.exists()


def test_a_stage_whose_operator_is_frozen_does_not_block_the_next_run(host):
    frozen = host.start("stage", stdin=subprocess.PIPE, DATE=ONE, MANIFEST_SHA256="0")
    while not (host.root / f"releases/{ONE}.part").exists():
        time.sleep(0.01)
    host.lock(TAKE=1)
    started = time.monotonic()
    host.stage(TWO)
    assert time.monotonic() - started < 10
    assert frozen.wait(10) == 143
    frozen.communicate()
    assert [path.name for path in (host.root / "releases").iterdir()] == [TWO]


# ---- the virtualenv


METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}


def wheel(folder):
    """A package of ours in a folder, and the requirements line for it with its hash."""
    path = folder / "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("greeting.py", "text = 'hello'\n")
        for name, text in METADATA.items():
            archive.writestr(f"greeting-1.0.dist-info/{name}", text)
    return (f"--no-index\n--find-links {folder}\n"
            f"greeting==1.0 --hash=sha256:{sha256(path.read_bytes()).hexdigest()}\n")


@pytest.fixture
def lock_file(tmp_path):
    folder = tmp_path / "wheels"
    folder.mkdir()
    return wheel(folder)


VENV = {"REQUIREMENTS": "requirements.lock", "PYTHON": sys.executable}


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_a_virtualenv_is_built_once_for_a_lock_file(host, tmp_path, lock_file, tool):
    values = VENV
    if tool == "uv":
        host.path = f"{Path(sys.executable).parent}:{host.path}"
    else:
        host.path = "/usr/bin:/bin"
        assert not shutil.which("uv", path=host.path)
        shutil.copytree(tmp_path / "wheels", host.root / "wheels")  # as if they had been sent
        values, lock_file = VENV | {"WHEELS": "push"}, lock_file.splitlines()[-1]
    files = {"requirements.lock": lock_file.encode()}
    first = host.stage(ONE, files, **values).facts
    name, how = first["venv"].split()
    assert (how, first["staged"]) == ("built", ONE)
    assert host.stage(TWO, files | {"x": b""}, **values).facts["venv"] == f"{name} reused"
    assert (host.root / f"releases/{TWO}/.venv").readlink() == Path(f"../../venvs/{name}")
    host.do("command", DATE=TWO, COMMAND="python -c 'import greeting'")
    (host.root / f"venvs/{name}/.complete").unlink()
    (host.root / f"venvs/{name}/half").write_text("built")
    assert host.stage(THREE, files, **values).facts["venv"] == f"{name} built"
    assert not (host.root / f"venvs/{name}/half").exists()


@pytest.mark.parametrize(
    ("values", "change", "text"),
    [({}, "0", "the virtualenv could not be built"),
     ({"PYTHON": "python9"}, "", "python9 does not run on this host"),
     ({"REQUIREMENTS": "other.lock"}, "", "the artifact has no other.lock")],
)
def test_a_virtualenv_that_cannot_be_had(host, lock_file, values, change, text):
    files = {"requirements.lock": (lock_file.rstrip() + change).encode()}
    answer = host.stage(ONE, files, ask=host.ask, **VENV | values)
    assert (answer.code, answer.stderr.splitlines()[-1]) == (1, text)
    assert [*(host.root / "releases").iterdir()] == []
    assert not [*(host.root / "venvs").glob("*/.complete")]


# ---- commands in a release


def test_command(host):
    host.stage(ONE)
    answer = host.do("command", DATE=ONE, COMMAND="pwd; env; cat; echo 'it''s' >&2",
                     PURPOSE="secret purpose")
    assert answer.stdout == "exit 0\n"
    lines = answer.stderr.splitlines()
    release = host.root / "releases" / ONE
    assert lines[0] == str(release)
    assert lines[-1] == "its"
    env = dict(line.split("=", 1) for line in lines[1:-1])
    assert env["PATH"].split(":")[0] == f"{release}/.venv/bin"
    assert env["LC_ALL"] == "C.UTF-8"
    assert not {"TOKEN", "DATE", "OWNER", "PURPOSE", "RUN", "COMMAND"} & set(env)
    answer = host.ask("command", DATE=ONE, COMMAND="echo about to fail; exit 7")
    assert (answer.code, answer.stdout) == (1, "exit 7\n")
    assert answer.stderr == "about to fail\nexit status 7: echo about to fail; exit 7\n"
    assert host.ask("command", DATE=TWO, COMMAND="true").code == 6


COUNTED = "echo begun >>../../count; sleep 1; echo done"


def test_a_command_goes_on_without_its_link_and_is_never_repeated(host):
    host.stage(ONE)
    cut = host.start("command", DATE=ONE, COMMAND=COUNTED)
    eventually((host.root / "count").exists)
    cut.kill()
    attached, again = (host.do("command", DATE=ONE, COMMAND=COUNTED) for _ in range(2))
    assert (attached.stdout, attached.stderr) == ("exit 0\n", "done\n")
    assert (again.stdout, again.stderr) == ("exit 0\n", "done\n")
    assert (host.root / "count").read_text() == "begun\n"


def test_a_command_waits_for_one_that_an_older_run_left_behind(host):
    host.stage(ONE)
    host.stage(TWO)
    left = host.start("command", DATE=ONE, COMMAND="touch ../../work; sleep 1; rm ../../work")
    eventually((host.root / "work").exists)
    left.kill()
    host.lock(TAKE=1)
    answer = host.do("command", DATE=TWO, COMMAND="! [ -e ../../work ]")
    assert answer.stderr == "waiting for the command of an earlier run\n"


def test_a_command_that_failed_stays_failed(host):
    host.stage(ONE)
    values = {"DATE": ONE, "COMMAND": "echo once >>../../count; exit 3"}
    assert [host.ask("command", **values).code for _ in range(2)] == [1, 1]
    assert (host.root / "count").read_text() == "once\n"


def test_a_command_whose_end_nobody_saw_is_refused(host):
    host.stage(ONE)
    cut = host.start("command", DATE=ONE, COMMAND=COUNTED)
    eventually((host.root / "count").exists)
    cut.kill()
    [pid] = (host.root / "state/commands").glob("*.pid")
    os.killpg(int(pid.read_text()), signal.SIGKILL)
    answer = host.ask("command", DATE=ONE, COMMAND=COUNTED)
    assert answer.code == 6
    assert answer.stderr.startswith(f"nobody knows how it ended: {COUNTED}; what it printed is in ")


# ---- publish, commit, revert


def test_a_switch_that_is_resumed_stays_and_is_kept(host):
    host.deploy(ONE)
    host.stage(TWO)
    host.do("publish", DATE=TWO)
    assert host.do("preflight", LEASE=0).facts["unfinished"] == "-"
    assert "reverted" not in host.lock(TAKE=host.token, RESUME=TWO).facts
    assert host.current == TWO
    assert host.do("publish", DATE=TWO).facts["previous"] == ONE
    host.do("commit", DATE=TWO)
    assert host.line == [ONE, TWO]


def test_of_another_switch_the_host_goes_back_all_the_same(host):
    host.deploy(ONE)
    host.stage(TWO)
    host.do("publish", DATE=TWO)
    assert host.lock(TAKE=host.token, RESUME=THREE).facts["reverted"] == f"{TWO} {ONE}"


def test_publish_and_commit(host):
    host.stage(ONE)
    answer = host.do("publish", DATE=ONE)
    assert abs(float(answer.facts.pop("switched")) - time.time()) < 5
    assert answer.facts == {"published": ONE, "previous": "-"}
    assert (host.root / "current").readlink() == Path(f"releases/{ONE}")
    assert host.do("preflight").facts["pending"] == f"- {ONE}"
    assert host.do("commit", DATE=ONE).stdout == f"committed {ONE}\n"
    assert host.do("commit", DATE=ONE).stdout == f"committed {ONE}\n", "its answer may get lost"
    assert "pending" not in host.do("preflight").facts
    assert host.line == [ONE]


def test_publish_waits_for_the_word_that_all_are_ready(host):
    host.stage(ONE)
    process = host.start("publish", stdin=subprocess.PIPE, DATE=ONE, WAIT=60)
    assert process.stdout.readline() == b"ready\n"
    assert host.current == "-"
    process.communicate(b"go\n", timeout=60)
    assert (process.returncode, host.current) == (0, ONE)


@pytest.mark.parametrize(("word", "wait"), [(b"", 60), (b"no\n", 60), (None, 1)])
def test_without_the_word_nothing_is_switched_and_nothing_is_left(host, word, wait):
    host.deploy(ONE)
    host.stage(TWO)
    switched = (host.root / "current").lstat().st_mtime_ns
    process = host.start("publish", stdin=subprocess.PIPE, DATE=TWO, WAIT=wait)
    if word is not None:
        process.stdin.write(word)
        process.stdin.close()
    assert process.wait(20) == 1
    assert process.stdout.read().decode() == f"ready\nreverted {TWO} {ONE}\n"
    said = f"not switched: no word within {wait} s that all hosts are ready\n"
    assert process.stderr.read().decode() == said
    assert host.current == ONE and "pending" not in host.do("preflight").facts
    assert (host.root / "current").lstat().st_mtime_ns == switched, "nothing has to be restarted"
    assert not list(host.root.glob(".current.*"))
    assert [host.audit()[-1][key] for key in ("verb", "outcome")] == ["publish", "failed"]


def test_a_publish_that_is_repeated_goes_back_without_the_word(host):
    host.deploy(ONE)
    host.stage(TWO)
    host.do("publish", DATE=TWO)
    answer = host.ask("publish", data=b"", DATE=TWO, WAIT=60)
    assert (answer.code, answer.facts["reverted"], host.current) == (1, f"{TWO} {ONE}", ONE)


def test_publish_refuses_what_is_not_staged(host):
    (host.root / f"releases/{ONE}.part").mkdir()
    answer = host.ask("publish", DATE=ONE)
    assert (answer.code, answer.stderr) == (6, f"release {ONE} is not staged in {host.root}\n")


def test_publish_again_keeps_where_it_came_from(host):
    host.deploy(ONE)
    host.stage(TWO)
    host.stage(THREE)
    host.do("publish", DATE=TWO)
    assert host.do("publish", DATE=TWO).facts["previous"] == ONE
    assert host.ask("publish", DATE=THREE).code == 6
    assert host.do("revert").stdout == f"reverted {TWO} {ONE}\n"
    assert host.current == ONE


def test_revert_goes_to_where_it_came_from_and_is_idempotent(host):
    host.stage(ONE)
    host.do("publish", DATE=ONE)
    assert host.do("revert").stdout == f"reverted {ONE} -\n"
    assert host.current == "-"
    assert host.do("revert").stdout == "nothing pending\n"
    answer = host.ask("commit", DATE=ONE)
    assert (answer.code, answer.stdout) == (6, "nothing pending\n")
    assert host.line == []


def test_commit_names_what_it_means(host):
    host.deploy(ONE)
    host.stage(TWO)
    host.do("publish", DATE=TWO)
    assert host.ask("commit", DATE=ONE).code == 6
    host.do("unlock")
    host.lock()
    assert host.ask("commit", DATE=TWO).code == 6
    assert host.ask("commit", DATE=ONE).code == 6, "it was another run that committed it"


def test_a_host_that_cannot_go_back_says_so(host):
    host.deploy(ONE)
    host.stage(TWO)
    host.do("publish", DATE=TWO)
    shutil.rmtree(host.root / "releases" / ONE)
    answer = host.ask("revert")
    assert (answer.code, answer.stderr) == (
        8, f"{host.root}/current cannot go back from {TWO} to {ONE}\n")
    assert host.current == TWO


def test_the_line_is_an_undo_list(host):
    def move(date):
        host.do("publish", DATE=date)
        host.do("commit", DATE=date)

    def beside():
        facts = host.do("preflight").facts
        return facts["previous"], facts["current"], facts["next"]

    for date in (ONE, TWO, THREE):
        host.deploy(date)
    assert beside() == (TWO, THREE, "-")
    move(ONE)
    assert beside() == ("-", ONE, TWO)
    move(TWO)
    assert beside() == (ONE, TWO, THREE)
    assert host.line == [ONE, TWO, THREE]
    host.deploy(FOUR)
    assert host.line == [ONE, TWO, FOUR], "a deploy cuts off what was undone"
    assert beside() == (TWO, FOUR, "-")
    move(THREE)
    assert host.line == [ONE, TWO, FOUR, THREE]
    standings = [value.split()[1] for value in host.do("list").all("release")]
    assert standings == ["live", "live", "current", "live"]


def test_order_is_never_by_time_of_files(host):
    for date in (ONE, TWO, THREE):
        host.deploy(date)
    for age, date in enumerate((ONE, TWO, THREE)):
        os.utime(host.root / "releases" / date, (age, 9e8 - age))
    facts = host.do("preflight").facts
    assert (facts["previous"], facts["current"]) == (TWO, THREE)


def test_leftovers_of_a_killed_switch_do_not_mislead(host):
    host.deploy(ONE)
    host.stage(TWO)
    for number in range(1, 100):
        (host.root / f".current.{number}").symlink_to("releases/nonsense")
    host.do("publish", DATE=TWO)
    assert (host.root / "current").readlink() == Path(f"releases/{TWO}")
    host.do("commit", DATE=TWO)
    host.do("clean")
    assert not [*host.root.glob(".current.*")]


# ---- audit


def test_audit_is_json_whatever_is_in_it(host):
    host.stage(ONE, OWNER=NASTY, PURPOSE=NASTY, RUN=NASTY, REVISION=NASTY)
    host.do("publish", DATE=ONE, SSH_CONNECTION="192.0.2.7 1234 192.0.2.8 22")
    host.ask("publish", DATE=TWO)
    host.ask("renew", TOKEN=9)
    host.ask("revert", TOKEN=9)
    entries = host.audit()
    assert [(e["verb"], e["outcome"], e["code"]) for e in entries] == [
        ("setup", "ok", 0), ("lock", "ok", 0), ("stage", "ok", 0), ("publish", "ok", 0),
        ("publish", "refused", 6), ("revert", "fenced", 9)]
    when = entries[3].pop("when")
    assert time.strftime("%Y-%m-%dT%H:", time.gmtime())[:11] == when[:11]
    assert entries[3] == {
        "verb": "publish", "outcome": "ok", "client": "192.0.2.7", "owner": "ann@laptop",
        "run": "here:1:2", "purpose": "-", "from": "-", "to": ONE, "revision": SHOWN, "code": 0,
        "token": 1, "seconds": entries[3]["seconds"]}
    assert all(entries[2][key] == SHOWN for key in ("owner", "purpose", "run", "revision"))
    assert len(host.audit(last=2)) == 2
    assert not [*host.home.rglob("pwned")]


def test_broken_utf8_does_not_break_the_log(host):
    host.do("unlock")
    host.lock(OWNER=os.fsdecode(b"ann\xff\xfe"))
    assert host.audit()[-1]["owner"] == "ann"


# ---- clean


def test_clean_keeps_what_was_live(host):
    dates = [f"2026010{n}000000" for n in range(1, 10)]
    for date in dates:
        host.stage(date)
        if date[7] in "13579":  # the others failed, and do not count
            host.do("publish", DATE=date)
            host.do("commit", DATE=date)
    host.stage(FIVE)
    (host.root / f"releases/{ONE}.part").mkdir()
    answer = host.do("clean", KEEP=3)
    assert answer.stdout == (
        f"kept {FIVE} newer than the current one\n"
        f"kept {dates[8]} current\n"
        f"removed {dates[7]}\n"
        f"kept {dates[6]} beside the current one\n"
        f"removed {dates[5]}\n"
        f"kept {dates[4]} of the last 3 that were live\n"
        f"removed {dates[3]}\nremoved {dates[2]}\nremoved {dates[1]}\nremoved {dates[0]}\n"
    )
    left = sorted(path.name for path in (host.root / "releases").iterdir())
    assert left == [dates[4], dates[6], dates[8], FIVE]
    assert sorted(p.name for p in (host.root / "state/releases").iterdir()) == [
        dates[4], f"{dates[4]}.live", dates[6], f"{dates[6]}.live", dates[8], FIVE]
    assert host.do("clean", KEEP=3).all("removed") == []


def test_the_last_verb_of_a_run_lets_go_of_its_lock(host):
    host.deploy(ONE)
    answer = host.do("clean", UNLOCK="yes")
    assert answer.stdout == f"kept {ONE} current\nunlocked 1\n"
    assert host.ask("renew").code == 9
    log = [json.loads(line) for line in (host.root / "state/audit.log").read_text().splitlines()]
    assert [entry["verb"] for entry in log[-2:]] == ["unlock", "clean"]


def test_clean_after_a_rollback(host):
    for date in (ONE, TWO, THREE, FOUR, FIVE):
        host.deploy(date)
    host.do("publish", DATE=TWO)
    host.do("commit", DATE=TWO)
    answer = host.do("clean", KEEP=0)
    assert answer.all("kept") == [
        f"{FIVE} of the last 1 that were live", f"{THREE} beside the current one",
        f"{TWO} current", f"{ONE} beside the current one"]


MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    kept = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(flush=True)
sys.stdin.read()
"""
USES = {
    "folder": lambda release: {"args": ["sleep", "60"], "cwd": release},
    "open file": lambda release: {"args": ["sleep", "60"], "stdin": (release / "a file").open()},
    "environment": lambda release: {"args": ["sleep", "60"], "env": {"HERE": f"a:{release}/bin"}},
    "argument": lambda release: {"args": ["sh", "-c", "sleep 60; :", release / "x"]},
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_clean_spares_what_a_process_uses(host, use):
    for date in (ONE, TWO, THREE, FOUR):
        host.deploy(date)
    user = subprocess.Popen(**use(host.root / "releases" / TWO), start_new_session=True)
    try:
        answer = host.do("clean", KEEP=1)
    finally:
        os.killpg(user.pid, signal.SIGKILL)
        user.wait()
    assert answer.all("removed") == [ONE]
    comm = "sh" if user.args[0] == "sh" else "sleep"
    assert answer.all("kept")[2:] == [f"{TWO} pid {user.pid} {comm}"]


def test_clean_spares_a_file_that_is_mapped(host):
    for date in (ONE, TWO, THREE):
        host.deploy(date)
    path = host.root / "releases" / ONE / "a file"
    with subprocess.Popen([sys.executable, "-c", MAPS, path], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as user:
        user.stdout.readline()
        answer = host.do("clean", KEEP=1)
        user.stdin.close()
    assert answer.all("kept")[-1].startswith(f"{ONE} pid {user.pid} python")


def test_clean_spares_what_a_unit_names(host):
    for date in (ONE, TWO, THREE):
        host.deploy(date)
    unit = host.home / "supervisor/conf.d/odd.conf"
    unit.parent.mkdir(parents=True)
    unit.write_text(f"command={host.root}/releases/{ONE}/run\n")
    assert host.do("clean", KEEP=1).all("kept")[-1] == f"{ONE} named in {unit}"


def test_clean_of_pending_and_of_virtualenvs(host):
    host.deploy(ONE)
    host.deploy(TWO)
    host.deploy(THREE)
    for name in ("used", "unused"):
        (host.root / "venvs" / name).mkdir()
    (host.root / f"releases/{TWO}/.venv").symlink_to("../../venvs/used")
    host.do("publish", DATE=ONE)
    answer = host.do("clean", KEEP=1)
    assert answer.all("kept") == [
        f"{THREE} pending", f"{TWO} beside the current one", f"{ONE} current"]
    assert answer.all("venv") == ["unused removed"]
    assert [path.name for path in (host.root / "venvs").iterdir()] == ["used"]
    host.do("revert")


# ---- a disk that takes no more


@pytest.fixture
def staged(host):
    """ONE is live, TWO is staged."""
    host.deploy(ONE)
    host.stage(TWO)
    return host


def full_disk(tmp_path, host):
    """A PATH on which no file of state/ gets to the disk."""
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "sync").write_text("#!/bin/sh\ncase $1 in *.new) exit 1 ;; esac\n")
    (folder / "sync").chmod(0o755)
    return f"{folder}:{host.path}"


@pytest.mark.parametrize("verb", ["renew", "publish", "commit", "lock"])
def test_a_write_that_fails_stops_the_verb(staged, tmp_path, verb):
    """Nothing is put in place that is not on disk, and nothing goes on as if it were."""
    if verb == "commit":
        staged.do("publish", DATE=TWO)
    before = staged.current
    path, staged.path = staged.path, full_disk(tmp_path, staged)
    answer = staged.ask(verb, DATE=TWO, TAKE=1, LEASE=100)
    staged.path = path
    assert answer.code == 1
    assert staged.current == before
    assert staged.do("preflight").facts["lock_owner"] == "ann@laptop"
    staged.do("renew")


def test_a_full_disk_does_not_keep_a_host_from_going_back(staged, tmp_path):
    staged.do("publish", DATE=TWO)
    path, staged.path = staged.path, full_disk(tmp_path, staged)
    staged.do("revert", LEASE=100)
    staged.path = path
    assert staged.current == ONE
    assert staged.do("preflight").facts["lock_owner"] == "ann@laptop"
