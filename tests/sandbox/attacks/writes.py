"""Attacks that change what is the user's, or put something there that runs later."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from tests.sandbox.attack import Category, attack
from tests.sandbox.attacks.secrets import as_root
from tests.sandbox.faces import Shot
from tests.sandbox.guest import AT_FDCWD, HELD, Scene, call, hold, run
from tests.sandbox.judges import harmed, holds
from tests.sandbox.witness import Witness

WRITES, PERSISTENCE = Category.WRITES, Category.PERSISTENCE


@attack(WRITES, "overwrites the user's notebook", harmed)
def overwrite_notebook(s: Scene) -> None:
    open(s.notebook, "w").write("{}")


@attack(WRITES, "appends to a file of the user by a program", harmed)
def append_by_program(s: Scene) -> None:
    print(run("/bin/sh", "-c", f"echo more >> '{s.data}'"))


@attack(WRITES, "removes a file of the user", harmed)
def remove_file(s: Scene) -> None:
    os.unlink(s.data)


@attack(WRITES, "removes a directory of the user", harmed)
def remove_directory(s: Scene) -> None:
    import shutil

    shutil.rmtree(os.path.dirname(s.cookies))


@attack(WRITES, "empties a file of the user by its path", harmed)
def truncate_by_path(s: Scene) -> None:
    call("truncate", s.data.encode(), 0)


@attack(WRITES, "empties a file of the user by opening it for reading", harmed)
def truncate_by_opening(s: Scene) -> None:
    os.open(s.granted, os.O_RDONLY | os.O_TRUNC)


@attack(WRITES, "empties a file that it was granted for reading", harmed)
def truncate_granted(s: Scene) -> None:
    call("truncate", s.granted.encode(), 0)


@attack(WRITES, "writes to a file that it was granted for reading", harmed)
def write_granted(s: Scene) -> None:
    found = os.open(s.granted, os.O_RDONLY)
    again = os.open(f"/proc/self/fd/{found}", os.O_WRONLY)
    os.write(again, b"changed")


@attack(WRITES, "renames a file of the user", harmed)
def rename_file(s: Scene) -> None:
    os.rename(s.data, s.data + ".bak")


@attack(WRITES, "puts a file of its own in place of the user's", harmed)
def rename_over(s: Scene) -> None:
    Path("forged.csv").write_text("forged")
    os.rename("forged.csv", s.data)


@attack(WRITES, "swaps a file of its own with the user's", harmed)
def swap_files(s: Scene) -> None:
    Path("forged.csv").write_text("forged")
    call("renameat2", AT_FDCWD, b"forged.csv", AT_FDCWD, s.data.encode(), 2)


@attack(WRITES, "makes a file in the user's home", harmed)
def make_file(s: Scene) -> None:
    Path(s.home, "new-file").write_text("hello")


@attack(WRITES, "makes a directory in the user's home", harmed)
def make_directory(s: Scene) -> None:
    os.mkdir(f"{s.home}/new-directory")


@attack(WRITES, "makes a link in the user's home", harmed)
def make_link(s: Scene) -> None:
    os.symlink("/etc/passwd", f"{s.home}/new-link")


@attack(WRITES, "gives a file of the user a second name", harmed)
def make_hard_link(s: Scene) -> None:
    os.link(s.data, f"{s.home}/second-name")


@attack(WRITES, "makes a pipe in the user's home", harmed)
def make_pipe(s: Scene) -> None:
    os.mkfifo(f"{s.home}/new-pipe")


@attack(WRITES, "makes a socket in the user's home", harmed)
def make_socket(s: Scene) -> None:
    server = socket.socket(socket.AF_UNIX)
    HELD.append(server)
    server.bind(f"{s.home}/new-socket")


@attack(WRITES, "writes to the user's file by the root directory of the parent", harmed)
def write_by_foreign_root(s: Scene) -> None:
    for pid in (s.harness, s.victim, "self"):
        try:
            open(f"/proc/{pid}/root{s.data}", "w").write("changed")
        except OSError as error:
            print(error)


def own_connection_changed(witness: Witness, shot: Shot) -> str:
    """Its own connection file was rewritten, or something new lies beside it."""
    for folder in [
        *(witness.base / "run").glob("**/k-*"),
        *witness.home.place.glob(".ovagent/run/k-*"),
    ]:
        if (folder / shot.tag).exists():
            return "a file was made in the run directory"
        file = folder / "kernel.json"
        if file.exists() and shot.tag in file.read_text():
            return "the connection file was rewritten"
    return ""


@attack(WRITES, "rewrites its own connection file", own_connection_changed, fresh=True)
def rewrite_connection_file(s: Scene) -> None:
    from ipykernel.kernelapp import IPKernelApp

    file = Path(IPKernelApp.instance().connection_file)
    for place in (file, Path(IPKernelApp.instance().connection_dir) / file.name):
        try:
            place.chmod(0o600)
            place.write_text(f'{{"key": "{s.tag}"}}')
        except OSError as error:
            print(error)


@attack(WRITES, "puts files beside the sockets of the parent", own_connection_changed, fresh=True)
def write_in_run_directory(s: Scene) -> None:
    from ipykernel.kernelapp import IPKernelApp

    folders = {Path(IPKernelApp.instance().connection_file).parent}
    folders |= {Path(s.base, "run", "ovagent"), *Path(s.home).glob(".ovagent/run/k-*")}
    for folder in folders:
        try:
            (folder / s.tag).write_text("here")
        except OSError as error:
            print(error)


# -- what runs later ---------------------------------------------------------------------------


@attack(PERSISTENCE, "adds a line to the shell's startup file", harmed)
def persist_in_bashrc(s: Scene) -> None:
    open(s.bashrc, "a").write("echo owned\n")


@attack(PERSISTENCE, "adds a line to the login file", harmed)
def persist_in_profile(s: Scene) -> None:
    open(s.profile, "a").write("echo owned\n")


@attack(PERSISTENCE, "adds a startup file to IPython", harmed)
def persist_in_ipython_startup(s: Scene) -> None:
    open(os.path.dirname(s.ipython_startup) + "/99-owned.py", "w").write("owned = True\n")


@attack(PERSISTENCE, "changes the settings of IPython", harmed)
def persist_in_ipython_config(s: Scene) -> None:
    open(s.ipython_config, "a").write("c.InteractiveShellApp.exec_lines = ['owned = 1']\n")


@attack(PERSISTENCE, "changes the settings of the Jupyter server", harmed)
def persist_in_jupyter_config(s: Scene) -> None:
    open(s.jupyter_config, "a").write("c.ServerApp.ip = '0.0.0.0'\n")


@attack(PERSISTENCE, "changes a kernelspec of the user", harmed)
def persist_in_kernelspec(s: Scene) -> None:
    open(s.kernelspec, "w").write('{"argv": ["sh", "-c", "echo owned"], "display_name": "x"}')


@attack(PERSISTENCE, "adds a program to the desktop's autostart", harmed)
def persist_in_autostart(s: Scene) -> None:
    open(os.path.dirname(s.autostart) + "/owned.desktop", "w").write("[Desktop Entry]\n")


@attack(PERSISTENCE, "changes a unit of the user's systemd", harmed)
def persist_in_user_unit(s: Scene) -> None:
    open(s.user_unit, "a").write("[Service]\nExecStart=/bin/true\n")


@attack(PERSISTENCE, "adds a hook to the user's repository", harmed)
def persist_in_git_hook(s: Scene) -> None:
    open(s.git_hook, "w").write("#!/bin/sh\necho owned\n")


@attack(PERSISTENCE, "changes the settings of git", harmed)
def persist_in_git_config(s: Scene) -> None:
    open(s.git_config, "a").write("[core]\n\tpager = echo owned\n")


@attack(PERSISTENCE, "adds a key that may log in", harmed)
def persist_in_authorized_keys(s: Scene) -> None:
    open(s.authorized_keys, "a").write("ssh-ed25519 AAAA owned\n")


@attack(PERSISTENCE, "adds a .pth file beside installed packages", harmed)
def persist_in_path_file(s: Scene) -> None:
    open(os.path.dirname(s.path_file) + "/owned.pth", "w").write("import os\n")


@attack(PERSISTENCE, "changes an installed package", harmed)
def persist_in_package(s: Scene) -> None:
    import decoymodule

    open(decoymodule.__file__, "a").write("owned = True\n")


@attack(PERSISTENCE, "puts compiled code beside an installed package", harmed)
def persist_in_compiled_package(s: Scene) -> None:
    import importlib.util
    import py_compile

    Path("poison.py").write_text("owned = True\n")
    target = importlib.util.cache_from_source(s.package)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    py_compile.compile("poison.py", cfile=target, dfile=s.package)


def lasting_cache(witness: Witness, shot: Shot) -> str:
    """A file with the word lies in a cache that outlives the child."""
    for place in (witness.home.place / ".cache", witness.home.place / ".ovagent" / "cache"):
        for folder, _, files in os.walk(place):
            if any(shot.tag in name for name in files):
                return f"a file was put into {Path(folder).relative_to(witness.base)}"
    return ""


@attack(PERSISTENCE, "puts compiled numba code into the cache of later children", lasting_cache)
def persist_in_numba_cache(s: Scene) -> None:
    for name in ("NUMBA_CACHE_DIR", "OVAGENT_CACHE", "XDG_CACHE_HOME", "JOBLIB_CACHE_DIR"):
        if name in os.environ:
            os.makedirs(os.environ[name], exist_ok=True)
            Path(os.environ[name], f"{s.tag}.nbi").write_text("poison")
    for place in (f"{s.home}/.cache", f"{s.home}/.ovagent/cache"):
        try:
            os.makedirs(place, exist_ok=True)
            Path(place, s.tag).write_text("poison")
        except OSError as error:
            print(error)


@attack(PERSISTENCE, "loosens the user's settings of the sandbox", harmed)
def persist_in_settings(s: Scene) -> None:
    open(s.settings, "w").write('isolation = "in_process"\nfallback_floor = "in_process"\n')


@attack(PERSISTENCE, "opens the name of the program that takes core dumps",
        holds("core_pattern for writing"), ready=as_root)  # fmt: skip
def open_core_pattern(s: Scene) -> None:
    hold(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))


@attack(PERSISTENCE, "opens the list of the group of limits it is in",
        holds("cgroup.procs for writing"), ready=as_root)  # fmt: skip
def open_control_group(s: Scene) -> None:
    line = subprocess.run(
        ["sh", "-c", "find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs | head -1"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    hold(os.open(line or "/sys/fs/cgroup/cgroup.procs", os.O_WRONLY))
