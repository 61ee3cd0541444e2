#!/usr/bin/env python3
"""One member of a room over Redis, in a server of its own: foreign.py HOST PORT ROOM LEASE NAME

Written from docs/room.md, "How to take part". It says what it reads, lists who is there for `WHO`, and prints
what is heard; at the end of its input it leaves. Of the faults it knows only those of other servers: for each
doubt about what Redis has, it gives up.
"""
import queue
import secrets
import socket
import sys
import threading
import time

HOST, PORT, ROOM, LEASE, NAME = sys.argv[1:]
ME, LIFE, MEMBER = secrets.token_hex(16), "1", "7"
HALF = float(LEASE) / 2
SERVERS, RECORD = f"{ROOM}:servers", f"{ROOM}:members:{ME}:{LIFE}"


class Redis:
    def __init__(self):
        self.file = socket.create_connection((HOST, int(PORT))).makefile("rwb")

    def ask(self, *commands):
        for command in commands:
            words = [str(word).encode() for word in command]
            self.file.write(b"*%d\r\n" % len(words))
            self.file.writelines(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.file.flush()
        return [self.reply() for _ in commands]

    def reply(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"-":
            sys.exit(rest)
        if kind == b"$" and rest != "-1":
            return self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*" and rest != "-1":
            return [self.reply() for _ in range(int(rest))]
        return None if rest == "-1" else rest


def pairs(flat):
    return dict(zip(flat[::2], flat[1::2]))


class Server:
    def __init__(self, life, record):
        self.life, self.last, self.here = int(life), int(record.get("last", 0)), int(record.get("here", 0))
        self.said = int(record.get("said", 0))
        # MEMBER: [ORDER, NAME]
        self.members = {it: [int(of), record.get(it + ".name", "")] for it, of in record.items() if it.isdigit()}


class Room:
    def __init__(self):
        self.redis, self.things = Redis(), queue.Queue()
        self.servers, self.missing = {}, {}
        self.number, self.heres, self.read, self.asked, self.needs_here = 0, 0, 0, False, False
        self.join()
        self.redis.ask(["WATCH", RECORD])
        self.tell_all()
        self.write(("arrive", {"member": MEMBER, "order": self.order() + 1}, ["HSET", RECORD, MEMBER, self.order() + 1]))
        self.write(("hello", {"member": MEMBER, "name": NAME}, ["HSET", RECORD, MEMBER + ".name", NAME]))

    # 1
    def join(self):
        there = self.redis.ask(["SMEMBERS", SERVERS])[0]
        listed = None
        while listed is None or sorted(listed) != sorted(there):
            there = there if listed is None else listed
            records = [["HGETALL", f"{ROOM}:members:{it}"] for it in there]
            first = [["MULTI"], ["SMEMBERS", SERVERS], ["XREVRANGE", ROOM, "+", "-", "COUNT", 1]]
            listed, end, *records = self.redis.ask(*first, *records, ["EXEC"])[-1]
        for name, record in zip(there, records):
            server, life = name.split(":")
            self.servers[server] = Server(life, pairs(record))
        self.servers[ME] = Server(LIFE, {})
        self.position = end[0][0] if end else "0-0"

    # 2
    def entry(self, number, kind, fields):
        fields = {"server": ME, "life": LIFE, "number": number, "kind": kind} | fields
        return ["XADD", ROOM, "*", *(word for pair in fields.items() for word in pair)]

    def transaction(self, *commands):
        *_, done, _ = self.redis.ask(["MULTI"], *commands, ["EXEC"], ["WATCH", RECORD])
        if done is None:
            sys.exit("somebody else has changed the record")

    def tell_all(self):
        self.heres += 1
        members = self.servers[ME].members
        record = {"last": self.number, "said": 0, "here": self.heres} | {it: of[0] for it, of in members.items()}
        record |= {it + ".name": of[1] for it, of in members.items()}
        lines = "".join(f"{it} {order} {name}\n" for it, (order, name) in members.items())
        here = {"after": self.read, "base": self.number, "said": 0, "members": lines}
        self.transaction(
            ["DEL", RECORD],
            ["HSET", RECORD, *(word for pair in record.items() for word in pair)],
            ["SADD", SERVERS, f"{ME}:{LIFE}"],
            self.entry(self.heres, "here", here),
        )

    def write(self, *entries):
        commands = []
        for kind, fields, *changes in entries:
            self.number += 1
            commands += [self.entry(self.number, kind, fields), *changes]
        self.transaction(["HSET", RECORD, "last", self.number], *commands)

    def order(self):
        return max((order for it in self.servers.values() for order, _ in it.members.values()), default=0)

    # 3, 4
    def hear(self, entry):
        id, life, number, kind = entry["server"], int(entry["life"]), int(entry["number"]), entry["kind"]
        if kind == "gone" and entry["gone"] in self.servers:
            gone = self.servers[entry["gone"]]
            if gone.life == int(entry["its_life"]):
                for _, name in sorted(gone.members.values()):
                    print(f"{name or 'An anonymous user'} has left the room.", flush=True)
                del self.servers[entry["gone"]]
        self.needs_here |= kind == "ask"
        if kind == "here":
            return self.take_over(id, life, number, entry) if id != ME else None
        server = self.servers.get(id)
        if server is None and id != ME:
            self.lost()
        if server is None or server.life != life or number <= server.last:
            return
        if number > server.last + 1:
            self.lost()
        server.last = number
        self.read = number if id == ME else self.read
        member, name = entry.get("member"), entry.get("name") or "An anonymous user"
        if kind == "arrive":
            server.members[member] = [int(entry["order"]), ""]
            print("Someone has arrived...", flush=True)
        elif kind in ("hello", "name") and member in server.members:
            if kind == "hello" or server.members[member][1] != entry["name"]:
                print(f"{name} is in the room.", flush=True)
            server.members[member][1] = entry["name"]
        elif kind == "say":
            print(f"{name} says: {entry['text']}", flush=True)
        elif kind == "bye":
            print(f"{name} is about to leave the room.", flush=True)
        elif kind == "leave" and member in server.members:
            name = server.members.pop(member)[1] or "An anonymous user"
            print(f"{name} has left the room.", flush=True)

    def take_over(self, id, life, number, entry):
        server = self.servers.get(id) or Server(life, {})
        if life < server.life or number <= server.here or life == server.life and int(entry["base"]) < server.last:
            return
        if server.last < int(entry["after"]):
            print("Some messages may be missing.", flush=True)
        lines = (line.split(" ", 2) for line in entry["members"].splitlines())
        now = {member: [int(order), name] for member, order, name in lines}
        for member, (_, name) in server.members.items():
            if member not in now:
                print(f"{name or 'An anonymous user'} has left the room.", flush=True)
        for member, (_, name) in now.items():
            if member not in server.members or server.members[member][1] != name:
                print(f"{name} is in the room." if name else "Someone has arrived...", flush=True)
        if int(entry["said"]) > server.said:
            print(f"{int(entry['said']) - server.said} lines were said elsewhere meanwhile.", flush=True)
        server.life, server.here, server.members, server.said = life, number, now, int(entry["said"])
        server.last = max(server.last, int(entry["base"]))
        self.servers[id] = server

    def lost(self):
        print("Some messages may be missing.", flush=True)
        self.asked = True

    # 6, 7
    def beat(self):
        self.redis.ask(["SET", f"{ROOM}:lease:{ME}", 1, "PX", int(HALF * 1000)])
        others = [id for id in self.servers if id != ME]
        leases = self.redis.ask(["MGET", *(f"{ROOM}:lease:{id}" for id in others)])[0] if others else []
        for id, lease in zip(others, leases):
            if lease is not None:
                self.missing.pop(id, None)
            elif time.monotonic() - self.missing.setdefault(id, time.monotonic()) > HALF:
                server, record = self.servers[id], f"{ROOM}:members:{id}:{self.servers[id].life}"
                gone = {"gone": id, "its_life": server.life, "last": server.last}
                self.write(("gone", gone, ["DEL", record], ["SREM", SERVERS, f"{id}:{server.life}"]))
                self.missing.pop(id)

    def run(self):
        threading.Thread(target=self.read_stream, daemon=True).start()
        threading.Thread(target=self.read_input, daemon=True).start()
        due, leaving = 0, False
        while True:
            if time.monotonic() >= due:
                self.beat()
                due = time.monotonic() + 1
            try:
                kind, what = self.things.get(timeout=max(0, due - time.monotonic()))
            except queue.Empty:
                continue
            if kind == "entry":
                self.hear(what)
                if ME not in self.servers:
                    return None if leaving else "the others believe that I am gone"
            elif what is None:
                leaving = True
                gone = {"gone": ME, "its_life": LIFE, "last": self.read}
                self.write(
                    ("leave", {"member": MEMBER}, ["HDEL", RECORD, MEMBER, MEMBER + ".name"]),
                    ("gone", gone, ["DEL", RECORD], ["SREM", SERVERS, f"{ME}:{LIFE}"]),
                )
            elif what == "WHO":
                members = (it for server in self.servers.values() for it in server.members.values())
                print("WHO:", *(name for _, name in sorted(members)), flush=True)
            else:
                self.write(("say", {"member": MEMBER, "name": NAME, "text": what}))
            if self.asked:
                self.asked = False
                self.write(("ask", {}))
            if self.needs_here and self.read == self.number:
                self.needs_here = False
                self.tell_all()

    def read_stream(self):
        reader = Redis()
        while True:
            found = reader.ask(["XREAD", "COUNT", 256, "BLOCK", 1000, "STREAMS", ROOM, self.position])[0]
            for self.position, fields in found[0][1] if found else []:
                if "server" in fields[::2]:
                    self.things.put(("entry", pairs(fields)))

    def read_input(self):
        for line in sys.stdin:
            self.things.put(("input", line.rstrip("\n")))
        self.things.put(("input", None))


sys.exit(Room().run())
