"""Search engines: which one a URL names, as Haystack wants to be told."""

from pathlib import Path

ENGINES = {
    "whoosh": "haystack.backends.whoosh_backend.WhooshEngine",
    "xapian": "xapian_backend.XapianEngine",
    "http": "haystack.backends.solr_backend.SolrEngine",
}


def connection(url: str, folder: Path) -> dict:
    """Haystack's settings for whoosh:, xapian: or http://HOST:PORT/solr/CORE.

    The first two keep their index in a folder of that name, or in the one after the colon.
    Raises ValueError for other URLs.
    """
    kind, _, path = url.partition(":")
    if kind not in ENGINES:
        raise ValueError(f"SEARCH_URL {url!r} begins with none of: {', '.join(ENGINES)}")
    place = {"URL": url} if kind == "http" else {"PATH": path or str(folder / f"{kind}-index")}
    # Haystack's default is to say nothing and find nothing when the engine is down.
    common = {"ENGINE": ENGINES[kind], "SILENTLY_FAIL": False, "INCLUDE_SPELLING": True}
    return {**common, **place, "TIMEOUT": 10}
