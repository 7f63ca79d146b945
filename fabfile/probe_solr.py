"""What is asked of a Solr, and done to its cores, on its own host. A program of its own: sent to
`python3 -` there, it reads a JSON request from its only argument and prints one JSON object. Only
the standard library.

Request: verb (see VERBS), address, port, home, deploy_to; prove: release and
samples (core → document); fetch: masters (core → what its master has), deadline. Each core of a
release is a folder of Solr's home whose `conf` is a link to DEPLOY_TO/current/CORE/conf.
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
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

SCRATCH = "scratch."
# A scratch core of a slave follows nobody, and takes the one document that proves it.
APART = {"property.follows": "false", "property.update.handler": "solr.UpdateRequestHandler"}


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

    def _said(self, method, path, body=None):
        host, port = self.place
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            connection.request(method, f"/solr{path}", body, {"Content-Type": "text/xml"})
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
        """The cores of Solr's home whose conf is a link to `current`, be it there or not."""
        return {place.name for place in self.home.iterdir() if self.is_ours(place / "conf")}

    def is_ours(self, link):
        return link.is_symlink() and os.readlink(link).startswith(f"{self.current}/")

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
    sweep(host)
    release = host.current.parent / "releases" / request["release"]
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
    conf = host.home / core / "conf"
    if os.path.lexists(conf) and not host.is_ours(conf):
        raise Unwell(f"{conf} was not made by this toolkit: move it away first")


def prove_core(host, core, conf, document):
    """It is created, takes a document with each type of field, and finds it."""
    name = f"{SCRATCH}{core}"
    place = host.home / name
    place.mkdir()
    (place / "conf").symlink_to(conf)
    host.solr.admin("CREATE", name=name, instanceDir=place, **APART)
    check_fingerprint(host, name, conf)
    host.solr.add(name, document)
    query = f'id:"{document["id"]}"'
    found = host.solr.get(f"/{name}/select", q=query, fl="*")["response"]["docs"]
    if len(found) != 1:
        raise Unwell(f"a document was indexed, and {len(found)} were found")


def sweep(host):
    """Takes scratch cores away: this run's, and those of one that was killed."""
    loaded, failed = host.loaded()
    for name in {*loaded, *failed}:
        if name.startswith(SCRATCH):
            host.solr.admin("UNLOAD", core=name, deleteInstanceDir="true")
    for place in host.home.glob(f"{SCRATCH}*"):
        shutil.rmtree(place, ignore_errors=True)


# ---- what follows a switch


def follow(host, request):
    """Solr runs what `current` names: its cores are reloaded or created, those that it has no
    more are unloaded, with their index left where it is. core → what it has.
    """
    loaded, failed = host.loaded()
    for core in host.ours() - host.wanted():
        if core in loaded or core in failed:
            host.solr.admin("UNLOAD", core=core)
    for core in sorted(host.wanted()):
        adopt(host, core, known={*loaded, *failed})
    return check_all(host, request)


def adopt(host, core, known):
    """Solr takes the configuration of one core."""
    check_home(host, core)
    place = host.home / core
    place.mkdir(exist_ok=True)
    if not (place / "conf").is_symlink():
        (place / "conf").symlink_to(host.current / core / "conf")
    try:
        if core in known:
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
    found = host.solr.get(f"/{core}/select", q="*:*", rows=0)["response"]["numFound"]
    return {"documents": found, **index(host, core)}


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
    found = host.solr.get(f"/{core}/replication", command="indexversion")
    return {"version": found["indexversion"], "generation": found["generation"]}


# ---- slaves


def fetch(host, request):
    """Each core has what its master had when it was asked, or newer. core → what it has."""
    deadline = time.monotonic() + request["deadline"]
    for core, master in request["masters"].items():
        same = index(host, core)["version"] == master["version"]
        while not same:
            same = fetched(host, core, deadline) and is_abreast(host, core, master, deadline)
    return {"cores": {core: check(host, core) for core in request["masters"]}}


def is_abreast(host, core, master, deadline):
    """Whether a core has the version that its master had. Unwell once it is too late."""
    if time.monotonic() > deadline:
        raise Unwell(f"core {core} is still behind its master")
    return index(host, core)["version"] >= master["version"]


def fetched(host, core, deadline):
    """Whether a fetch, which is waited for, succeeds. Unwell once it is too late for another: a
    poll may be at it already.
    """
    try:
        host.solr.get(f"/{core}/replication", command="fetchindex", wait="true")
        return True
    except Unwell as error:
        if time.monotonic() > deadline:
            raise Unwell(f"core {core} does not replicate: {error}") from None
        time.sleep(0.2)
        return False


# ---- reports


def schemas(host, request):
    """core → the schema that `current` has."""
    paths = {core: host.current / core / "conf/schema.xml" for core in host.wanted()}
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
    facts = loaded[core]["index"]
    found = {"documents": facts["numDocs"], "bytes": facts["sizeInBytes"], **index(host, core),
             "error": failed.get(core, "")}
    conf = host.current / core / "conf"
    try:
        found["drift"] = loaded_fingerprint(host, core) != fingerprint(conf)
    except (Unwell, OSError) as error:
        found.update(drift=True, error=found["error"] or str(error))
    details = host.solr.get(f"/{core}/replication", command="details")["details"]
    follower = details.get("follower", {})
    found["polling"] = follower.get("isPollingDisabled") != "true" if follower else None
    found["error"] = found["error"] or follower.get("ERROR", "")
    return found


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


VERBS = {"prove": prove, "follow": follow, "check": check_all, "fetch": fetch,
         "schemas": schemas, "status": status}


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
