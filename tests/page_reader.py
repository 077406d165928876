"""What tests read of a page: its elements and its text, with every element closed by its own end tag."""

from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "input"}


class Reader(HTMLParser):
    """Collects elements and text; a wrong end tag fails at once."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read_page(page):
    """The reader of a whole page, given as text."""
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader
