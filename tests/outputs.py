"""Compares an output shown on a page with the output printed now."""

import math
import re

_NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?")


def _numbers_are_close(shown, printed):
    """Counts within a quarter, and others to three digits, but small ones to their order."""
    if re.fullmatch(r"-?\d+", shown) and re.fullmatch(r"-?\d+", printed):
        return math.isclose(int(shown), int(printed), rel_tol=0.25, abs_tol=1)
    small, large = sorted(abs(float(number)) for number in (shown, printed))
    if large < 1e-3:  # rounding decides
        return large < 1e-6 or large < 10 * small
    return math.isclose(float(shown), float(printed), rel_tol=1e-3)


def lines_agree(shown, printed):
    """Whether two lines have the same words and nearly the same numbers."""
    words = [_NUMBER.sub("N", line).split() for line in (shown, printed)]
    numbers = zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=False)
    return words[0] == words[1] and all(_numbers_are_close(*pair) for pair in numbers)


def differences(shown, printed):
    """The lines of ``shown`` that agree with no line of ``printed``."""
    return [line for line in shown if not any(lines_agree(line, other) for other in printed)]
