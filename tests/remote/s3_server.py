# SPDX-License-Identifier: Apache-2.0
"""A small S3 server for tests, with exact faults. It checks every signature with a signer of its own, the hash and MD5 of
every body, and the clock of every request, and it has what real servers have at their worst: pages of three keys in no
order, whole objects for ranges, ignored conditions, lost answers, resets, wrong bytes, storms of 503."""
import base64
import hashlib
import hmac
import http.server
import json
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
import xml.sax.saxutils

ACCESS, SECRET = "FLTESTKEY", "a/secret+of=tests"
PAGE_KEYS = 3


class Answer(Exception):
    def __init__(self, status, code, message="no"):
        super().__init__(status, code)
        self.status, self.code, self.message = status, code, message


class Fault:
    """What happens to the requests that match: `at` is the first of them, and `times` how many."""

    def __init__(self, kind, match="", times=1, at=1, call=None):
        self.kind, self.match, self.times, self.at, self.call = kind, re.compile(match), times, at, call

    def takes(self, line):
        if not self.match.search(line):
            return False
        self.at -= 1
        if self.at > 0 or self.times == 0:
            return False
        self.times -= 1
        return True


class State:
    def __init__(self):
        self.lock = threading.RLock()
        self.reset()

    def reset(self):
        with self.lock:
            self.objects = {}  # key: (bytes, time)
            self.uploads = {}
            self.faults = []
            self.log = []
            self.clock = 0  # seconds ahead
            self.ignores_conditions = False
            self.ignores_ranges = False
            self.token = None  # of a session
            self.metadata = None  # keys that the metadata endpoints hand out
            self.down = False
            self.dateless = False

    def now(self):
        return time.time() + self.clock

    def fault(self, line):
        with self.lock:
            self.log.append(line)
            for fault in self.faults:
                if fault.takes(line):
                    return fault
        return None

    def count(self, match):
        with self.lock:
            return sum(1 for line in self.log if re.search(match, line))


