# SPDX-License-Identifier: Apache-2.0
"""avp-gateway beside the AVP Python SDK, curl, h2load, h2spec, and itself."""
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as xml

try:
    import avp
    from avp.transport import AVPClient
    from avp.errors import HandshakeError, TransportError
except ImportError:
    avp = None

AVPCTL = os.path.abspath("build/avpctl")
GATEWAY = os.path.abspath("build/avp-gateway")
H2SPEC = os.path.abspath("build/h2spec")
WAIT = 30  # seconds, for anything that has to happen


class Skip(Exception):
    pass


def need_sdk():
    if avp is None:
        raise Skip("the AVP SDK 0.6.2 cannot be installed here")


def need(program):
    path = shutil.which(program) or (program if os.access(program, os.X_OK)
                                     else None)
    if not path:
        raise Skip(f"no {os.path.basename(program)}")
    return path


# ---- processes ---------------------------------------------------------------

class Lines:
    """A child whose output is read line by line, with a time limit."""

    def __init__(self, args, env, stderr=None, prefix=()):
        self.proc = subprocess.Popen([*prefix, *map(str, args)], env=env,
                                     stdout=subprocess.PIPE, stderr=stderr)
        self.rest = b""

    def line(self, timeout=WAIT):
        end = time.monotonic() + timeout
        while b"\n" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.proc.stdout], [], [],
                                              left)[0]:
                raise AssertionError(f"no line from {self.proc.args[:3]}")
            more = os.read(self.proc.stdout.fileno(), 65536)
            if not more:
                raise AssertionError(f"{self.proc.args[:3]} ended: "
                                     f"{self.proc.wait()}")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def end(self, how=signal.SIGTERM):
        if self.proc.poll() is None:
            self.proc.send_signal(how)
        code = self.proc.wait(WAIT)
        self.proc.stdout.close()
        return code


class World:
    """A runtime directory, and what runs in it."""

    def __init__(self, prefix=()):
        self.dir = tempfile.mkdtemp(prefix="avp-interop-")
        self.run = os.path.join(self.dir, "run")
        os.mkdir(self.run, 0o700)
        self.env = {**os.environ, "AVP_RUNTIME_DIR": self.run}
        self.env.pop("AVP_CONFIG", None)
        self.prefix = prefix
        self.children = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for child in reversed(self.children):
            try:
                child.end()
            except Exception:
                child.proc.kill()
        if exc[0] and os.path.exists(self.path("gateway.log")):
            with open(self.path("gateway.log")) as f:
                sys.stderr.write(f.read()[-4000:])
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def gateway(self, section, name="gateway"):
        """Starts one; the ports of its listeners, in their order."""
        text = f"gateway:\n{section}"
        conf = self.write(f"{name}.yaml", text)
        log = open(self.path("gateway.log"), "ab")
        child = Lines([GATEWAY, "--config", conf], self.env, log, self.prefix)
        self.children.append(child)
        ports = []
        for _ in range(text.count("- address:")):
            found = re.search(r"^listening .*port=(\d+)", child.line())
            assert found, "no ready line"
            ports.append(int(found[1]))
        child.ports = ports
        return child

    def receiver(self, agent, *options):
        """avpctl recv; each line is a message, each file its frame."""
        out = self.path(f"out-{agent}")
        child = Lines([AVPCTL, "recv", "--as", agent, "--timeout", 120, "--out",
                       out, *options], self.env, prefix=self.prefix)
        child.out = out
        self.children.append(child)
        self.until(lambda: agent in self.agents(), f"{agent} is there")
        return child

    def agents(self):
        p = subprocess.run([*self.prefix, AVPCTL, "ls", "--json"],
                           env=self.env, capture_output=True, text=True)
        assert p.returncode == 0, p.stderr
        return {a["id"] for a in json.loads(p.stdout)["agents"]}

    def send(self, agent, *args, code=0):
        p = subprocess.run([*self.prefix, AVPCTL, "send", agent, "--timeout",
                            str(WAIT), *args], env=self.env,
                           capture_output=True, text=True)
        assert p.returncode == code, (p.returncode, p.stdout, p.stderr)
        return p.stdout if code == 0 else p.stderr

    @staticmethod
    def until(condition, what):
        end = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < end, f"not in time: {what}"
            select.select([], [], [], 0.02)


