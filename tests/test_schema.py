"""Schemas compared: what needs a new index is named, what does not is let through."""

import re

import pytest

from fabfile import cores
from fabfile.errors import Usage
from fabfile.schema import Schema, differences, not_kept

MARK = "<!-- What the i"
TEXT = (cores.FOLDER / "conference/conf/schema.xml").read_text()


def reasons(old, new, text=TEXT):
    """The differences that one replacement makes."""
    assert old in text
    return list(differences(Schema(text), Schema(text.replace(old, new))))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name="city_exact" type="string"', 'name="city_exact" type="text_en"',
         ["field city_exact: its type was string and is text_en"]),
        ('<field name="starts" type="date" indexed="true" stored="true" multiValued="false"/>', "",
         ["field starts: it was removed"]),
        ('minGramSize="3"', 'minGramSize="2"',
         ["field *_n: the analyzer of its type ngram changed"]),
        ('class="solr.DoublePointField"', 'class="solr.FloatPointField"',
         ["field *_f: the definition of its type float changed"]),
        ('name="title" type="text_en" indexed="true" stored="true"',
         'name="title" type="text_en" indexed="true" stored="false"',
         ["field title: stored was true and is false"]),
        ("<uniqueKey>id<", "<uniqueKey>django_id<", ["the unique key was id and is django_id"]),
        (MARK, '<field name="slug_s" type="text_en" indexed="true" stored="true"/>' + MARK,
         ["field slug_s: its type was string and is text_en"]),
    ],
    ids=["type", "removed", "analyzer", "class", "stored", "key", "out of a pattern"],
)
def test_what_needs_a_new_index_is_named(old, new, expected):
    assert reasons(old, new) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (MARK, '<field name="about" type="text_en" indexed="true" stored="true"/>' + MARK),
        ('<analyzer type="query">', '<analyzer type="query"><charFilter class="solr.X"/>'),
        (MARK, "<!-- All that the i"),
        ('type="float"', 'type="double"'),
    ],
    ids=["added", "query analyzer", "comment", "pattern of a renamed type"],
)
def test_what_does_not_is_let_through(old, new):
    text = TEXT.replace('<fieldType name="float"', '<fieldType name="double" '
                        'class="solr.DoublePointField" docValues="true"/><fieldType name="float"')
    assert reasons(old, new, text) == []


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("", "", []),
        ('name="city_exact" type="string" indexed="true" stored="true"',
         'name="city_exact" type="text_en" indexed="true" stored="false"', ["city_exact"]),
        ('name="city_exact" type="string" indexed="true" stored="true"',
         'name="city_exact" type="string" indexed="true" stored="false"', []),  # it has docValues
        ('name="*_en" type="edge_ngram" indexed="true" stored="true"',
         'name="*_en" type="edge_ngram" indexed="true" stored="false"', ["*_en"]),
        ('<field name="_version_" type="long" indexed="false" stored="false" docValues="true"/>',
         "", ["_version_"]),
    ],
    ids=["all", "not stored", "docValues", "pattern", "no version"],
)
def test_what_an_index_does_not_give_back_is_named(old, new, lost):
    assert not_kept(Schema(TEXT.replace(old, new)), Schema(TEXT)) == lost


def test_what_is_a_copy_or_was_removed_need_not_be_given_back():
    [field] = re.findall(r'<field name="city".*', TEXT)
    had = field.replace('stored="true"', 'stored="false"')
    for new in ("", f'{field}<copyField source="title" dest="city"/>'):
        assert not_kept(Schema(TEXT.replace(field, had)), Schema(TEXT.replace(field, new))) == []


def test_on_the_way_back_a_field_may_be_missed():
    field = '<field name="about" type="text_en" indexed="true" stored="true"/>'
    old, new = Schema(TEXT.replace(MARK, field + MARK)), Schema(TEXT)
    assert list(differences(old, new)) == ["field about: it was removed"]
    assert list(differences(old, new, removed=False)) == []


def test_the_sample_has_a_field_of_each_type():
    schema, sample = Schema(TEXT), Schema(TEXT).sample()
    assert sample["id"] == "1"
    copied = {dest for dest, source in schema.copies.items() if source in sample}
    types = {schema.find(name).get("type") for name in {*sample, *copied}}
    assert types == set(schema.types) and not copied & {*sample}
    assert sample["starts"] == "2026-11-24T08:30:00Z"


def test_what_is_no_xml_is_named_with_its_line():
    with pytest.raises(Usage, match=r"templates/x: .*line 2"):
        Schema("<schema>\n</wrong>", "templates/x")
