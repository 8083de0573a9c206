"""Views of the record for other programs: TensorBoard's event files and, with the extra, Weights & Biases. Never read back."""

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Where wandb would otherwise write into the home folder, below its own folder in the run's.
WANDB_PLACES = ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")


class View(NamedTuple):
    """scalars: (step, {tag: number})   text: (step, tag, markdown)   settings: ({dotted key: value}, metrics' tags)"""

    scalars: Callable[[int, Mapping[str, float]], None]
    text: Callable[[int, str, str], None]
    settings: Callable[[Mapping[str, Any], Sequence[str]], None]
    close: Callable[[], None]


def tensorboard(folder: Path, number: int, step: int) -> View:
    """An event file under `events/` for start `number` of a run, at `step`; readers drop what older files hold after it.

    Two files of one second would have one name, and the second would overwrite the first: hence the suffix. Written
    without tensorboardX's queue and thread: when a full disk kills the thread, the queue blocks the run for good.
    """
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    (folder / "events").mkdir(exist_ok=True)
    # The writer appends "events" to what it is given, with its own time and host.
    events = EventsWriter(str(folder / "events" / "events"), filename_suffix=f".{os.getpid()}.{number}")
    events.write_event(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))
    events.flush()

    def write(step: int, *summaries: Any) -> None:
        for one in summaries:
            events.write_event(Event(wall_time=time.time(), step=step, summary=one))
        events.flush()

    def settings(values: Mapping[str, Any], metrics: Sequence[str]) -> None:
        # `scalar` cleans its tags, and a metric of the table is found by its cleaned one.
        tags = [summary.scalar(tag, 0.0).value[0].tag for tag in metrics]
        told = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in values.items()
        }
        write(0, *summary.hparams(told, dict.fromkeys(tags)))

    return View(
        lambda step, values: write(step, *(summary.scalar(tag, value) for tag, value in values.items())),
        lambda step, tag, text: write(step, summary.text(tag, text)),
        settings,
        events.close,
    )


def wandb(folder: Path, project: str) -> View:
    """A run of `project` under `wandb/`, offline unless WANDB_MODE says otherwise; `wandb sync` sends it.

    Every start of one run folder has one id, so that they are one run there.
    """
    place = folder / "wandb"
    place.mkdir(exist_ok=True)
    for name in WANDB_PLACES:
        os.environ.setdefault(name, str(place))
    import wandb as library

    told = place / "id"
    if not told.is_file():
        told.write_text(secrets.token_hex(4))
    mode = os.environ.get("WANDB_MODE", "offline")
    run = library.init(
        project=project, name=folder.name, id=told.read_text(), dir=str(folder), mode=mode, resume="allow",
        settings=library.Settings(silent=True, console="off"),
    )  # fmt: skip
    # Its own counter takes no step twice; ours goes back at a resume.
    run.define_metric("*", step_metric="step")
    return View(
        lambda step, values: run.log({"step": step, **values}),
        lambda step, tag, text: run.log({"step": step, tag: library.Html(f"<pre>{text}</pre>")}),
        lambda values, metrics: run.config.update(dict(values), allow_val_change=True),
        run.finish,
    )
