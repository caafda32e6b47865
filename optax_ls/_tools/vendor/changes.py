"""The differences between two changelogs."""

import re


def new_entries(old: str, new: str) -> list[str]:
    """The entries of a changelog that an older one does not have, each below its headings.

    An entry is a list item or a paragraph, with its continuation lines.
    """
    known, lines = set(_blocks(old)), []
    headings: dict[int, str] = {}
    for block in _blocks(new):
        level = len(block) - len(block.lstrip("#"))
        if level:
            headings = {x: title for x, title in headings.items() if x < level} | {level: block}
        elif block not in known:
            lines += [title for x, title in sorted(headings.items()) if x > 1]
            headings = {x: title for x, title in headings.items() if x == 1}
            lines.append(block)
    return lines


def _blocks(text: str) -> list[str]:
    blocks = re.split(r"\n(?=[-#]|\n)\n*", text)
    return [block.rstrip() for block in blocks if block.strip()]