def signature(method, path, query, headers, names, date, region, service, body_hash):
    pairs = sorted(f"{name}={value}" for name, _, value in (part.partition("=") for part in query.split("&") if part))
    canonical = "\n".join([method, path, "&".join(pairs)] +
                          [f"{name}:{headers[name].strip()}" for name in names] + ["", ";".join(names), body_hash])
    scope = f"{date[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + SECRET).encode()
    for word in (date[:8], region, service, "aws4_request", to_sign):
        key = hmac.new(key, word.encode(), "sha256").digest()
    return key.hex()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    @property
    def state(self):
        return self.server.state

    def date_time_string(self, timestamp=None):
        return super().date_time_string(self.state.now() if timestamp is None else timestamp)

    # --- one request ---

    def handle_one(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        line = f"{self.command} {urllib.parse.unquote(path)} {query} {self.headers.get('Range', '')}"
        if self.state.down:
            return self.cut()
        fault = self.state.fault(line)
        if fault and fault.kind == "call":
            fault.call("before")
        if fault and fault.kind == "503":
            return self.refuse(Answer(503, "SlowDown"))
        if fault and fault.kind == "500":
            return self.refuse(Answer(500, "InternalError"))
        if fault and fault.kind == "200":  # as CompleteMultipartUpload answers when it has not worked
            return self.send(200, {}, b"<Error><Code>InternalError</Code></Error>")
        if fault and fault.kind == "rude":
            return self.refuse(Answer(403, "Rude", "one\ntwo \u009b31m"))
        if fault and fault.kind == "reset":
            return self.cut()
        if fault and fault.kind == "slow":
            time.sleep(0.3)
        if fault and fault.kind == "silent":
            self.server.released.wait(60)
            return self.cut()
        try:
            status, headers, answer = self.act(path, query, body)
        except Answer as answer:
            if not fault or fault.kind not in ("lost", "call-after"):
                return self.refuse(answer)
        if fault and fault.kind == "lost":
            return self.cut()
        if fault and fault.kind == "call-after":
            fault.call("after")
            return self.cut()
        if fault and fault.kind == "wrong" and answer:
            at = random.randrange(len(answer))
            answer = answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1:]
        if fault and fault.kind == "short-range" and "Content-Range" in headers:
            answer = answer[:-1]
        return self.send(status, headers, answer, cut=fault is not None and fault.kind == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one

    def send(self, status, headers, answer, cut=False):
        self.send_response_only(status)
        if not self.state.dateless:
            self.send_header("Date", self.date_time_string())
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(headers.get("X-Length", len(answer))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer[:len(answer) // 2] if cut else answer)
        if cut:
            self.cut()

    def refuse(self, answer):
        text = f"<?xml version=\"1.0\"?><Error><Code>{answer.code}</Code><Message>{answer.message}</Message></Error>"
        self.send(answer.status, {}, b"" if self.command == "HEAD" else text.encode())

    def cut(self):
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    # --- what S3 does ---

    def check(self, path, query, body):
        headers = {name.lower(): value for name, value in self.headers.items()}
        match = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, "
                             r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})", headers.get("authorization", ""))
        if not match or match[1] != ACCESS:
            raise Answer(403, "InvalidAccessKeyId")
        names = match[4].split(";")
        if any(name not in headers for name in names) or not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names):
            raise Answer(403, "AccessDenied", "headers that must be signed are not")
        if signature(self.command, path, query, headers, names, headers["x-amz-date"], match[3], "s3",
                     headers["x-amz-content-sha256"]) != match[5]:
            raise Answer(403, "SignatureDoesNotMatch")
        if headers.get("x-amz-security-token") != self.state.token:
            raise Answer(403, "InvalidToken")
        when = time.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
        if abs(self.state.now() - __import__("calendar").timegm(when)) > 900:
            raise Answer(403, "RequestTimeTooSkewed")
        if hashlib.sha256(body).hexdigest() != headers["x-amz-content-sha256"]:
            raise Answer(400, "XAmzContentSHA256Mismatch")
        if body and base64.b64encode(hashlib.md5(body).digest()).decode() != headers.get("content-md5"):
            raise Answer(400, "BadDigest")
        if "expect" in headers or "aws-chunked" in headers.get("content-encoding", ""):
            raise Answer(400, "InvalidRequest", "Expect or aws-chunked")

    def act(self, path, query, body):
        if path.startswith("/latest/") or path == "/container":
            return self.act_metadata(path)
        self.check(path, query, body)
        names = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        bucket, _, key = urllib.parse.unquote(path)[1:].partition("/")
        if bucket != "bucket":
            raise Answer(404, "NoSuchBucket")
        with self.state.lock:
            if not key:
                return self.act_list(names)
            if any(other.startswith(key + "/") or key.startswith(other + "/") for other in self.state.objects):
                raise Answer(409, "ObjectParentIsFile")
            if "uploads" in names or "uploadId" in names:
                return self.act_upload(key, names, body)
            return getattr(self, "act_" + self.command.lower())(key, body)

    def act_put(self, key, body):
        objects = self.state.objects
        if self.headers.get("If-None-Match") == "*" and key in objects and not self.state.ignores_conditions:
            raise Answer(412, "PreconditionFailed")
        objects[key] = (body, self.state.now())
        return 200, {"ETag": f"\"{random.getrandbits(64):x}\""}, b""

    def act_get(self, key, _):
        if key not in self.state.objects:
            raise Answer(404, "NoSuchKey")
        data = self.state.objects[key][0]
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not match or self.state.ignores_ranges:
            return 200, {}, data
        first, last = int(match[1]), min(int(match[2]), len(data) - 1)
        if first >= len(data):
            raise Answer(416, "InvalidRange")
        return 206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first:last + 1]

    def act_head(self, key, _):
        if key not in self.state.objects:
            raise Answer(404, "NoSuchKey")
        return 200, {"X-Length": len(self.state.objects[key][0])}, b""

    def act_delete(self, key, _):
        self.state.objects.pop(key, None)
        return 204, {}, b""

    def act_list(self, names):
        keys = sorted(key for key in self.state.objects if key.startswith(names.get("prefix", "")))
        at = int(names.get("continuation-token", "0+/=").split("+")[0])
        page = keys[at:at + PAGE_KEYS]
        more = at + PAGE_KEYS < len(keys)
        random.shuffle(page)
        rows = "".join(
            f"<Contents><Key>{xml.sax.saxutils.escape(key)}</Key><LastModified>"
            + time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(self.state.objects[key][1]))
            + f"</LastModified><Size>{len(self.state.objects[key][0])}</Size></Contents>" for key in page)
        token = f"<NextContinuationToken>{at + PAGE_KEYS}+/=</NextContinuationToken>" if more else ""
        text = (f"<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
                f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>")
        return 200, {}, text.encode()

    def act_upload(self, key, names, body):
        uploads = self.state.uploads
        if "uploads" in names:
            name = f"{random.getrandbits(64):x}+/="
            uploads[name] = (key, {})
            return 200, {}, (f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId>"
                             "</InitiateMultipartUploadResult>").encode()
        if uploads.get(names["uploadId"], (None,))[0] != key:
            raise Answer(404, "NoSuchUpload")
        parts = uploads[names["uploadId"]][1]
        if self.command == "PUT":
            tag = f"\"{random.getrandbits(64):x}\""
            parts[int(names["partNumber"])] = (tag, body)
            return 200, {"ETag": tag}, b""
        del uploads[names["uploadId"]]
        if self.command == "DELETE":
            return 204, {}, b""
        wanted = re.findall(r"<PartNumber>(\d+)</PartNumber><ETag>([^<]+)</ETag>", body.decode())
        if [(int(number), tag) for number, tag in wanted] != [(n, parts[n][0]) for n in sorted(parts)]:
            raise Answer(400, "InvalidPart")
        if any(len(parts[n][1]) < 5 << 20 for n in sorted(parts)[:-1]):
            raise Answer(400, "EntityTooSmall")
        self.state.objects[key] = (b"".join(parts[n][1] for n in sorted(parts)), self.state.now())
        return 200, {}, b"<CompleteMultipartUploadResult><Key>k</Key></CompleteMultipartUploadResult>"

    # Keys of an instance (version 2: with a token) and of a container.
    def act_metadata(self, path):
        if not self.state.metadata:
            raise Answer(404, "NotFound")
        keys = json.dumps(self.state.metadata).encode()
        if path == "/container" and self.headers.get("Authorization") == "of the container":
            return 200, {}, keys
        if path == "/latest/api/token" and self.command == "PUT" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            return 200, {}, b"token-of-tests"
        if self.headers.get("X-aws-ec2-metadata-token") != "token-of-tests":
            raise Answer(401, "Unauthorized")
        if path == "/latest/meta-data/iam/security-credentials/":
            return 200, {}, b"role-of-tests"
        if path == "/latest/meta-data/iam/security-credentials/role-of-tests":
            return 200, {}, keys
        raise Answer(404, "NotFound")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = State()
        self.released = threading.Event()
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def handle_error(self, *_):  # a client that went away
        pass

    def end(self):
        self.released.set()
        self.shutdown()
        self.server_close()
