"""What is asked of a Solr, and done to its cores, on its own host. A program of its own: sent to
`python3 -` there, it reads a JSON request from its only argument and prints one JSON object. Only
the standard library.

Request: verb (see VERBS), address, port, home, deploy_to; prove: release and
samples (core → document); rebuild: release and cores; copy: release; copy and fetch: masters
(core → what its master has), deadline. Each core of a release is a folder of Solr's home whose
`conf` is a link to DEPLOY_TO/current/CORE/conf. The folder of a core that was built anew is called
CORE.MOMENT, and its core has a name of its own until it is swapped in.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import sys
import time
import urllib.parse
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

SCRATCH = "scratch."
REBUILT = "rebuilt."  # until the swap a core that is built anew; from then on the one before it
PAGE = 500  # documents
# A scratch core of a slave follows nobody, and takes the one document that proves it.
APART = {"property.follows": "false", "property.update.handler": "solr.UpdateRequestHandler"}
# A document keeps the version that it has, and is dropped where a newer one is there.
AS_IT_IS = {"update.distrib": "FROMLEADER"}


class Unwell(Exception):
    """An answer that is not the one wanted; the text says which."""


class Solr:
    """One Solr over HTTP. Every method raises Unwell, with Solr's own words, if it says no."""

    def __init__(self, address, port):
        self.place = address, port

    def get(self, path, **params):
        """The JSON that it answers with."""
        return self._said("GET", f"{path}?{urllib.parse.urlencode({**params, 'wt': 'json'})}")

    def admin(self, action, **params):
        return self.get("/admin/cores", action=action, **params)

    def add(self, core, document):
        """Indexes one document, {field: value}, as Haystack sends it."""
        fields = "".join(f"<field name={quoteattr(name)}>{escape(str(value))}</field>"
                         for name, value in document.items())
        self._said("POST", f"/{core}/update/?commit=true&wt=json",
                   f"<add><doc>{fields}</doc></add>".encode())

    def update(self, core, commands, **params):
        """Documents (a list), or commands (a mapping) for a core, as JSON."""
        self._said("POST", f"/{core}/update?{urllib.parse.urlencode({**params, 'wt': 'json'})}",
                   json.dumps(commands).encode(), "application/json")

    def replicate(self, core, command, **params):
        """What a core's replication answers to a command."""
        return self.get(f"/{core}/replication", command=command, **params)

    def _said(self, method, path, body=None, kind="text/xml"):
        host, port = self.place
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            connection.request(method, f"/solr{path}", body, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unwell(f"Solr at {host}:{port}: {error or type(error).__name__}") from None
        finally:
            connection.close()
        return understood(answer.status, text)


def understood(status, text):
    """The JSON of an answer. Unwell for an error, also one that comes with 200."""
    try:
        found = json.loads(text)
    except ValueError:
        raise Unwell(f"Solr answers {status}: {' '.join(text.split())[:300]}") from None
    if status != 200:
        raise Unwell(str(found.get("error", {}).get("msg", f"Solr answers {status}")))
    if found.get("status") in ("ERROR", "FAILURE"):
        raise Unwell(str(found.get("message") or found.get("exception") or found))
    return found


class Host:
    """Solr's home and the releases of its configuration, as this host has them."""

    def __init__(self, request):
        self.home = Path(os.path.abspath(request["home"]))
        self.current = Path(os.path.abspath(request["deploy_to"]), "current")
        self.solr = Solr(request["address"], request["port"])

    def wanted(self):
        """The cores that `current` has."""
        return cores_of(self.current)

    def ours(self):
        """The cores of Solr's home that were made here, be they in `current` or not."""
        return {core for core in self.places() if not core.startswith((SCRATCH, REBUILT))}

    def place(self, core):
        """The folder that a core has, or is to have."""
        return self.places().get(core, self.home / core)

    def places(self):
        """core → its folder, of those that were made here."""
        found = {self.name_of(place): place for place in self.home.iterdir()
                 if self.is_ours(place / "conf")}
        return {name: place for name, place in found.items() if name}

    def name_of(self, place):
        """The core of a folder: the one Solr keeps in it, or kept until it was unloaded. '' for a
        folder that never came to be one.
        """
        try:
            return re.search(r"^name=(.*)$", (place / "core.properties").read_text(), re.M)[1]
        except OSError:
            conf = Path(os.readlink(place / "conf"))
            return conf.parent.name if self.current in conf.parents else ""

    def is_ours(self, link):
        return link.is_symlink() and os.readlink(link).startswith(f"{self.current.parent}/")

    def release(self, date):
        return self.current.parent / "releases" / date

    def loaded(self):
        """core → its status; and core → why it could not be loaded."""
        found = self.solr.admin("STATUS")
        known = {name: facts for name, facts in found["status"].items() if facts}
        return known, found["initFailures"]


def cores_of(release):
    return {path.parent.name for path in Path(release).glob("*/conf")}


# ---- the proof of a staged release


def prove(host, request):
    """Each core of the release works as a scratch core, of which nothing is left."""
    tidy(host, request)
    release = host.release(request["release"])
    for core in sorted(cores_of(release)):
        check_home(host, core)
        try:
            prove_core(host, core, release / core / "conf", request["samples"][core])
        except Unwell as error:
            raise Unwell(f"core {core}: {error}") from None
        finally:
            sweep(host)
    return {"proved": sorted(cores_of(release))}


def check_home(host, core):
    """Unwell if what Solr's home has of this name is not ours."""
    conf = host.place(core) / "conf"
    if os.path.lexists(conf) and not host.is_ours(conf):
        raise Unwell(f"{conf} was not made by this toolkit: move it away first")


def prove_core(host, core, conf, document):
    """It is created, takes a document with each type of field, and finds it."""
    name = f"{SCRATCH}{core}"
    create(host, name, host.home / name, conf, **APART)
    host.solr.add(name, document)
    query = f'id:"{document["id"]}"'
    found = host.solr.get(f"/{name}/select", q=query, fl="*")["response"]["docs"]
    if len(found) != 1:
        raise Unwell(f"a document was indexed, and {len(found)} were found")


def create(host, name, place, conf, **properties):
    """A core of its own in a new folder, with a configuration that is not live."""
    place.mkdir()
    (place / "conf").symlink_to(conf)
    host.solr.admin("CREATE", name=name, instanceDir=place, **properties)
    check_fingerprint(host, name, conf)


def sweep(host, kinds=(SCRATCH,)):
    """Takes cores away that are no longer needed: this run's, and those of one that was killed."""
    loaded, failed = host.loaded()
    for name in {*loaded, *failed}:
        if name.startswith(kinds):
            host.solr.admin("UNLOAD", core=name, deleteInstanceDir="true")
    for place in host.home.iterdir():  # also what never came to be a core, and so has no name
        if host.is_ours(place / "conf") and (host.name_of(place) or SCRATCH).startswith(kinds):
            shutil.rmtree(place, ignore_errors=True)


def tidy(host, request):
    """Nothing is left of a rebuild, but for the core of it that has what `current` names."""
    loaded, failed = host.loaded()
    for core in host.ours() & host.wanted():
        if is_rebuilt(host, core, loaded):
            adopt(host, core, loaded, failed)  # it could not be done when it should have been
        relink(host.place(core) / "conf", host.current / core / "conf")
    sweep(host, (SCRATCH, REBUILT))
    return {}


def relink(link, target):
    """A link to `target` in place of what is there, if anything."""
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, link)