def certificates(world):
    """A CA and a certificate of it for 127.0.0.1."""
    def openssl(*args):
        subprocess.run([need("openssl"), *args], cwd=world.dir, check=True,
                       capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout",
            "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test ca")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem",
            "-out", "req.pem", "-subj", "/CN=127.0.0.1")
    world.write("ext", "subjectAltName=IP:127.0.0.1,IP:10.83.0.1,"
                       "IP:10.83.0.2,DNS:localhost\n")
    openssl("x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey",
            "ca.key", "-CAcreateserial", "-out", "cert.pem", "-days", "2",
            "-extfile", "ext")


# ---- what is sent --------------------------------------------------------------

def hidden(target="", dim=4096):
    payload = os.urandom(4 * dim)
    return payload, avp.AVPMetadata(
        source_agent_id="python", target_agent_id=target, model_id="m",
        hidden_dim=dim, num_layers=2, tensor_shape=(dim,),
        dtype=avp.DataType.FLOAT32, session_id="5" * 32)


def kv_cache(target="", layers=2, heads=2, dim=8, tokens=16):
    header = struct.pack("<IIIIB", layers, heads, dim, tokens, 1)
    payload = header + os.urandom(2 * layers * heads * dim * tokens * 2)
    return payload, avp.AVPMetadata(
        source_agent_id="python", target_agent_id=target, model_id="m",
        hidden_dim=16, num_layers=layers, tensor_shape=(2, layers, heads,
                                                        tokens, dim),
        payload_type=avp.PayloadType.KV_CACHE, dtype=avp.DataType.FLOAT16)


def identity(model_hash="ab" * 32):
    return avp.ModelIdentity(model_family="llama", model_id="m",
                             model_hash=model_hash, hidden_dim=4096,
                             num_layers=2, num_kv_heads=2, head_dim=8)


def frame_of(receiver):
    """The next message of a receiver, its frame decoded by the SDK."""
    line = json.loads(receiver.line())
    with open(os.path.join(receiver.out, os.path.basename(line["file"])),
              "rb") as f:
        return line, avp.decode(f.read())


# ---- the SDK as client -----------------------------------------------------------

LISTEN = "  listeners:\n    - address: 127.0.0.1\n      port: 0\n" \
         "      default_agent: solver\n"


def client_talks(world, client, receiver):
    for payload, metadata in (hidden(), kv_cache()):
        answer = client.transmit(payload, metadata)
        assert answer.status_code == 200 and answer.json()["success"] is True
        message = frame_of(receiver)[1]
        assert message.payload == payload
        assert message.metadata.tensor_shape == metadata.tensor_shape
    answer = client.transmit(*hidden(), avp.CompressionLevel.BALANCED)
    assert answer.json()["success"] is True
    assert frame_of(receiver)[1].metadata.compression
    text = avp.JSONMessage(source_agent_id="python", session_id="5" * 32,
                           target_agent_id="solver", content="caf\u00e9 \u2603")
    answer = client.send_text(text)
    assert answer.status_code == 200 and answer.json()["success"] is True
    line = json.loads(receiver.line())
    assert "caf\u00e9 \u2603" in json.dumps(line, ensure_ascii=False), line
    try:
        client.transmit(*hidden("nobody"))
        raise AssertionError("a message to nobody was taken")
    except TransportError as error:
        assert error.status_code == 404, error


def test_sdk_client_http():
    need_sdk()
    with World() as w:
        port = w.gateway(LISTEN).ports[0]
        receiver = w.receiver("solver")
        with AVPClient(f"http://127.0.0.1:{port}", "python",
                       identity()) as client:
            session = client.handshake()
            assert session.mode == avp.CommunicationMode.JSON, session
            assert re.fullmatch("[0-9a-f]{32}", session.session_id)
            client_talks(w, client, receiver)


