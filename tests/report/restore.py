# SPDX-License-Identifier: Apache-2.0
"""A restore by a real server, in which pages come in most of the ways that there are: its record, as `faultline report
--save` has it. loadgen plays the VM."""
import json
import os
import random
import signal
import subprocess
import time

MEMORY, PAGES, DEADLINE = "32M", 8192, 60


def wait_for(what, condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.02)


class Restore:
    def __init__(self, work, faultline, bench):
        self.faultline, self.bench, self.work = faultline, bench, work
        self.control = os.path.join(work, "control.sock")
        self.sockets = os.path.join(work, "sockets")
        self.store = os.path.join(work, "store")
        os.mkdir(self.sockets)

    def run(self, *args):
        done = subprocess.run([self.faultline, *args], capture_output=True, text=True, check=False, timeout=DEADLINE)
        if done.returncode != 0:
            raise RuntimeError(f"faultline {args}: {done.stderr}")
        return done.stdout

    def touch(self, pages):
        order = os.path.join(self.work, "order")
        with open(order, "w", encoding="ascii") as out:
            out.writelines(f"{page}\n" for page in pages)
        subprocess.run([os.path.join(self.bench, "loadgen"), "--socket", os.path.join(self.sockets, "web.sock"),
                        "--memory", MEMORY, "--order", order, "--touch", str(PAGES - 1)],
                       stdout=subprocess.DEVNULL, check=True, timeout=DEADLINE)

    def status(self, *keys):
        value = json.loads(self.run("status", "--json", "--control", self.control))
        for key in keys:
            value = value[key]
        return value

    def record(self):
        chance = random.Random(5)
        planned = list(dict.fromkeys(start + i for start in chance.choices(range(4000), k=120) for i in range(12)))
        recorder = subprocess.Popen([self.faultline, "record", "web", "--window", "1s", "--control", self.control,
                                     "--store", self.store], stdout=subprocess.DEVNULL)
        wait_for("the order to record", lambda: self.status("recordings", "orders") == 1)
        self.touch(planned)
        if recorder.wait(DEADLINE) != 0:
            raise RuntimeError("faultline record failed")
        # The trace, and what it does not have: a sweep, and pages here and there.
        self.touch(planned[:600] + list(range(5000, 5600)) + chance.sample(range(6000, 8000), 200))
        path = os.path.join(self.work, "real.json")
        self.run("report", "--control", self.control, "--save", path, "web")
        with open(path, encoding="utf-8") as source:
            return json.load(source)


def record_of_a_restore(work, faultline, bench):
    restore = Restore(work, faultline, bench)
    memory = os.path.join(work, "memory")
    subprocess.run([os.path.join(bench, "memfile"), MEMORY, memory, "20"], check=True)
    restore.run("pack", "--store", restore.store, "--name", "web", memory)
    with open(os.path.join(work, "log"), "w", encoding="utf-8") as log:
        server = subprocess.Popen([faultline, "serve", "--store", restore.store, "--sockets", restore.sockets, "--control",
                                   restore.control, "--history", "4"], stderr=log)
    try:
        wait_for("the server", lambda: os.path.exists(os.path.join(restore.sockets, "web.sock")) and subprocess.run(
            [faultline, "status", "--control", restore.control], capture_output=True, check=False).returncode == 0)
        return restore.record()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(DEADLINE)