# ---- a core built anew, beside the one that answers


def rebuild(host, request):
    """On the master, cores are built anew from their own documents. core → what it has."""
    return {"cores": {core: rebuilt(host, core, request["release"]) for core in request["cores"]}}


def rebuilt(host, core, date):
    """Beside it, with the configuration of the release. Unwell unless it has all documents."""
    try:
        create_rebuilt(host, core, date)
        for _ in range(10):  # while others write, one round is not the last
            catch_up(host, core, REBUILT + core)
            counts = documents(host, core), documents(host, REBUILT + core)
            if counts[0] == counts[1]:
                return {"documents": counts[1], **index(host, REBUILT + core)}
        raise Unwell(f"built anew it has {counts[1]} documents of {counts[0]}")
    except Unwell as error:
        raise Unwell(f"core {core}: {error}") from None


def create_rebuilt(host, core, date):
    """The core to be. From now on the live one does not follow `current`: a Solr that starts in
    between has to find the configuration that its index was made with.
    """
    old = host.current.parent / os.readlink(host.current) / core / "conf"
    relink(host.place(core) / "conf", old)
    place = host.home / f"{core}.{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
    create(host, REBUILT + core, place, host.release(date) / core / "conf")


def catch_up(host, source, target, until=None):
    """The core `target` gets what `source` has that is newer, and loses what it has no more.
    Returns the highest version of `source`. After a swap, `until` is the one it had before: what
    `target` has or has lost since then is its own.
    """
    host.solr.update(source, {"commit": {}})
    has, had = versions(host, source), versions(host, target)
    newer = {key: version for key, version in has.items() if version > had.get(key, until or 0)}
    gone = [key for key, version in had.items()
            if key not in has and (until is None or version <= until)]
    if newer:
        copy_documents(host, source, target, newer)
    if gone:
        host.solr.update(target, {"delete": gone})
    host.solr.update(target, {"commit": {}})
    return max(has.values(), default=0)