def test_sdk_client_https():
    need_sdk()
    with World() as w:
        certificates(w)
        port = w.gateway(LISTEN + "      tls:\n"
                         f"        cert: {w.path('cert.pem')}\n"
                         f"        key: {w.path('key.pem')}\n").ports[0]
        receiver = w.receiver("solver")
        os.environ["SSL_CERT_FILE"] = w.path("ca.pem")
        try:
            with AVPClient(f"https://127.0.0.1:{port}", "python",
                           identity()) as client:
                client.handshake()
                answer = client.transmit(*hidden())
                assert answer.http_version == "HTTP/2", answer.http_version
                frame_of(receiver)
                client_talks(w, client, receiver)
        finally:
            del os.environ["SSL_CERT_FILE"]


def test_sdk_client_token():
    need_sdk()
    with World() as w:
        digest = hashlib.sha256(b"secret").hexdigest()
        port = w.gateway(LISTEN + "  tokens:\n    - name: python\n"
                         f"      sha256: {digest}\n").ports[0]
        receiver = w.receiver("solver")
        for token, status in ((None, 401), ("wrong", 401), ("secret", 200)):
            with AVPClient(f"http://127.0.0.1:{port}", "python", identity(),
                           token=token) as client:
                try:
                    got = client.transmit(*hidden()).status_code
                except TransportError as error:
                    got = error.status_code
                assert got == status, (token, got)
        frame_of(receiver)


# ---- the SDK as server -----------------------------------------------------------

def serve(server, fd, out, cert, key):
    """Runs in a child: create_app() that keeps what it gets as files."""
    import avp.transport as transport
    count = [0]

    def keep(kind, data):
        count[0] += 1
        name = os.path.join(out, f"{count[0]:06d}.{kind}")
        with open(name + ".part", "wb") as f:
            f.write(data)
        os.rename(name + ".part", name)

    async def on_frame(message):
        keep("payload", message.payload)
        return {"agent_id": "python", "model_id": message.metadata.model_id}

    async def on_text(message):
        keep("text", json.dumps(message.to_dict()).encode())
        return {"agent_id": "python"}

    app = transport.create_app(on_frame, on_text)
    if server == "uvicorn":
        import uvicorn
        tls = {"ssl_certfile": cert, "ssl_keyfile": key} if cert else {}
        config = uvicorn.Config(app, log_level="warning", **tls)
        uvicorn.Server(config).run(
            sockets=[socket.socket(fileno=int(fd))])
    else:
        import asyncio
        import hypercorn.asyncio
        from hypercorn.config import Config
        config = Config()
        config.bind = [f"fd://{fd}"]
        if cert:
            config.certfile, config.keyfile = cert, key
        asyncio.run(hypercorn.asyncio.serve(app, config))


class SdkServer:
    def __init__(self, world, server, tls):
        need_sdk()
        self.out = world.path("sdk")
        os.mkdir(self.out)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        os.set_inheritable(listener.fileno(), True)
        files = [world.path("cert.pem"), world.path("key.pem")] if tls else \
            ["", ""]
        self.proc = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "serve", server,
             str(listener.fileno()), self.out, *files], pass_fds=[
                 listener.fileno()])
        listener.close()
        world.children.append(self)

    def end(self):
        self.proc.kill()
        self.proc.wait()

    def kept(self, number, kind):
        name = os.path.join(self.out, f"{number:06d}.{kind}")
        World.until(lambda: os.path.exists(name), name)
        with open(name, "rb") as f:
            return f.read()


