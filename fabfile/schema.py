"""Solr's schema.xml: what of a change makes the index that is there wrong, and a document with a
field of each type."""

from fnmatch import fnmatchcase
from xml.etree import ElementTree

from .errors import Usage

HARMLESS = {"name", "type", "required", "default"}  # what an index does not depend on
VALUES = {
    "TextField": "words of a text",
    "BoolField": "true",
    "DatePointField": "2026-11-24T08:30:00Z",
    "LatLonPointSpatialField": "52.5,13.4",
}


class Schema:
    """One schema.xml. Usage, with `place`, if it is none."""

    def __init__(self, text, place="schema.xml"):
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise Usage(f"{place}: {error}") from None
        self.types = {entry.get("name"): entry for entry in root.iter("fieldType")}
        self.fields = {entry.get("name"): entry for entry in root.iter("field")}
        self.dynamic = {entry.get("name"): entry for entry in root.iter("dynamicField")}
        self.key = (root.findtext("uniqueKey") or "").strip()
        self.copies = {e.get("dest"): e.get("source") for e in root.iter("copyField")}

    def find(self, name):
        """The definition that a field of this name has, by itself or by a pattern; or None."""
        if name in self.fields:
            return self.fields[name]
        patterns = [pattern for pattern in self.dynamic if fnmatchcase(name, pattern)]
        return self.dynamic[max(patterns, key=len)] if patterns else self.dynamic.get(name)

    def indexed_as(self, field):
        """All of a field's type that its index depends on."""
        entry = self.types.get(field.get("type"))
        return None if entry is None else (attributes(entry), analyzer(entry))

    def sample(self):
        """A document, {field: value}, with a field of each type that a field can have, or with one
        that is copied into it.
        """
        needed = [name for name, field in self.fields.items()
                  if name == self.key or field.get("required") == "true"]
        document = {name: self.value(self.fields[name]) for name in needed}
        for name, field in {**self.fields, **self.dynamic}.items():
            known = {self.find(other).get("type") for other in document}
            if not name.startswith("_") and field.get("type") not in known:
                source = self.copies.get(name, name)
                document[source.replace("*", "sample")] = self.value(field)
        return document

    def value(self, field):
        """A value that fits the field's type."""
        entry = self.types.get(field.get("type"))
        kind = "" if entry is None else entry.get("class", "").rpartition(".")[2]
        return VALUES.get(kind, "1")


def attributes(entry):
    """An element's attributes that matter to an index."""
    return {name: value for name, value in entry.attrib.items() if name not in HARMLESS}


def analyzer(entry):
    """What a type does to a text before it is indexed; the one for queries may change freely."""
    chosen = [one for one in entry.iter("analyzer") if one.get("type", "index") == "index"]
    return [(step.tag, sorted(step.attrib.items())) for one in chosen for step in one.iter()]


def not_kept(old, new):
    """The names of the fields of the Schema `new` whose content an index of `old` does not give
    back, so that it can't be built anew from its own documents.
    """
    if old.key != new.key or old.find("_version_") is None or new.find("_version_") is None:
        return [old.key if old.key != new.key else "_version_"]
    return [name for name, field in {**old.fields, **old.dynamic}.items()
            if not is_stored(old, field) and new.find(name) is not None
            and not any(fnmatchcase(name, copy) for copy in new.copies)]


def is_stored(schema, field):
    """Whether an index gives back what a document has in this field."""
    kind = schema.types.get(field.get("type"))
    given = {**({} if kind is None else kind.attrib), **field.attrib}
    return "true" in (given.get("stored", "true"), given.get("docValues"))


def differences(old, new, *, removed=True):
    """Each reason, in words, why an index of the Schema `old` has to be built anew for `new`; that
    a field was removed is one only if `removed`.
    """
    if old.key != new.key:
        yield f"the unique key was {old.key} and is {new.key}"
    names = [*old.fields, *old.dynamic, *(name for name in new.fields if name not in old.fields)]
    for name in names:
        before, after = old.find(name), new.find(name)
        if before is None or (after is None and not removed):
            continue
        if reason := difference(old, new, before, after):
            yield f"field {name}: {reason}"


def difference(old, new, before, after):
    """Why what is indexed of one field is wrong now; '' if it is not."""
    if after is None:
        return "it was removed"
    if old.indexed_as(before) != new.indexed_as(after):
        if before.get("type") != after.get("type"):
            return f"its type was {before.get('type')} and is {after.get('type')}"
        same = attributes(old.types[before.get("type")]) == attributes(new.types[after.get("type")])
        return f"the {'analyzer' if same else 'definition'} of its type {after.get('type')} changed"
    changed = dict(attributes(before).items() ^ attributes(after).items())
    return ", ".join(f"{name} was {before.get(name, 'not set')} and is {after.get(name, 'not set')}"
                     for name in sorted(changed))
