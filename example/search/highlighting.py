"""Marks the words that were asked for. Haystack's own highlighter does not escape the text."""

from django.utils.html import escape, format_html
from django.utils.safestring import mark_safe
from haystack.utils.highlighting import Highlighter


class Escaped(Highlighter):
    """{% highlight %} with every piece of the text escaped."""

    def highlight(self, text_block):
        self.text_block = text_block
        places = self.find_highlightable_words()
        short = len(text_block) <= self.max_length
        window = (0, len(text_block)) if short else self.find_window(places)
        return self.render_html(places, *window)

    def render_html(self, highlight_locations=None, start_offset=None, end_offset=None):
        pieces, at = [], start_offset
        for start, end in _spans(highlight_locations, end_offset):
            if start >= at:
                word = self.text_block[start:end]
                pieces += [escape(self.text_block[at:start]), format_html("<mark>{}</mark>", word)]
                at = end
        before, after = start_offset > 0, end_offset < len(self.text_block)
        rest = escape(self.text_block[at:end_offset])
        return mark_safe("…" * before + "".join(pieces) + rest + "…" * after)


def _spans(places, limit):
    """(start, end) of each found word before the limit, in order, longer ones first."""
    spans = [(at, at + len(word)) for word, found in places.items() for at in found]
    return sorted((s for s in spans if s[1] <= limit), key=lambda span: (span[0], -span[1]))