def server_is_talked_to(server, tls):
    with World() as w:
        if tls:
            certificates(w)
        sdk = SdkServer(w, server, tls)
        trust = f"      tls:\n        ca: {w.path('ca.pem')}\n" if tls else ""
        w.gateway(LISTEN + "  peers:\n    - url: "
                  f"http{'s' if tls else ''}://127.0.0.1:{sdk.port}\n"
                  f"      agents: [python]\n{trust}")
        w.until(lambda: "python" in w.agents(), "the proxy is there")
        number = 0
        for payload, metadata in (hidden("python"), kv_cache("python")):
            number += 1
            name = w.write("frame", avp.encode(payload, metadata))
            answer = json.loads(w.send("python", "--frame", name, "--wait-ack"))
            assert answer["status"] == "accepted", answer
            assert sdk.kept(number, "payload") == payload
        w.send("python", "--json", '{"content":"caf\\u00e9 \\u2603"}',
               "--wait-ack")
        text = json.loads(sdk.kept(number + 1, "text"))
        assert json.loads(text["content"]) == {"content": "caf\u00e9 \u2603"}


def test_sdk_server_uvicorn():
    server_is_talked_to("uvicorn", False)


def test_sdk_server_uvicorn_tls():
    server_is_talked_to("uvicorn", True)


def test_sdk_server_hypercorn():
    server_is_talked_to("hypercorn", False)


def test_sdk_server_hypercorn_tls():
    server_is_talked_to("hypercorn", True)


# ---- curl, h2load, h2spec -----------------------------------------------------------

def test_curl():
    curl = need("curl")
    need_sdk()
    with World() as w:
        certificates(w)
        plain, tls = w.gateway(
            LISTEN + LISTEN.split("\n", 1)[1] + "      tls:\n"
            f"        cert: {w.path('cert.pem')}\n"
            f"        key: {w.path('key.pem')}\n").ports
        receiver = w.receiver("solver")
        payload, metadata = hidden(dim=1 << 20)
        frame = w.write("frame", avp.encode(payload, metadata))
        for flag, version, port in (("--http1.1", "1.1", plain),
                                    ("--http2-prior-knowledge", "2", plain),
                                    ("--http1.1", "1.1", tls),
                                    ("--http2", "2", tls)):
            scheme = "https" if port == tls else "http"
            base = f"{scheme}://127.0.0.1:{port}"
            common = [curl, "-sS", "--cacert", w.path("ca.pem"), flag, "-w",
                      "\n%{http_version} %{http_code}"]
            p = subprocess.run([*common, f"{base}/health"],
                               capture_output=True, text=True)
            assert p.stdout == f'{{"status":"ok"}}\n{version} 200', p
            p = subprocess.run(
                [*common, "-H", "Content-Type: application/avp+binary",
                 "--data-binary", f"@{frame}", f"{base}/avp/v2/transmit"],
                capture_output=True, text=True)
            assert p.stdout.endswith(f"\n{version} 200"), p
            assert frame_of(receiver)[1].payload == payload


def test_h2load():
    h2load = need("h2load")
    need_sdk()
    with World() as w:
        port = w.gateway(LISTEN).ports[0]
        receiver = w.receiver("solver")
        frame = w.write("frame", avp.encode(*hidden()))
        load = subprocess.Popen(
            [h2load, "-n", "2000", "-c", "8", "-m", "32", "-d", frame, "-H",
             "content-type: application/avp+binary",
             f"http://127.0.0.1:{port}/avp/v2/transmit"],
            stdout=subprocess.PIPE, text=True)
        for _ in range(2000):
            receiver.line()
        out = load.communicate(timeout=WAIT)[0]
        assert "2000 succeeded, 0 failed, 0 errored" in out, out
        assert "status codes: 2000 2xx" in out, out


# Cases of h2spec that we fail on purpose, with the reason.
H2SPEC_EXCEPT = {}


def test_h2spec():
    need(H2SPEC)
    with World() as w:
        port = w.gateway(LISTEN).ports[0]
        report = w.path("h2spec.xml")
        p = subprocess.run([H2SPEC, "-h", "127.0.0.1", "-p", str(port), "-P",
                            "/health", "-j", report, "generic", "hpack"],
                           capture_output=True, text=True)
        bad, count = [], 0
        for case in xml.parse(report).iter("testcase"):
            count += 1
            name = f"{case.get('package')}: {case.get('classname')}"
            if case.find("failure") is not None or \
                    case.find("error") is not None:
                if name not in H2SPEC_EXCEPT:
                    bad.append(name)
        assert count > 40, (count, p.stdout)
        assert not bad, "\n".join(bad)


