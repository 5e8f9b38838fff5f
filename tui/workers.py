"""Work beside the keys: what a widget, a screen or the app starts and does not wait for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from textual.dom import DOMNode
from textual.worker import Worker


def run_beside(
    node: DOMNode, work: Callable[[], Coroutine[Any, Any, None]], group: str, *, name: str = "", exclusive: bool = False
) -> None:
    """Start a coroutine function in the event loop; it tells its errors itself.

    Args:
        node: what it belongs to: it is cancelled when that goes.
        exclusive: whether it ends those of its group.
    """
    _: Worker[None] = node.run_worker(work, name=name, group=group, exclusive=exclusive, exit_on_error=False)
