"""What the processes of a run other than the first do: build their part of every batch, and step when it steps.

Nothing is written, measured or decided here. See hosts.py for how they hear of the first one.
"""

from pathlib import Path
from typing import Any

from mobjrec import mesh, resume
from mobjrec.config import Config
from mobjrec.defaults import settled
from mobjrec.frozen import with_store
from mobjrec.link import Link
from mobjrec.parts import assemble, multiple_of, sizes_of
from mobjrec.stopping import stopping
from mobjrec.train import fed, mapped_step


def run(config: Config, cache: Path, link: Link) -> dict[str, Any]:
    """The result that process 0 returns from train.run.

    One of errors.MISTAKES where this process or another one cannot go on; Stopped after a signal to any of them.
    """
    config = settled(config)
    with link, stopping(at_once=True):
        link.same("another config", resume.told(config))
        mesh.keep_compilations(cache / "compiled")
        devices = mesh.make(config.parallel.devices, config.batch.lists, config.parallel.map)
        # Process 0 has tokenised the texts by then, unless the run was over already.
        said = link.follow()
        if "result" in said:
            return said["result"]
        parts = assemble(config, cache)
        link.same("other data", resume.flat(resume.content(parts)))
        state = mesh.place(link.shared(parts.first_state()), devices)
        link.follow()  # what frozen encoders make of texts is stored
        parts = with_store(parts, mesh.local(state.params))
        multiple = multiple_of(config, devices.size)
        step = mapped_step(parts, devices)
        with stopping() as asked:
            for _, batch, _, _ in fed(parts, sizes_of(parts, multiple), multiple, int(state.step), parts.steps, link):
                said = link.follow(asked)
                if "result" in said:
                    break
                state, _ = step(state, batch)
            while "result" not in said:
                said = link.follow(asked)
        return said["result"]
