"""Checks the built site: each link and anchor leads somewhere, nothing loads from a network.

Addresses of other sites are only listed by ``--external``, because the check works offline.
"""

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements whose address the browser loads by itself.
LOADED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}


class Page(HTMLParser):
    """The links of a page, as pairs of element and address, and its anchors."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, text in attributes:
            if name in ("id", "name") and text:
                self.anchors.add(text)
            elif name in ("href", "src") and text:
                self.links.append((tag, text))


def faults_of(path, page, pages):
    for tag, link in page.links:
        parts = urlsplit(link)
        if parts.scheme == "data":
            continue
        if parts.scheme or parts.netloc:
            if LOADED.get(tag) and parts.scheme in ("http", "https", ""):
                yield f"{path}: <{tag}> loads {link}"
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            yield f"{path}: {link} does not exist"
        elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"{path}: {link} has no such anchor"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="folder of the built site")
    parser.add_argument("--external", action="store_true", help="list the addresses of other sites")
    options = parser.parse_args()
    pages = {path: Page(path) for path in sorted(options.site.resolve().rglob("*.html"))}
    if options.external:
        links = {link for page in pages.values() for _, link in page.links}
        print("\n".join(sorted(link for link in links if urlsplit(link).netloc)))
        return
    faults = [fault for path, page in pages.items() for fault in faults_of(path, page, pages)]
    if faults or not pages:
        sys.exit("\n".join(faults) or f"{options.site} has no pages")
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links checked.")


if __name__ == "__main__":
    main()
