"""What a pull looks like while it runs: a bar per layer on a terminal, a line per layer elsewhere.

Drawing is pure; `Screen` knows the three control sequences that put it there (ECMA-48: cursor up, erase line, erase below).
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import IO, Final

from criollo.errors import printable
from criollo.kpod.text import short, size
from criollo.model.transfer import LayerState

WIDEST: Final = 100
_NARROWEST_BAR: Final = 8
_STAGES: Final = {"here": "done", "there": "done"}
_DONE: Final = tuple(_STAGES)


def draw(layers: Sequence[LayerState], *, columns: int, rows: int) -> list[str]:
    """A line per layer, at most `rows`; finished layers give way first. No line is wider than `columns`."""
    shown = list(layers)
    hidden = len(shown) - rows
    if hidden > 0:
        hidden += 1  # the line that tells of them
        finished = [layer for layer in shown if layer.stage in _DONE]
        dropped = {id(layer) for layer in (finished + [each for each in reversed(shown) if each.stage not in _DONE])[:hidden]}
        shown = [layer for layer in shown if id(layer) not in dropped]
    lines = [_line(layer, min(columns, WIDEST)) for layer in shown]
    if hidden > 0:
        lines.append(f"and {hidden} more"[:columns])
    return lines


def _line(layer: LayerState, columns: int) -> str:
    amount = f"{size(layer.done)} of {size(layer.size)}"
    stage = _STAGES.get(layer.stage, printable(layer.stage)[:10]) + (f", retry {layer.retries}" if layer.retries else "")
    head, tail = printable(short(layer.digest)), f"{amount:<22} {stage}"
    room = columns - len(head) - len(tail) - 6
    if room < _NARROWEST_BAR:
        return f"{head} {tail}"[:columns]
    part = 1.0 if layer.stage in _DONE else min(1.0, max(0.0, layer.done / layer.size)) if layer.size > 0 else 0.0
    full = int(part * room)
    return f"{head}  [{'#' * full}{'.' * (room - full)}]  {tail}".rstrip()


class Screen:
    """Lines at the bottom of a terminal that are drawn again and again."""

    def __init__(self, stream: IO[str], measure: Callable[[], tuple[int, int]] | None = None) -> None:
        self._stream = stream
        self._measure = measure or _terminal_size
        self._height = 0

    def show(self, layers: Sequence[LayerState]) -> None:
        """Draw the layers in place of what was drawn last."""
        columns, rows = self._measure()
        self.put(draw(layers, columns=columns - 1, rows=max(1, rows - 2)))

    def show_lines(self, lines: Sequence[str]) -> None:
        """Draw as much of the lines as there is room for."""
        columns, rows = self._measure()
        self.put([line[: columns - 1] for line in lines[: max(1, rows - 1)]])

    def put(self, lines: Sequence[str]) -> None:
        """Draw lines in place of what was drawn last."""
        up = f"\x1b[{self._height}A" if self._height else ""
        self._stream.write(up + "".join(f"\r\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._height = len(lines)


class Lines:
    """A line when a layer has come, for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._told: set[str] = set()

    def show(self, layers: Sequence[LayerState]) -> None:
        for layer in layers:
            if layer.stage in _DONE and layer.digest not in self._told:
                self._told.add(layer.digest)
                self._stream.write(f"layer {printable(short(layer.digest))} {size(layer.size)}\n")
        self._stream.flush()


def progress_on(stream: IO[str]) -> Screen | Lines:
    """What fits the stream."""
    return Screen(stream) if stream.isatty() else Lines(stream)


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def _terminal_size() -> tuple[int, int]:
    found = shutil.get_terminal_size()
    return found.columns, found.lines
