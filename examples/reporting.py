"""How far a long run of an example has come."""

import time


class Progress:
    """A bar on a terminal, elsewhere a line every half minute; on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}")
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task, self.title = self.bar.add_task("", note=""), ""

    def __call__(self, title: str, done: int, total: int, loss: float | None = None) -> None:
        now = time.perf_counter()
        if title != self.title:
            self.title, self.first, self.started, self.told = title, done, now, now
        speed = (done - self.first) / (now - self.started) if now > self.started else 0.0
        parts = [f"{done}/{total}", *([f"loss {loss:.3f}"] if loss is not None else [])]
        parts += [f"{speed:.3g} a second", f"{(total - done) / speed:.0f} s left"] if speed else []
        note = "  ".join(parts)
        self.bar.update(self.task, description=title, completed=done, total=total, note=note)
        if not self.console.is_terminal and (now - self.told >= 30 or done == total):
            self.told = now
            self.console.print(f"{title}  {note}")
