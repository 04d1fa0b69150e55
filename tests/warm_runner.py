"""Runs scripts in forks of one process that has the heavy libraries imported already.

Each run is a process of its own, of the real script, that can be sent real signals; only the five seconds that the
imports of torch and Lightning take are paid once. Nothing is computed before the fork. Requests are lines of JSON on
the standard input, see `example_fixtures.Scripts`; one on the command line is run at once, by the process itself.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

HEAVY = [
    "lightning.pytorch", "lightning.pytorch.loggers", "tensorboard", "torch.utils.tensorboard", "pandas", "ot",
    "sklearn.datasets", "scipy.optimize", "scipy.spatial", "matplotlib.figure", "matplotlib.backends.backend_agg",
    "PIL.GifImagePlugin", "PIL.PngImagePlugin", "rich.progress", "pointdiffusion.training.fitting",
    "pointdiffusion.metrics.distances", "pointdiffusion.visuals.animation", "pointdiffusion.data.datasets",
]  # fmt: skip


def serve() -> dict[str, Any] | None:
    """Answer requests; return the one to run in the process that is to run it, and None at the end of the input."""
    while line := sys.stdin.readline():
        request = json.loads(line)
        if request["do"] == "run":
            reply: int | None = os.fork()
            if not reply:
                return dict(request)
        else:
            done, status = os.waitpid(request["pid"], os.WNOHANG)
            reply = os.waitstatus_to_exitcode(status) if done else None
        print(json.dumps(reply), flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """Make this process what `python script arguments` in a shell would be, and run the script."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    names = [(request["input"], os.O_RDONLY), *((request[name], os.O_WRONLY | os.O_CREAT) for name in ("out", "err"))]
    for target, (name, flags) in enumerate(names):
        handle = os.open(name, flags, 0o600)
        os.dup2(handle, target)
        os.close(handle)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    script, module = request["script"], request["module"]
    sys.argv = [script, *request["arguments"]]
    sys.path[0] = request["cwd"] if module else str(Path(script).parent)
    code = 0
    try:
        exec(request["prelude"], {})  # noqa: S102
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # taking all modules down one by one takes longer than the run


if __name__ == "__main__":
    if len(sys.argv) > 1:  # one run and no fork
        task: dict[str, Any] | None = json.loads(sys.argv[1])
    else:
        for module in HEAVY:
            importlib.import_module(module)
        gc.freeze()
        task = serve()
    if task is not None:
        become(task)
