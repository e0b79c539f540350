"""Reads a page as a browser would, and says what is wrong with it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """The tags, texts and addresses of a page. Raises AssertionError where tags do not close in their order."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.ids, self.fetched, self.links, self.text, self._open = [], [], [], [], "", []
        self.images, self.unnamed = [], []
        self.feed(html)
        assert self._open == [], self._open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "a":
            self.links.append(attributes["href"])
        self.fetched += [attributes[name] for name in ("src", "srcset", "data", "poster") if name in attributes]
        self.fetched += [attributes[name] for name in ("href", "xlink:href") if name in attributes and tag != "a"]
        self.images += [attributes["src"]] if tag == "img" else []
        self.unnamed += (
            [tag] if tag in ("img", "svg") and not (attributes.get("alt") or attributes.get("aria-label")) else []
        )
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open, tag
        assert self._open.pop() == tag
        self.text += " "

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.text += data


def check(html: str) -> Page:
    """The page, once it is seen to need no network, to run nothing, and to name its images and places."""
    page = Page(html)
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    assert all(address.startswith(("data:image/", "#")) for address in page.fetched), page.fetched
    inside = [link for link in page.links if link.startswith("#")]
    assert all(link.startswith("https://pmc.ncbi.nlm.nih.gov/articles/") for link in set(page.links) - set(inside))
    assert len(page.ids) == len(set(page.ids)), "an id stands twice"
    assert {link[1:] for link in inside} <= set(page.ids)
    assert page.unnamed == []
    assert "url(http" not in html
    assert "@import" not in html
    return page
