"""The table of docs/nginx.md is what the corpus says. Run as a program, this writes it anew."""

from fabfile import corpus, nginx
from tests.conftest import ROOT

PAGE, TITLE = ROOT / "docs/nginx.md", "### The corpus\n"


def written():
    """The page as it is to be."""
    before, _, after = PAGE.read_text().partition(TITLE)
    introduction = after.partition("\n|")[0]
    requests = corpus.read(nginx.CORPUS.read_text(), "search.corpus")
    return f"{before}{TITLE}{introduction}\n{corpus.table(requests)}"


def test_the_table_is_that_of_the_corpus():
    assert PAGE.read_text() == written(), "python -m tests.test_corpus writes it anew"


def test_each_reason_has_a_row_for_each_whom_it_lets_through_to():
    text = "# one\nread GET /a\nread GET /b | x | chunked\nnobody GET /c\n\n# two\nwrite POST /d\n"
    assert corpus.table(corpus.read(text, "mine")) == (
        "| why | request | reaches |\n"
        "|---|---|---|\n"
        "| one | `GET /a`<br>`GET /b`, chunked | a slave |\n"
        "| one | `GET /c` | nobody |\n"
        "| two | `POST /d` | the master |\n")


def test_every_request_has_a_reason_and_none_has_a_bar():
    for one in corpus.read(nginx.CORPUS.read_text(), "search.corpus"):
        assert one.why and "|" not in one.line


if __name__ == "__main__":
    PAGE.write_text(written())
