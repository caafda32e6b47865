"""Tables that read well on a terminal and are Markdown as well."""

import math


def table(header, rows):
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    cells = [[_text(cell) for cell in row] for row in [header, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for first, *others in [cells[0], rule, *cells[1:]]:
        padded = [first.ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("| " + " | ".join(padded) + " |")
    return "\n".join(lines)


def percent(share):
    return "–" if math.isnan(share) else f"{share:.0%}"


def _text(cell):
    if isinstance(cell, float):
        return "–" if not math.isfinite(cell) else f"{cell:.2f}"
    return str(cell)
