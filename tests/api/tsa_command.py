"""What a gateway runs for each command of a worker, started by sshd: it speaks as a TSA does, looks through the tunnels
at both APIs, and asks the cluster of the test (a unix socket) what is to be answered.
usage: tsa_command.py SOCKET SECONDS_BETWEEN_HEARTBEATS"""
import http.client
import json
import os
import select
import socket
import sys
import time


def ask(cluster, **question):
    cluster.write(json.dumps(question) + "\n")
    cluster.flush()
    line = cluster.readline()
    if not line:
        sys.exit(1)
    return json.loads(line)


def look(port, path):
    """What is there, through a tunnel; None while nobody answers."""
    try:
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        conn.request("GET", path)
        reply = conn.getresponse()
        found = json.loads(reply.read()) if reply.status == 200 else None
        conn.close()
        return found
    except (OSError, http.client.HTTPException):
        return None


def is_left():
    """Whether the worker has closed the session."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def tell(event):
    """Whether the worker is still there to hear of it."""
    try:
        print(json.dumps({"event": event}), flush=True)
        return True
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes there
        return False


def forward(cluster, words, worker):
    ports = {words[i]: int(words[i + 1].rsplit(":", 1)[1]) for i in range(1, len(words), 2)}
    is_registered = False
    while not is_left():
        containers = look(ports["--garden"], "/containers")
        volumes = look(ports["--baggageclaim"], "/volumes")
        if containers is not None and volumes is not None:
            counts = {"containers": len(containers["Handles"]), "volumes": len(volumes)}
            reply = ask(cluster, call="heartbeat" if is_registered else "register", worker=worker, pid=os.getpid(),
                        ports=[ports["--garden"], ports["--baggageclaim"]], **counts)
            if reply["status"] == 0:
                if not tell("heartbeated" if is_registered else "registered"):
                    break
                is_registered = True
            if reply["status"] or reply.get("is_over"):
                return reply["status"]
        elif is_registered:
            ask(cluster, call="missed", worker=worker)
        time.sleep(float(sys.argv[2]) if is_registered else 0.3)
    ask(cluster, call="cancelled", worker=worker, ports=[ports["--garden"], ports["--baggageclaim"]])
    return 0


def main():
    # sshd gives the command in one variable; the words were given to ssh one by one
    words = os.environ["SSH_ORIGINAL_COMMAND"].split(" ")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    cluster = connection.makefile("rw")
    worker = json.loads(sys.stdin.read())
    if words[0] == "forward-worker":
        return forward(cluster, words, worker)
    reply = ask(cluster, call=words[0], worker=worker, handles=words[1:])
    if "answer" in reply:
        print(json.dumps(reply["answer"]))
    return reply["status"]


if __name__ == "__main__":
    sys.exit(main())