def versions(host, core):
    """key → version of each document."""
    return {found["id"]: found["_version_"]
            for page in pages(host, core, rows=20 * PAGE, fl="id,_version_") for found in page}


def pages(host, core, **params):
    """All documents that a query finds, in lists."""
    mark, after = "", "*"
    while mark != after:
        mark = after
        found = host.solr.get(f"/{core}/select", sort="id asc", cursorMark=mark,
                              **{"q": "*:*", **params})
        after = found["nextCursorMark"]
        yield found["response"]["docs"]


def copy_documents(host, source, target, newer):
    """Those whose keys are in `newer`, with the version that they have."""
    is_kept = stored(host.place(target) / "conf/schema.xml")
    since = f"_version_:[{min(newer.values())} TO *]"
    done = 0
    for page in pages(host, source, rows=PAGE, fl="*", q=since):
        found = [{name: value for name, value in document.items() if is_kept(name)}
                 for document in page if document["id"] in newer]
        if found:
            host.solr.update(target, found, **AS_IT_IS)
        done += len(found)
        print(f"{target}: {done} of {len(newer)} documents", flush=True)


def stored(schema):
    """name → whether a document of this schema is sent with such a field: it has one, and does not
    make it itself, as a copy of another.
    """
    root = ElementTree.parse(schema).getroot()
    copies = {entry.get("dest") for entry in root.iter("copyField")}
    names = [entry.get("name") for kind in ("field", "dynamicField") for entry in root.iter(kind)]
    return lambda name: not any(fnmatchcase(name, copy) for copy in copies) and any(
        fnmatchcase(name, known) for known in names)


def copy(host, request):
    """On a slave, cores that its master has built anew are fetched, beside those that answer."""
    for core in request["masters"].keys() & host.ours():
        create_rebuilt(host, core, request["release"])
        host.solr.replicate(REBUILT + core, "disablepoll")  # it would ask for the live one's index
        fetch_rebuilt(host, REBUILT + core, request["masters"][core], request["deadline"])
    return {}


