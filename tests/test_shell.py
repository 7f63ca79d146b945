"""Whatever is quoted comes out of a real shell as it went in."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabfile.shell import assignments, line, quote, words

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40)


def sh(command):
    return subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout.decode()


@given(TEXT)
def test_a_quoted_value_is_one_word(text):
    assert sh(f"printf %s {quote(text)}") == text


def test_line_quotes_each_value():
    assert line("cp {} {}", "a b", "$(id)") == "cp 'a b' '$(id)'"


def test_assignments_reach_the_command():
    text = assignments({"A": "it's", "B": None, "C": 3})
    assert text == """A='it'"'"'s' C=3"""
    assert sh(f"{text} sh -c 'echo \"$A$C\"'") == "it's3\n"


def test_nul_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")


def test_words_are_a_shells():
    assert words("a 'b c'") == ["a", "b c"]
