"""Whatever a file holds, load answers or raises InventoryError; dump and load lose nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import inventory

WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ADDRESSES = NAMES | st.ip_addresses(v=4).map(str)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
HOSTS = st.builds(
    inventory.Host,
    instance_id=WORDS,
    public_dns=st.just("") | ADDRESSES,
    private_dns=ADDRESSES,
    name=WORDS,
    roles=st.lists(WORDS, unique=True, max_size=3).map(tuple),
    user=st.none() | WORDS,
    port=st.none() | st.integers(1, 65535),
    vars=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), JSON),
)


def words(host):
    return {word.lower() for word in (*host.names, host.instance_id)}


def without_twins(hosts):
    kept, taken = [], set()
    for host in hosts:
        if not words(host) & taken:
            kept.append(host)
            taken |= words(host)
    return tuple(kept)


FLEETS = st.lists(HOSTS, max_size=5).map(without_twins)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("properties") / "servers.json"


def loads_or_explains(path, data):
    """Loads; a refusal must be one line that begins with the file. A fleet must survive a dump."""
    path.write_bytes(data)
    try:
        fleet = inventory.load(path)
    except inventory.InventoryError as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error).splitlines()) == 1
        return
    path.write_text(inventory.dump(fleet))
    assert inventory.load(path) == fleet


@given(st.binary())
def test_any_bytes(path, data):
    loads_or_explains(path, data)


@given(JSON)
def test_any_json(path, value):
    loads_or_explains(path, json.dumps(value).encode())


@given(FLEETS)
def test_dump_then_load_keeps_everything(path, hosts):
    fleet = inventory.Inventory(hosts, path)
    path.write_text(inventory.dump(fleet))
    assert inventory.load(path) == fleet


def places(value, path=()):
    """Where something can be changed in a JSON value."""
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, part in value.items() if isinstance(value, dict) else ():
        yield from places(part, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@given(FLEETS, st.data())
def test_any_value_of_an_inventory_replaced(path, hosts, data):
    entries = json.loads(inventory.dump(inventory.Inventory(hosts, path)))
    place = data.draw(st.sampled_from(list(places(entries))))
    near = st.sampled_from(["", "web\n", "a b", "web;", "}", '"', -1, 0, 65536, None, [], {}])
    damaged = changed(entries, place, data.draw(near | JSON))
    loads_or_explains(path, json.dumps(damaged).encode())


@given(FLEETS, st.data())
def test_any_bytes_of_an_inventory_replaced(path, hosts, data):
    text = inventory.dump(inventory.Inventory(hosts, path)).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    new = data.draw(st.binary(max_size=4) | st.sampled_from([b"NaN", b"1e999", b'"', b"{", b",,"]))
    loads_or_explains(path, text[:start] + new + text[end:])


@given(FLEETS, st.data())
def test_select_is_a_union_less_the_excluded_in_order(path, hosts, data):
    fleet = inventory.Inventory(hosts, path)
    named, excluded, roles = (
        data.draw(st.lists(st.sampled_from(known), max_size=3) if known else st.just([]))
        for known in (hosts, hosts, fleet.roles)
    )
    chosen = fleet.select(roles, [h.private_dns for h in named], [h.private_dns for h in excluded])
    wanted = [h for h in hosts if h in named or set(h.roles) & set(roles)]
    assert list(chosen) == [host for host in wanted if host not in excluded]