def fetch_rebuilt(host, core, master, patience):
    """Fetches the index that the master has under this name, for as long as that goes on."""
    deadline = time.monotonic() + patience
    leader = follower(host, core)["leaderUrl"].rpartition("/")[0]
    while index(host, core)["version"] != master["version"]:
        if follower(host, core).get("isReplicating") == "true":
            deadline = time.monotonic() + patience
            print(f"{core}: it is being fetched", flush=True)
        fetched(host, core, deadline, leaderUrl=f"{leader}/{core}")


def swap(host, core):
    """The core that was built anew and the live one change names, in one moment. On the master,
    what is written meanwhile is carried over; a slave asks nothing of its master until that has
    swapped too.
    """
    other, leads = REBUILT + core, not follower(host, core)
    if not leads:
        host.solr.replicate(core, "disablepoll")
    seen = catch_up(host, core, other) if leads else 0
    host.solr.admin("SWAP", core=core, other=other)
    if leads:
        time.sleep(1)  # a write that was under way has come to its end
        catch_up(host, other, core, seen)


def is_rebuilt(host, core, loaded):
    """Whether there is a core beside this one that has loaded what is wanted now."""
    return REBUILT + core in loaded and fingerprint(host.current / core / "conf") == (
        loaded_fingerprint(host, REBUILT + core))


# ---- what follows a switch


def take(host, request):
    """Solr runs what `current` names: its cores are reloaded or created, those that it has no
    more are unloaded, with their index left where it is. core → what it has.
    """
    loaded, failed = host.loaded()
    for core in host.ours() - host.wanted():
        if core in loaded or core in failed:
            host.solr.admin("UNLOAD", core=core)
    for core in sorted(host.wanted()):
        adopt(host, core, loaded, failed)
    return check_all(host, request)


def follow(host, request):
    """The same for a host that goes back, where nobody comes after: slaves poll again."""
    found = take(host, request)
    for core in found["cores"]:
        poll_again(host, core)
    return found


def adopt(host, core, loaded, failed):
    """Solr takes the configuration of one core: with the core that was built anew for it, if there
    is one.
    """
    check_home(host, core)
    try:
        swapped = is_rebuilt(host, core, loaded)
        if swapped:
            swap(host, core)
        place = host.place(core)
        place.mkdir(exist_ok=True)
        relink(place / "conf", host.current / core / "conf")
        if swapped:
            return
        if core in loaded or core in failed:
            host.solr.admin("RELOAD", core=core)
        else:
            host.solr.admin("CREATE", name=core, instanceDir=place)
    except Unwell as error:
        raise Unwell(f"core {core}: {error}") from None


def check_all(host, request):
    """core → what it has; Unwell if one is not well."""
    return {"cores": {core: check(host, core) for core in sorted(host.wanted())}}


def check(host, core):
    """What a core has, once it is well: it loaded what is on the disk, and answers a query."""
    check_fingerprint(host, core, host.current / core / "conf")
    _, failed = host.loaded()
    if core in failed:
        raise Unwell(f"core {core}: {failed[core]}")
    return {"documents": documents(host, core), **index(host, core)}


def documents(host, core):
    """How many it finds."""
    return host.solr.get(f"/{core}/select", q="*:*", rows=0)["response"]["numFound"]


def check_fingerprint(host, core, conf):
    """Unwell if the configuration that is loaded is not the one on the disk."""
    heard = loaded_fingerprint(host, core)
    if heard != fingerprint(conf):
        raise Unwell(f"core {core} has loaded {heard or 'no fingerprint'}, "
                     f"not {fingerprint(conf) or 'none'} of {conf}")


def loaded_fingerprint(host, core):
    """The fingerprint of the configuration that a core has loaded; '' if it echoes none."""
    header = host.solr.get(f"/{core}/admin/ping")["responseHeader"]
    return header.get("params", {}).get("fingerprint", "")


def fingerprint(conf):
    """The fingerprint that solrconfig.xml on the disk has; '' for none."""
    found = re.search(r'name="fingerprint">(\w*)<', (conf / "solrconfig.xml").read_text())
    return found[1] if found else ""


