"""Background work: what a widget, a screen or the app starts and does not wait for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from textual.dom import DOMNode
from textual.worker import Worker


def run_beside(
    node: DOMNode, work: Callable[[], Coroutine[Any, Any, None]], group: str, *, name: str = "", exclusive: bool = False
) -> None:
    """Start a coroutine function in the event loop; it reports its errors itself.

    Args:
        node: what it belongs to: it is cancelled when that is removed.
        exclusive: whether it cancels the others of its group.
    """
    _: Worker[None] = node.run_worker(work, name=name, group=group, exclusive=exclusive, exit_on_error=False)
