#!/usr/bin/env python3
"""Runs the container image of angzarr-relay as a cluster would, and checks what it does. Called by .ci/image.

Restricted as in a cluster: uid 1000, a read-only root file system, no capabilities, no new privileges, 256 MiB. The
emulators run on the host, with whom the container shares the loopback address: an embedded DynamoDB, and a Kinesis that
is reached by TLS and by a name, which the container asks a name server for, as it does for every endpoint of AWS.

Nothing sleeps for a fixed time: what is waited for has a limit, and a check that fails says what it saw last.
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

MEMORY_BYTES = 256 << 20
# relay.shutdown_grace, and what Kubernetes gives beyond it.
GRACE_SECONDS = 20
STOP_SECONDS = 30
START_SECONDS = 60
WAIT_SECONDS = 60
COMMAND_SECONDS = 60
EXIT_USAGE = 64
KINESIS_NAME = "kinesis.relay.test"
# Kept for tests on this machine; the usual address of a resolver may be taken.
NAME_SERVER = "127.0.0.77"
STREAM = "orders"
HANDLER = "orders-stream"
CONFIG_IN_IMAGE = "/etc/angzarr-relay/relay.toml"
ROOTS_IN_IMAGE = "/etc/ssl/certs"
PUBLISHED = "angzarr_relay"


class Failed(Exception):
    """A check that did not hold."""


checks = 0


def check(holds, what, seen=None):
    """Notes a check that holds; fails otherwise, with what was seen."""
    global checks
    if not holds:
        raise Failed(what if seen is None else f"{what}; seen: {seen or 'nothing'}")
    checks += 1
    print(f"ok  {what}", flush=True)


def until(what, look, seconds=WAIT_SECONDS):
    """Looks again and again until there is something to see, and returns it. `look` raises LookupError with what it
    saw when that is not yet what is waited for."""
    end = time.monotonic() + seconds
    while True:
        try:
            return look()
        except (LookupError, OSError) as error:
            if time.monotonic() > end:
                raise Failed(f"{what}: not within {seconds} s; seen last: {error}") from error
        time.sleep(0.1)


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, context=None):
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextlib.contextmanager
def process(command, log, **options):
    """A process of the host that ends with the block."""
    with open(log, "w") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, **options)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


class Names:
    """A name server that knows one name, which it says is 127.0.0.1."""

    def __init__(self, name):
        self.name = name
        self.asked = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((NAME_SERVER, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query, peer = self.socket.recvfrom(1500)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += query[at] + 1
            question = query[12 : at + 5]
            (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
            known = ".".join(labels) == self.name
            self.asked += known
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([127, 0, 0, 1])
            answers = known and kind == 1
            # No answer to a known name's other records is no error; an unknown name is NXDOMAIN.
            header = query[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, answers, 0, 0)
            self.socket.sendto(header + question + answer * answers, peer)


class Kinesis:
    """kinesis-mock by TLS, with a certificate of a CA that is made here and that nobody trusts yet."""

    def __init__(self, work, package, stack):
        self.authority = work / "ca.crt"
        self.port = free_port()
        certificate = self.make_certificates(work)
        plain, log = free_port(), work / "kinesis-mock.log"
        environment = os.environ | {
            "KINESIS_MOCK_PLAIN_PORT": str(plain),
            "KINESIS_MOCK_TLS_PORT": str(self.port),
            "KINESIS_MOCK_CERT_PATH": str(certificate),
            "LOG_LEVEL": "ERROR",
        }
        started = stack.enter_context(process(["node", "main.js"], log, cwd=package, env=environment))
        self.context = ssl.create_default_context(cafile=self.authority)

        def answers():
            if started.poll() is not None:
                raise Failed(f"kinesis-mock has ended: {log.read_text()}")
            if get(f"https://localhost:{self.port}/healthcheck", self.context)[0] != 200:
                raise LookupError("not healthy")

        until("kinesis-mock answers", answers, START_SECONDS)

    @staticmethod
    def make_certificates(work):
        """A CA, and a certificate by it for the service's name; returns the file that kinesis-mock reads."""

        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=work, check=True, capture_output=True)

        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=Test CA")
        openssl("req", "-new", *new_key, "-keyout", "kinesis.key", "-out", "kinesis.csr", "-subj", "/CN=Kinesis")
        (work / "names").write_text(f"subjectAltName=DNS:{KINESIS_NAME},DNS:localhost\nbasicConstraints=CA:FALSE\n")
        signed_by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        openssl("x509", "-req", "-in", "kinesis.csr", "-out", "kinesis.crt", *signed_by)
        (work / "ca.crt").chmod(0o644)
        key, certificate = (work / "kinesis.key").read_text(), (work / "kinesis.crt").read_text()
        (work / "server.json").write_text(json.dumps({"server": {"key": key, "cert": certificate}}))
        return work / "server.json"

    def call(self, operation, **arguments):
        # It wants the headers of a signature and does not check the signature itself.
        scope = "test/20260101/us-east-1/kinesis/aws4_request"
        signed = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"Kinesis_20131202.{operation}",
            "X-Amz-Date": "20260101T000000Z",
            "Authorization": signed,
        }
        body = json.dumps(arguments).encode()
        request = urllib.request.Request(f"https://localhost:{self.port}/", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
            return json.loads(answer.read() or b"{}")

    def create_stream(self):
        self.call("CreateStream", StreamName=STREAM, ShardCount=1)

        def active():
            summary = self.call("DescribeStreamSummary", StreamName=STREAM)["StreamDescriptionSummary"]
            if summary["StreamStatus"] != "ACTIVE":
                raise LookupError(summary["StreamStatus"])

        until("the Kinesis stream is active", active)

    def events(self):
        """All events of the stream: (root, sequence, type, payload)."""
        (shard,) = self.call("ListShards", StreamName=STREAM)["Shards"]
        begin = {"ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = self.call("GetShardIterator", StreamName=STREAM, **begin)["ShardIterator"]
        records = self.call("GetRecords", ShardIterator=iterator)["Records"]
        events = [json.loads(base64.b64decode(record["Data"])) for record in records]
        return [
            (event["subject"], int(event["sequence"]), event["type"], base64.b64decode(event["data_base64"]).decode())
            for event in events
        ]


class Dynamo:
    """The DynamoDB that the command `local` embeds; what else `local` does has tables and ports of its own."""

    def __init__(self, work, binary, stack):
        config, log = work / "local.toml", work / "local.log"
        config.write_text(
            '[storage.dynamo]\nregion = "us-east-1"\ntable_prefix = "host"\n'
            '[telemetry]\nlisten = "127.0.0.1:0"\nadmin_listen = "off"\nlog_level = "warn,dynoxide=off"\n'
            '[[handlers]]\nname = "host"\nkind = "sink"\nsubscribe = [{ domain = "none" }]\n'
            'jsonl = { path = "host.jsonl" }\n'
        )
        command = [binary, "local", "--no-sample", "--config", config, "--data", work / "data"]
        started = stack.enter_context(process(command, log))

        def printed():
            endpoint = re.search(r"DynamoDB +(http://\S+)", log.read_text())
            if started.poll() is not None:
                raise Failed(f"the embedded DynamoDB has ended: {log.read_text()}")
            if endpoint is None:
                raise LookupError(log.read_text())
            return endpoint[1]

        self.endpoint = until("the embedded DynamoDB says where it is", printed, START_SECONDS)


class Image:
    """The image, and how a cluster restricts what runs of it."""

    def __init__(self, arguments, config, resolver):
        self.podman = arguments.podman
        self.image = arguments.image
        self.work = arguments.work
        self.mounts = [(config, CONFIG_IN_IMAGE), (resolver, "/etc/resolv.conf")]

    def restricted(self, mounts=(), environment=()):
        """The options of a run; `mounts` are more files of the host and where they are put."""
        options = [
            *("--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
            *("--memory", str(MEMORY_BYTES), "--network", "host", "--pull", "never"),
            # The endpoints are not called localhost, so nobody dispenses with credentials.
            *("--env", "AWS_ACCESS_KEY_ID=test", "--env", "AWS_SECRET_ACCESS_KEY=test"),
        ]
        for source, target in [*self.mounts, *mounts]:
            options += ["--volume", f"{source}:{target}:ro"]
        for variable in environment:
            options += ["--env", variable]
        return options

    def command(self, *arguments, stdin="", mounts=(), environment=(), config=True):
        """Runs one command to its end: exit code and what it printed."""
        named = ["--config", CONFIG_IN_IMAGE] if config else []
        run = ["run", "--rm", "--interactive", *self.restricted(mounts, environment), self.image, *arguments, *named]
        done = subprocess.run(
            [*self.podman, *run], input=stdin, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def succeeds(self, *arguments, **options):
        code, printed = self.command(*arguments, **options)
        check(code == 0, f"`{' '.join(arguments)}` succeeds", f"{code}: {printed}")
        return printed

    def fails(self, code_expected, pattern, *arguments, what, **options):
        code, printed = self.command(*arguments, **options)
        found = re.search(pattern, printed)
        told = found and found[0]
        check(code == code_expected and found, f"{what}: exit code {code}, {told!r}", f"{code}: {printed}")

    def append(self, root, sequence, kind):
        payload = json.dumps({"root": root, "sequence": sequence})
        given = ["append", "orders", root, "--type", kind, "--expected", str(sequence)]
        self.succeeds(*given, stdin=payload)
        return root, sequence, kind, payload

    def podman_says(self, *arguments):
        return subprocess.run([*self.podman, *arguments], capture_output=True, text=True, check=True).stdout.strip()


class Relay:
    """A running container of the image: the daemon, by the image's own command."""

    def __init__(self, image, name, listen, mounts=()):
        self.image = image
        self.name = name
        self.url = f"http://127.0.0.1:{listen}"
        image.podman_says("run", "--detach", "--name", name, *image.restricted(mounts), image.image)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(f"--- the log of {self.name}:\n{self.log()}---", file=sys.stderr)
        gone = ["rm", "--force", "--time", "1", self.name]
        subprocess.run([*self.image.podman, *gone], capture_output=True, check=False)

    def log(self):
        done = subprocess.run([*self.image.podman, "logs", self.name], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def state(self, key):
        return self.image.podman_says("inspect", "--format", "{{" + key + "}}", self.name)

    def answers(self, path):
        def look():
            if self.state(".State.Running") != "true":
                raise Failed(f"{self.name} has ended with {self.state('.State.ExitCode')}")
            status, body = get(self.url + path)
            if status != 200:
                raise LookupError(f"{status}: {body}")

        until(f"{self.name} answers {path}", look, START_SECONDS)
        check(True, f"{self.name}: {path} answers 200")

    def metric(self, name, **labels):
        """The sum of a metric over all series that have these labels, none when there is none."""
        status, body = get(self.url + "/metrics")
        if status != 200:
            raise LookupError(f"/metrics answers {status}")
        found = []
        for line in body.splitlines():
            series = re.fullmatch(rf"{PUBLISHED}_{name}(?:\{{(.*)\}})? (\S+)", line)
            if series and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', series[1] or "")).items():
                found.append(float(series[2]))
        return sum(found) if found else None

    def until_metric(self, expected, name, **labels):
        def look():
            value = self.metric(name, **labels)
            if value != expected:
                raise LookupError(f"{value}")

        until(f"{name} {labels} is {expected}", look)
        check(True, f"{self.name}: {name} {labels} is {expected}")

    def until_logged(self, pattern):
        def look():
            log = self.log()
            found = re.search(pattern, log)
            if found is None:
                raise LookupError(log)
            return found

        found = until(f"the log has {pattern}", look)
        check(True, f"{self.name} logs {found[0]!r}")

    def stop(self):
        """As Kubernetes does: the image's stop signal, then a wait, then SIGKILL."""
        began = time.monotonic()
        self.image.podman_says("stop", "--time", str(STOP_SECONDS), self.name)
        took = time.monotonic() - began
        code, killed = self.state(".State.ExitCode"), self.state(".State.OOMKilled")
        clean = code == "0" and killed == "false"
        check(clean, f"{self.name}: the stop signal ends it with exit code 0", (code, killed))
        check(took < GRACE_SECONDS, f"{self.name}: it took {took:.1f} s, less than shutdown_grace", took)
        self.until_logged("stopped: positions and checkpoints are written")


def check_restrictions(relay):
    """Of the process itself, not of what was asked for."""
    pid = relay.state(".State.Pid")
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    check(status["Uid"].split() == ["1000"] * 4, "it runs as uid 1000", status["Uid"])
    check(status["Gid"].split() == ["1000"] * 4, "it runs as gid 1000", status["Gid"])
    capabilities = {key: int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    check(not any(capabilities.values()), "it has no capabilities", capabilities)
    check(status["NoNewPrivs"] == "1", "it cannot gain privileges", status["NoNewPrivs"])
    check(status["Seccomp"] == "2", "its system calls are filtered", status["Seccomp"])
    mounts = [line.split() for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    (root,) = [mount for mount in mounts if mount[4] == "/"]
    check("ro" in root[5].split(","), "its root file system is read-only", root)
    limit, most = memory(pid)
    check(limit == MEMORY_BYTES, f"its memory is limited to {limit} bytes", limit)
    return most


def memory(pid):
    """The limit of a process's memory, and the file that tells the most it has used; with either version of cgroups."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            folder = pathlib.Path("/sys/fs/cgroup/memory" + path)
            return int((folder / "memory.limit_in_bytes").read_text()), folder / "memory.max_usage_in_bytes"
        if number == "0" and (folder := pathlib.Path("/sys/fs/cgroup" + path)).joinpath("memory.max").exists():
            return int((folder / "memory.max").read_text()), folder / "memory.peak"
    raise Failed(f"process {pid} is in no cgroup with a memory limit")


def run(arguments, stack):
    work = arguments.work
    names = Names(KINESIS_NAME)
    kinesis = Kinesis(work, arguments.kinesis_mock, stack)
    kinesis.create_stream()
    dynamo = Dynamo(work, arguments.binary, stack)

    listen = free_port()
    config, wrong, resolver, nothing = work / "relay.toml", work / "wrong.toml", work / "resolv.conf", work / "nothing"
    config.write_text(
        f'[storage.dynamo]\nregion = "us-east-1"\ntable_prefix = "image"\nendpoint = "{dynamo.endpoint}"\n'
        f'[kinesis]\nendpoint = "https://{KINESIS_NAME}:{kinesis.port}"\n'
        f'[telemetry]\nlisten = "127.0.0.1:{listen}"\nadmin_listen = "off"\nlog_format = "json"\n'
        f'[[handlers]]\nname = "{HANDLER}"\nkind = "sink"\nsubscribe = [{{ domain = "orders" }}]\n'
        f'kinesis = {{ stream = "{STREAM}" }}\n'
    )
    wrong.write_text('[relay]\nshutdown_graze = "20s"\n')
    resolver.write_text(f"nameserver {NAME_SERVER}\noptions timeout:2 attempts:2\n")
    nothing.mkdir()
    image = Image(arguments, config, resolver)
    trusted = (kinesis.authority, f"{ROOTS_IN_IMAGE}/test-ca.crt")

    # What it is, and how it refuses.
    printed = image.succeeds("--version", config=False)
    check(printed == f"angzarr-relay {arguments.version}\n", f"it is version {arguments.version}", printed)
    no_local = "unrecognized subcommand 'local'"
    image.fails(EXIT_USAGE, no_local, "local", what="it is built without `local`", config=False)
    image.fails(
        EXIT_USAGE, "shutdown_graze.*", "run", "--config", "/wrong.toml",
        what="a wrong configuration", mounts=[(wrong, "/wrong.toml")], config=False,
    )
    image.fails(
        EXIT_USAGE, ".*/none.toml.*", "run", "--config", "/none.toml", what="a missing configuration", config=False
    )

    # The SDK warns when it finds no root certificates; the second look shows that this would be seen.
    image.succeeds("tables", "create")
    warnings = {"environment": ["ANGZARR_RELAY_LOG=warn"]}
    printed = image.succeeds("tables", "describe", **warnings)
    check("root CA certificate" not in printed, "the root certificates of the image are found", printed)
    printed = image.succeeds("tables", "describe", mounts=[(nothing, ROOTS_IN_IMAGE)], **warnings)
    check("no native root CA certificates found" in printed, "... and if they were not, it would be said", printed)

    # Nobody has said that this Kinesis can be trusted.
    image.fails(1, "invalid peer certificate: UnknownIssuer", "doctor", what="`doctor` without the CA")
    appended = [image.append("order-1", 0, "OrderPlaced")]
    with Relay(image, "without-ca", listen) as relay:
        relay.answers("/livez")
        relay.until_metric(0, "handler_up_ratio", handler=HANDLER)
        relay.until_logged("invalid peer certificate: UnknownIssuer")
        check(kinesis.events() == [], "nothing was delivered to a Kinesis that is not trusted")
        relay.stop()
    check(kinesis.events() == [], "nor when it was stopped")

    image.succeeds("doctor", mounts=[trusted])
    instead = [(kinesis.authority, "/test-ca.crt")]
    image.succeeds("doctor", mounts=instead, environment=["SSL_CERT_FILE=/test-ca.crt"])

    with Relay(image, "with-ca", listen, mounts=[trusted]) as relay:
        relay.answers("/livez")
        relay.answers("/readyz")
        most = check_restrictions(relay)
        appended += [image.append("order-2", 0, "OrderPlaced"), image.append("order-1", 1, "OrderShipped")]

        def arrived():
            found = kinesis.events()
            if len(found) < len(appended):
                raise LookupError(found)
            return found

        found = until("the events arrive", arrived)
        check(sorted(found) == sorted(appended), f"{len(found)} events have arrived, each once and whole", found)
        check(order_holds(found), "each root's are in their order", found)
        relay.until_metric(1, "handler_up_ratio", handler=HANDLER)
        relay.until_metric(len(appended), "events_delivered_total", handler=HANDLER, outcome="accepted")
        print(f"    memory used at most: {int(most.read_text()) >> 20} MiB", flush=True)
        # Delivered, and maybe not yet durable: that is what a clean stop is for.
        appended.append(image.append("order-1", 2, "OrderClosed"))
        until("the last event arrives", arrived)
        relay.stop()
    image.succeeds("audit", mounts=[trusted])
    check(sorted(kinesis.events()) == sorted(appended), "nothing was repeated", kinesis.events())
    check(names.asked > 0, f"the name of Kinesis was looked up {names.asked} times", names.asked)


def order_holds(events):
    sequences = {}
    for root, sequence, _, _ in events:
        if sequence != sequences.get(root, -1) + 1:
            return False
        sequences[root] = sequence
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="the image's name")
    parser.add_argument("--version", required=True, help="the version it is to have")
    parser.add_argument("--binary", required=True, type=pathlib.Path, help="a binary with the command `local`")
    parser.add_argument("--kinesis-mock", required=True, type=pathlib.Path, help="the unpacked package")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="an empty folder for files")
    parser.add_argument("--podman", required=True, nargs=argparse.REMAINDER, help="podman and its options, at the end")
    arguments = parser.parse_args()
    # The finally clauses run on SIGTERM as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with contextlib.ExitStack() as stack:
            run(arguments, stack)
    except Failed as error:
        sys.exit(f"FAILED: {error}")
    print(f"{checks} checks of the running image hold")


if __name__ == "__main__":
    main()