def index(host, core):
    """Version (the moment of its commit, in milliseconds) and generation of an index."""
    return index_of(host.solr, core)


def index_of(solr, core):
    found = solr.replicate(core, "indexversion")
    return {"version": found["indexversion"], "generation": found["generation"]}


# ---- slaves


def fetch(host, request):
    """Each core has what its master had when it was asked, or newer. core → what it has."""
    deadline = time.monotonic() + request["deadline"]
    for core, master in request["masters"].items():
        same = index(host, core)["version"] == master["version"]
        while not same:
            same = fetched(host, core, deadline) and is_abreast(host, core, master, deadline)
        host.solr.replicate(core, "enablepoll")
    return {"cores": {core: check(host, core) for core in request["masters"]}}


def is_abreast(host, core, master, deadline):
    """Whether a core has the version that its master had. Unwell once it is too late."""
    if time.monotonic() > deadline:
        raise Unwell(f"core {core} is still behind its master")
    return index(host, core)["version"] >= master["version"]


def fetched(host, core, deadline, **where):
    """Whether a fetch, which is waited for, succeeds. Unwell once it is too late for another: a
    poll may be at it already.
    """
    try:
        host.solr.replicate(core, "fetchindex", wait="true", **where)
        return True
    except Unwell as error:
        if time.monotonic() > deadline:
            raise Unwell(f"core {core} does not replicate: {error}") from None
        time.sleep(0.2)
        return False


def follower(host, core):
    """What a core's replication says of how it follows its master; {} for the master's."""
    return host.solr.replicate(core, "details")["details"].get("follower", {})


def poll_again(host, core):
    """A core that was swapped asks its master again, once that has the index it has itself; or
    after half a minute, whatever it has.
    """
    facts, deadline = follower(host, core), time.monotonic() + 30
    if facts.get("isPollingDisabled") != "true":
        return
    has = index(host, core)
    while time.monotonic() < deadline and not has_index(facts["leaderUrl"], core, has):
        time.sleep(0.5)
    host.solr.replicate(core, "enablepoll")


def has_index(leader, core, wanted):
    """Whether the master has this very index."""
    place = urllib.parse.urlsplit(leader)
    try:
        return index_of(Solr(place.hostname, place.port), core) == wanted
    except Unwell:
        return False


# ---- reports


def files(host, request):
    """path → text of the configuration that `current` names."""
    paths = [path for core in host.wanted()
             for path in (host.current / core).rglob("*") if path.is_file()]
    return {"files": {str(path.relative_to(host.current)): path.read_text() for path in paths}}


def schemas(host, request):
    """core → the schema that a release has; without one, `current`."""
    release = host.release(request["release"]) if "release" in request else host.current
    paths = {core: release / core / "conf/schema.xml" for core in cores_of(release)}
    return {"schemas": {core: path.read_text() for core, path in paths.items() if path.exists()}}


def status(host, request):
    """All that solr_status shows of one host."""
    system = host.solr.get("/admin/info/system")
    loaded, failed = host.loaded()
    memory = system["jvm"]["memory"]["raw"]
    names = (host.wanted() | host.ours()) & {*loaded, *failed} | host.wanted()
    return {
        "solr": system["lucene"]["solr-spec-version"],
        "heap": [memory["used"], memory["max"]],
        "free": shutil.disk_usage(host.home).free,
        "current": os.path.basename(os.path.realpath(host.current)) if names else "",
        "edited": edited(host.current),
        "cores": {core: status_of(host, core, loaded, failed) for core in sorted(names)},
    }


