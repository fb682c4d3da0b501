"""The measuring half of compare.sh: makes the trees, runs the tools in turn, checks what comes back, prints the table.

Processor seconds are user and system time of all processes of a tool: the command's own with its children, and for
Seedbank those of the providers and of the steward meanwhile. Memory is what a process held of its own at most (RssAnon
and RssShmem, looked at every 20 ms), and the kernel's VmHWM beside it; of Seedbank's processes the largest, and all
together in brackets.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

WORK = pathlib.Path(os.environ["WORK"])
SEEDBANK = os.environ["SEEDBANK"]
ROUNDS = int(os.environ["ROUNDS"])
LARGE = int(os.environ["LARGE_MIB"]) << 20
SMALL_FILES = int(os.environ["SMALL_FILES"])
TOOLS = os.environ["TOOLS"].split()
TREES = os.environ["TREES"].split()
RACY_SECONDS = 4
TICKS = os.sysconf("SC_CLK_TCK")
MANY_FILES = "small"
STEPS = ["push", "push after a change", "pull"]


def say(text):
    print(text, file=sys.stderr, flush=True)


def write_file(path, size, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out:
        while size > 0:
            piece = rng.randbytes(min(size, 4 << 20))
            out.write(piece)
            size -= len(piece)


def make(tree, folder):
    """Bytes that do not compress, but for the text of the mixed tree."""
    rng = random.Random(f"seedbank {tree}")
    if tree == "large":
        write_file(folder / "data.bin", LARGE, rng)
    elif tree == MANY_FILES:
        for number in range(SMALL_FILES):
            write_file(folder / f"part-{number // 100:04}" / f"{number:06}.bin", 2400, rng)
    elif tree == "mixed":
        for number in range(max(1, SMALL_FILES // 10)):
            words = " ".join(rng.choice(["seed", "bank", "data", "soil", "leaf", "root"]) for _ in range(800))
            path = folder / "text" / f"{number // 100:04}" / f"{number:06}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(words)
        for number in range(64):
            write_file(folder / "images" / f"{number:03}.bin", max(1, LARGE // 512), rng)
        for number in range(4):
            write_file(folder / "shards" / f"{number}.bin", max(1, LARGE // 16), rng)
    else:
        sys.exit(f"compare.py: no tree is called {tree}")


def change(tree, folder, round_number):
    """Other bytes at 16 places of the largest file, one file more, one file less."""
    rng = random.Random(f"change {tree} {round_number}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    largest = max(files, key=lambda path: (path.stat().st_size, path))
    with open(largest, "r+b") as out:
        for _ in range(16):
            size = largest.stat().st_size
            piece = min(size, 4096)
            out.seek(rng.randrange(size - piece + 1))
            out.write(rng.randbytes(piece))
    write_file(folder / "new.bin", 100_000, rng)
    if len(files) > 1:
        next(path for path in files if path != largest).unlink()


def warm(folder):
    """Every byte into the page cache, so that nobody pays for the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                while file.read(1 << 20):
                    pass


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_of(pid):
    own = high = 0
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("RssAnon", "RssShmem"):
            own += int(value.split()[0]) * 1024
        elif key == "VmHWM":
            high = int(value.split()[0]) * 1024
    return own, high


