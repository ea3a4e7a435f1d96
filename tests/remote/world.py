# SPDX-License-Identifier: Apache-2.0
"""Stores, images and the command, for the tests of remote stores."""
import hashlib
import json
import os
import pathlib
import random
import subprocess
import tempfile
import unittest

import s3_server

BIN = os.environ["FAULTLINE_BIN"]
PAGE = 4096


def pages(seed, count):
    """Pages that are all different, and half of which can be compressed."""
    noise = random.Random(seed)
    return [noise.randbytes(PAGE // 2) + bytes(PAGE // 2) for _ in range(count)]


class World(unittest.TestCase):
    """Each test has a directory and an empty bucket of its own."""
    context = None

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="faultline-remote."))
        self.addCleanup(subprocess.run, ["rm", "-rf", self.dir], check=True)
        self.server = s3_server.Server(self.context)
        self.addCleanup(self.server.end)
        self.state = self.server.state
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(self.dir), "FAULTLINE_CONFIG": "none", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": s3_server.ACCESS, "AWS_SECRET_ACCESS_KEY": s3_server.SECRET,
            "AWS_ENDPOINT_URL_S3": self.server.url,
        } | {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}
        self.url = "s3://bucket/some/prefix"

    def args(self, verb, *args, store=None, retry="60s"):
        place = {"push": "--to", "pull": "--from"}.get(verb, "--remote")
        more = [f"--store={self.dir / store}"] if store else []
        return [BIN, verb, *more, f"{place}={self.url}", f"--retry-for={retry}", "--timeout=20s", *args]

    def start(self, verb, *args, **how):
        return subprocess.Popen(self.args(verb, *args, **how), env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)

    def run_verb(self, verb, *args, fails=None, **how):
        """Its output as JSON; with fails, what it says on stderr, which must have that."""
        done = subprocess.run(self.args(verb, "--json", *args, **how), env=self.env, capture_output=True, text=True,
                              timeout=240, check=False)
        if fails is not None:
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            self.assertIn(fails, done.stderr)
            return done.stderr
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return json.loads(done.stdout)

    def local(self, *args):
        return subprocess.run([BIN, *map(str, args)], env=self.env, check=True, capture_output=True, text=True).stdout

    def pack(self, store, name, content, *more):
        memory = self.dir / f"memory-{name}"
        memory.write_bytes(b"".join(content))
        self.local("pack", f"--store={self.dir / store}", f"--name={name}", *more, memory)
        return memory

    def expect_image(self, store, name, content):
        out = self.dir / "out"
        self.local("verify", f"--store={self.dir / store}")
        self.local("unpack", f"--store={self.dir / store}", "--force", name, out)
        self.assertEqual(out.read_bytes(), b"".join(content))

    def expect_files(self, store, name):
        """What the image of the store consists of is what the bucket has, byte for byte: this needs no process."""
        manifest = self.manifests()[name]
        files = [(manifest["map"], f"images/{name}.img"), *((pack, f"packs/{pack['id']}.pack") for pack in manifest["packs"])]
        for file, path in files:
            data = (self.dir / store / path).read_bytes()
            self.assertEqual((hashlib.sha256(data).hexdigest(), len(data)), (file["sha256"], file["bytes"]), path)

    def has_image(self, store, name):
        return (self.dir / store / "images" / f"{name}.img").exists()

    # --- the bucket, looked at from the other side ---

    def manifests(self):
        """{name: the manifest that counts}"""
        found = {}
        for key, (data, _) in sorted(self.state.objects.items()):
            if key.startswith("some/prefix/images/"):
                found[key.split("/")[3]] = json.loads(data)
        return {name: manifest for name, manifest in found.items() if "removed" not in manifest}

    def data_keys(self):
        return {key for key in self.state.objects if key.startswith("some/prefix/data/")}

    def expect_whole(self):
        """Whatever happened: what is published is whole."""
        for manifest in self.manifests().values():
            for file in [manifest["map"], *manifest["packs"], *([manifest["trace"]] if "trace" in manifest else [])]:
                data = self.state.objects["some/prefix/" + file["key"]][0]
                self.assertEqual((hashlib.sha256(data).hexdigest(), len(data)), (file["sha256"], file["bytes"]))

    def break_at(self, kind, match="", times=1, at=1, call=None):
        self.state.faults.append(s3_server.Fault(kind, match, times, at, call))