def status_of(host, core, loaded, failed):
    """One core: its index, its replication, its configuration, and what is wrong with it."""
    if core not in loaded:
        return {"error": failed.get(core, "not loaded")}
    found = {**opened(loaded[core]["index"]), "error": failed.get(core, "")}
    conf = host.current / core / "conf"
    try:
        found["drift"] = loaded_fingerprint(host, core) != fingerprint(conf)
    except (Unwell, OSError) as error:
        found.update(drift=True, error=found["error"] or str(error))
    follows = follower(host, core)
    found["polling"] = follows.get("isPollingDisabled") != "true" if follows else None
    found["error"] = found["error"] or follows.get("ERROR", "")
    return found


def opened(facts):
    """What a core answers with, all of one moment: its documents, and the commit they are of."""
    return {
        "documents": facts["numDocs"],
        "bytes": facts["sizeInBytes"],
        "version": int(facts["userData"].get("commitTimeMSec", 0)),
        "generation": int(facts["segmentsFile"].removeprefix("segments_"), 36),
    }


def running(host, request):
    """What `fab running` shows: which release each core runs, and since when, in the words of
    probe.py. Where nothing was ever deployed, Solr is not asked.
    """
    place = {"folder": request["deploy_to"], **standing(host.current)}
    silent = {"unit": "solr", "ok": False, "reason": "", "processes": []}
    if not place["deployed"]:
        return [silent | place]
    try:
        loaded, failed = host.loaded()
        names = host.wanted() | host.ours() & loaded.keys()
        return [run_by(host, core, loaded, failed) | place for core in sorted(names)]
    except Unwell as error:
        return [silent | place | {"reason": str(error)}]


def standing(current):
    """Which release is current, since when, and whether one ever was."""
    there = current.is_symlink() and current.is_dir()
    return {
        "current": os.path.basename(os.readlink(current)) if there else None,
        "switched": current.lstat().st_mtime if there else None,
        "deployed": os.path.lexists(current) or (current.parent / "state/line").exists(),
    }


def run_by(host, core, loaded, failed):
    """The release that one core runs."""
    answer = {"unit": f"core {core}", "ok": core in loaded, "reason": "", "processes": []}
    if core not in loaded:
        return answer | {"reason": failed.get(core, "not loaded")}
    release, since = release_of(host, core), taken(host, core, loaded[core]["startTime"])
    return answer | {"processes": [{"pid": None, "release": release, "since": since}]}


def release_of(host, core):
    """The release whose configuration a core has loaded: `current`, or else the newest that has its
    fingerprint. The fingerprint, where none has.
    """
    heard = loaded_fingerprint(host, core)
    releases = sorted(host.release("").glob("[0-9]*[0-9]"), reverse=True)
    for release in (host.current.resolve(), *releases):
        conf = release / core / "conf"
        if (conf / "solrconfig.xml").is_file() and fingerprint(conf) == heard:
            return release.name
    return heard or "-"


def taken(host, core, started):
    """When a core took its configuration: as Solr loaded it; one that was loaded beside the live
    one, as it was swapped in, after which its `conf` was linked anew.
    """
    loaded = datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp()
    return max(loaded, (host.place(core) / "conf").lstat().st_mtime)


def edited(release):
    """The files of a release that are not as its manifest says."""
    try:
        lines = (release / ".manifest").read_text().splitlines()
    except OSError:
        return []
    entries = [line.split(None, 2) for line in lines if line.startswith("f")]
    return [name for _, digest, name in entries if digest != sha256(release / name)]


def sha256(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "gone"


VERBS = {"files": files, "prove": prove, "rebuild": rebuild, "copy": copy, "take": take,
         "tidy": tidy, "follow": follow, "check": check_all, "fetch": fetch,
         "schemas": schemas, "status": status, "running": running}


def main(request):
    for name in ("SIGTERM", "SIGHUP"):  # so that what is begun is cleared away
        signal.signal(getattr(signal, name), lambda number, frame: sys.exit(128 + number))
    host = Host(request)
    try:
        print(json.dumps(VERBS[request["verb"]](host, request)))
    except (Unwell, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
