"""Find dead links and anchors inside a built site, and files named in the repository's Markdown that do not exist.

    python tests/house/links.py docs/_build/html

Links that leave the site are not followed: no network is needed.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


class Page(HTMLParser):
    """The links of a page and the anchors that links may point to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect href, src, id and name."""
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def main() -> int:
    """Check the site named on the command line, and the Markdown files of the top level."""
    site = Path(sys.argv[1]).resolve()
    dead = dead_links_of_site(site) + dead_links_of_markdown(ROOT)
    for complaint in dead:
        print(complaint)
    print(f"{len(dead)} dead links")
    return 1 if dead else 0


def dead_links_of_site(site: Path) -> list[str]:
    """A sentence for each link of the site that leads nowhere."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    pages = {path: Page(text) for path, text in texts.items()}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            name = f"{path.relative_to(site)} -> {link}"
            if not target.exists():
                dead.append(f"{name}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                dead.append(f"{name}: no such place")
    return dead


def dead_links_of_markdown(root: Path) -> list[str]:
    """A sentence for each relative link of the top level's Markdown files that leads nowhere."""
    dead = []
    for page in PAGES:
        text = (root / page).read_text(encoding="utf-8") if (root / page).is_file() else ""
        for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
            address = urlsplit(link[0] or link[1])
            if address.path and not address.scheme and not (root / unquote(address.path)).exists():
                dead.append(f"{page} -> {address.path}: no such file")
    return dead


if __name__ == "__main__":
    sys.exit(main())