class Watch(threading.Thread):
    """Looks at memory until it is stopped. A process that is gone holds nothing."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.stopped = pids, threading.Event()
        self.own = self.high = self.together = 0

    def run(self):
        while not self.stopped.wait(0.02):
            together = 0
            for pid in self.pids:
                try:
                    own, high = memory_of(pid)
                except (OSError, ProcessLookupError):
                    continue
                together += own
                self.own, self.high = max(self.own, own), max(self.high, high)
            self.together = max(self.together, together)


def run(command, daemons=(), env=None):
    """Runs a command to its good end and gives what it and the daemons used meanwhile."""
    for pid in daemons:
        # Peaks count from here.
        try:
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            pass
    before = sum(cpu_of(pid) for pid in daemons)
    log = open(WORK / "last.log", "wb")
    begun = time.monotonic()
    child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    watch = Watch([child.pid, *daemons])
    watch.start()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - begun
    child.returncode = os.waitstatus_to_exitcode(status)
    watch.stopped.set()
    watch.join()
    log.close()
    if child.returncode != 0:
        said = (WORK / "last.log").read_text(errors="replace")[-2000:]
        sys.exit(f"compare.py: {' '.join(map(str, command))} ended with {child.returncode}:\n{said}")
    cpu = usage.ru_utime + usage.ru_stime + sum(cpu_of(pid) for pid in daemons) - before
    # A command that ended between two looks.
    high = max(watch.high, usage.ru_maxrss * 1024)
    return {"seconds": seconds, "cpu": cpu, "own": watch.own, "high": high, "together": watch.together}


def check(pushed, pulled):
    result = subprocess.run(["diff", "--recursive", "--no-dereference", pushed, pulled], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"compare.py: what came back differs from what was pushed:\n{result.stdout[:2000]}{result.stderr[:2000]}")


class Seedbank:
    def __init__(self, folder):
        self.home, self.daemons = folder / "seedbank-home", []

    def words(self, *words):
        return [SEEDBANK, "--home", self.home, "--quiet", *words]

    def start(self):
        subprocess.run(self.words("up", "--detach"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        status = json.loads(subprocess.run(self.words("status", "--json"), check=True, capture_output=True).stdout)
        self.daemons = [process["pid"] for process in status["network"]]

    def push(self, source):
        return run(self.words("dataset", "push", "tree", source, "--scheme", "4/8"), self.daemons)

    def pull(self, source, dest):
        measured = run(self.words("dataset", "pull", "tree", dest), self.daemons)
        check(source, dest)
        return measured

    def stop(self):
        subprocess.run(self.words("down"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Restic:
    def __init__(self, folder):
        self.repository, self.cache = folder / "restic", folder / "restic-cache"
        self.env = {"RESTIC_PASSWORD": "compare", "RESTIC_REPOSITORY": str(self.repository)}

    def words(self, *words):
        return ["restic", "--quiet", "--cache-dir", self.cache, *words]

    def start(self):
        run(self.words("init"), env=self.env)

    def push(self, source):
        return run(self.words("backup", source), env=self.env)

    def pull(self, source, dest):
        measured = run(self.words("restore", "latest", "--target", dest), env=self.env)
        check(source, pathlib.Path(f"{dest}{source}"))
        return measured

    def stop(self):
        pass


class Rclone:
    def __init__(self, folder):
        self.store, self.config = folder / "rclone", folder / "rclone.conf"

    def words(self, *words):
        return ["rclone", "--quiet", "--config", self.config, *words]

    def start(self):
        self.store.mkdir()
        secret = subprocess.run(["rclone", "obscure", "compare"], check=True, capture_output=True, text=True).stdout.strip()
        self.config.write_text(f"[vault]\ntype = crypt\nremote = {self.store}\npassword = {secret}\n")

    def push(self, source):
        return run(self.words("sync", source, "vault:tree"))

    def pull(self, source, dest):
        measured = run(self.words("copy", "vault:tree", dest))
        check(source, dest)
        return measured

    def stop(self):
        pass


KINDS = {"seedbank": Seedbank, "restic": Restic, "rclone": Rclone}


def one_round(tree, number, results):
    # Each tool begins in turn, so that none always finds the machine as another leaves it.
    order = TOOLS[number % len(TOOLS):] + TOOLS[: number % len(TOOLS)]
    for tool in order:
        say(f"round {number + 1} of {ROUNDS}: {tree} with {tool}")
        folder = WORK / "round"
        folder.mkdir()
        source = folder / "source"
        subprocess.run(["cp", "--archive", WORK / f"tree-{tree}", source], check=True)
        # Of files written a moment ago nobody can say by their times whether they change again.
        time.sleep(RACY_SECONDS)
        kind = KINDS[tool](folder)
        try:
            kind.start()
            warm(source)
            # What others wrote does not wait for the disk in somebody's time.
            os.sync()
            results[tree, "push", tool].append(kind.push(source))
            change(tree, source, number)
            warm(source)
            os.sync()
            results[tree, "push after a change", tool].append(kind.push(source))
            os.sync()
            results[tree, "pull", tool].append(kind.pull(source, folder / "dest"))
        finally:
            kind.stop()
        if tree == MANY_FILES:
            # For some minutes after many files were removed, ext4 without a journal makes new ones ten times slower.
            folder.rename(WORK / f"done-{number}-{tool}")
        else:
            shutil.rmtree(folder)


def figure(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def mib(size):
    return f"{size / (1 << 20):.0f}"


def table(results, sizes):
    print(f"Medians of {ROUNDS} alternating rounds, spread in brackets. Ratios are Seedbank over the other, of the medians.")
    print("restic and rclone store **one copy on one disk and survive nothing**; Seedbank stores twice the bytes on eight")
    print("providers with fsync, and any four of them bring everything back. Memory in MiB: the largest process' own")
    print("(RssAnon + RssShmem), its VmHWM, all processes together.")
    print()
    print("| tree | step | tool | seconds | CPU s | CPU s/GiB | own / VmHWM / together | wall ratio | CPU ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for tree in TREES:
        for step in STEPS:
            ours = results.get((tree, step, "seedbank"))
            for tool in TOOLS:
                runs = results[tree, step, tool]
                column = lambda key: [measured[key] for measured in runs]
                ratio = lambda key: "-"
                if ours and tool != "seedbank":
                    middle = lambda runs, key: statistics.median(measured[key] for measured in runs)
                    ratio = lambda key: f"{middle(ours, key) / max(middle(runs, key), 0.01):.2f}"
                memory = " / ".join(mib(max(column(key))) for key in ("own", "high", "together"))
                cpu = statistics.median(column("cpu"))
                print(
                    f"| {tree} | {step} | {tool} | {figure(column('seconds'))} | {figure(column('cpu'))}"
                    f" | {cpu / (sizes[tree] / (1 << 30)):.2f} | {memory} | {ratio('seconds')} | {ratio('cpu')} |"
                )
    versions = [subprocess.run(words, capture_output=True, text=True).stdout.splitlines()[0]
                for words in ([SEEDBANK, "--version"], ["restic", "version"], ["rclone", "version"])
                if words[0] == SEEDBANK or words[0] in TOOLS]
    print()
    print(f"{'; '.join(versions)}. Trees: " + ", ".join(f"{tree} {mib(sizes[tree])} MiB" for tree in TREES) + ".")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = {(tree, step, tool): [] for tree in TREES for step in STEPS for tool in TOOLS}
    sizes = {}
    for tree in TREES:
        folder = WORK / f"tree-{tree}"
        folder.mkdir()
        make(tree, folder)
        sizes[tree] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for number in range(ROUNDS):
        for tree in TREES:
            one_round(tree, number, results)
    table(results, sizes)


main()
