"""Windows lacks parts of the standard library. Simulated: they are taken away once other packages are there."""

import subprocess
import sys
from pathlib import Path

from tests.tiny import bert_folder

CODE = """
import importlib, os, pkgutil, signal, sys
import accelerate, psutil, pyarrow, scipy.stats, tokenizers, torch, typer

for module, names in (
    (os, "register_at_fork fork sched_getaffinity sysconf getuid geteuid uname statvfs mkfifo"),
    (signal, "SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE setitimer pthread_sigmask"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios"):
    sys.modules[name] = None

import prefrank

for module in pkgutil.walk_packages(prefrank.__path__, "prefrank."):
    if not module.name.startswith("prefrank.native._") and not module.name.endswith("__main__"):
        importlib.import_module(module.name)

from pathlib import Path
from prefrank import RewardModel
from prefrank.model.hardware import hardware

model = RewardModel.load(sys.argv[1])
print(len(model.score("p", ["mix flour", "no"])), sorted(hardware())[0])
"""


def test_every_module_imports_and_a_model_scores_without_what_windows_lacks(tmp_path: Path) -> None:
    folder = str(bert_folder(tmp_path))
    result = subprocess.run([sys.executable, "-c", CODE, folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-1000:]
    assert result.stdout.split() == ["2", "cores"]