# ---- two hosts ------------------------------------------------------------------------

def test_two_namespaces():
    ip = need("ip")
    if os.geteuid() != 0:
        raise Skip("network namespaces need root")
    names = [f"avp{os.getpid()}a", f"avp{os.getpid()}b"]

    def run(*args):
        subprocess.run([ip, *args], check=True, capture_output=True)

    try:
        try:
            for name in names:
                run("netns", "add", name)
            run("link", "add", "veth0", "netns", names[0], "type", "veth",
                "peer", "name", "veth0", "netns", names[1])
        except subprocess.CalledProcessError as error:
            raise Skip(f"no network namespaces: {error.stderr[:80]}")
        for number, name in enumerate(names, 1):
            run("-n", name, "addr", "add", f"10.83.0.{number}/24", "dev",
                "veth0")
            run("-n", name, "link", "set", "veth0", "up")
            run("-n", name, "link", "set", "lo", "up")
        with World((ip, "netns", "exec", names[0])) as a, \
                World((ip, "netns", "exec", names[1])) as b:
            two_hosts(a, b)
    finally:
        for name in names:
            subprocess.run([ip, "netns", "del", name], capture_output=True)


def two_hosts(a, b):
    certificates(a)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        shutil.copy(a.path(name), b.path(name))

    def section(world, address, other, agents):
        return (f"  listeners:\n    - address: {address}\n      port: 7700\n"
                f"      tls:\n        cert: {world.path('cert.pem')}\n"
                f"        key: {world.path('key.pem')}\n"
                f"  peers:\n    - url: https://{other}:7700\n"
                f"      agents: [{agents}]\n      tls:\n"
                f"        ca: {world.path('ca.pem')}\n")

    a.gateway(section(a, "10.83.0.1", "10.83.0.2", "b1, b2"))
    b.gateway(section(b, "10.83.0.2", "10.83.0.1", "a1, a2"))
    receivers = {n: w.receiver(n) for n, w in (("a1", a), ("a2", a),
                                               ("b1", b), ("b2", b))}
    subprocess.run(
        [AVPCTL, "frame", "encode", "--metadata", a.write("meta", json.dumps(
            {"model_id": "m", "hidden_dim": 64, "tensor_shape": [64]})),
         "--payload", a.write("payload", os.urandom(256)), "-o",
         a.path("out.avp")], check=True, capture_output=True)
    with open(a.path("out.avp"), "rb") as f:
        frame = f.read()
    for world, targets in ((a, ("b1", "b2")), (b, ("a1", "a2"))):
        name = world.write("frame", frame)
        for target in targets:
            world.until(lambda: target in world.agents(), f"proxy {target}")
            answer = json.loads(world.send(target, "--frame", name,
                                           "--wait-ack"))
            assert answer["status"] == "accepted", answer
            line = json.loads(receivers[target].line())
            with open(os.path.join(receivers[target].out,
                                   os.path.basename(line["file"])),
                      "rb") as f:
                got = f.read()
            assert got.endswith(frame[-256:]), (len(got), len(frame))


def main():
    if sys.argv[1:2] == ["serve"]:
        return serve(*sys.argv[2:])
    wanted = sys.argv[1:]
    bad = False
    for name, test in list(globals().items()):
        if not name.startswith("test_") or \
                (wanted and name[5:] not in wanted):
            continue
        try:
            test()
            print(f"ok gateway.{name[5:]}", flush=True)
        except Skip as why:
            print(f"skip gateway.{name[5:]}: {why}", flush=True)
        except Exception:
            bad = True
            traceback.print_exc()
            print(f"FAIL gateway.{name[5:]}", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
